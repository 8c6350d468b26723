"""`skelfit.to_smpl`: SKEL people in arrays as SMPL people, for tools that know SMPL."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skelfit.api.arguments import numbers, together
from skelfit.api.fit_arrays import Models, usable_device, usable_models
from skelfit.bodies.model_set import ModelSet
from skelfit.errors import ArgumentError
from skelfit.fitting.backends.backend import TO_SMPL
from skelfit.fitting.smpl_fitter import SmplFit, SmplFitter
from skelfit.labels.impossible_values import LIMITS
from skelfit.labels.row_faults import RowFaults
from skelfit.shards.row_status import BAD_INPUT, NOT_CONVERGED, OK

A = TypeVar("A")  # of arrays
_SHAPES = {"poses": (46,), "betas": (10,), "trans": (3,)}
_GENDERS = "male or female, one for all or one per person"


@dataclass(frozen=True)
class SmplPeople(Generic[A]):
    """People as SMPL, with the leading dimensions `...` of the call; numbers are float32.

    `status`: ok; not_converged: more steps would still gain; bad_input: nothing was fitted, the numbers are NaN.
    """

    pose: A  # (..., 24, 3) rad, axis-angle; joint 0 is the global orientation
    betas: A  # (..., 10) of the SMPL of the same gender
    transl: A  # (..., 3) m, in the frame of SKEL's trans
    pve_mm: A  # (...) mean distance of SMPL's skin to SKEL's, mm
    max_vertex_mm: A  # (...) the largest distance, mm
    gender: NDArray[np.str_]  # (...) '' where nothing was fitted
    status: NDArray[np.str_]  # (...)
    reason: NDArray[np.str_]  # (...) why the status is not ok; '' where it is

    @property
    def global_orient(self) -> A:
        """(..., 3) rad, the rotation of the root, as the package smplx names it."""
        pose: Any = self.pose
        orient: A = pose[..., 0, :]
        return orient

    @property
    def body_pose(self) -> A:
        """(..., 23, 3) rad, the rotations of the other joints."""
        pose: Any = self.pose
        body: A = pose[..., 1:, :]
        return body


def to_smpl(
    poses: ArrayLike | Tensor,
    betas: ArrayLike | Tensor,
    trans: ArrayLike | Tensor | None = None,
    *,
    gender: ArrayLike,
    models: Models = None,
    device: str = "auto",
) -> SmplPeople[Any]:
    """Fit SMPL to SKEL people, such as predictions: the way back from `skelfit.fit`.

    SMPL has the gender of SKEL and its shape; the pose and the translation bring SMPL's skin onto SKEL's. A person's
    answer does not depend on who else is in the call. Leading dimensions `...` are broadcast, as for `fit`.

    Args:
        poses: SKEL's angles (..., 46) in rad.
        betas: SKEL's shape (..., 10).
        trans: SKEL's translation (..., 3) in m, in any frame: the result is in the same one. None: zeros.
        gender: of the SKEL body: male or female, one for all or one per person; '' where `fit` has fitted nothing.
        models, device: as for `fit`.

    Returns:
        A SmplPeople, whose arrays are tensors on poses' device where poses are a tensor, else NumPy arrays. A person
        with a number that is not finite or that no person has, or without a gender, gets the status `bad_input`.

    Raises:
        ArgumentError: for a wrong shape, dtype or gender.
        ModelError, DeviceError: for models or a device that cannot be used.
    """
    given = {
        "poses": numbers(poses, "poses", "shape (..., 46) in rad"),
        "betas": numbers(betas, "betas", "shape (..., 10)"),
        "trans": np.zeros(3) if trans is None else numbers(trans, "trans", "shape (..., 3) in m"),
    }
    for name, shape in _SHAPES.items():
        if given[name].shape[-1:] != shape:
            raise ArgumentError(name, f"shape (..., {shape[0]})", f"shape {given[name].shape}")
    genders = np.asarray(gender)
    if wrong := sorted({str(text) for text in genders.flat} - {"male", "female", ""}):
        raise ArgumentError("gender", _GENDERS, ", ".join(map(repr, wrong[:3])))
    leading = given["poses"].shape[:-1]
    for name in ("betas", "trans"):
        leading = together(leading, given[name], 1, name)
    leading = together(leading, genders, 0, "gender")
    count = int(np.prod(leading))
    with np.errstate(over="ignore"):
        people = {
            name: np.broadcast_to(x, leading + x.shape[-1:]).reshape(count, x.shape[-1]).astype(np.float32)
            for name, x in given.items()
        }
    of_each = np.broadcast_to(genders, leading).reshape(count)
    bad = np.array(_faults(people, of_each), np.str_)
    model_set, kind = usable_models(models), usable_device(device, TO_SMPL)
    columns = _columns(people, np.where(bad == "", of_each, ""), _fitter(model_set, kind))
    status = np.where(bad != "", BAD_INPUT, np.where(columns.pop("converged"), OK, NOT_CONVERGED))
    reason = np.where(status == NOT_CONVERGED, "more steps would still gain", bad)

    def shaped(array: NDArray[Any]) -> Any:
        whole = array.reshape(leading + array.shape[1:])
        return torch.from_numpy(whole).to(poses.device) if isinstance(poses, Tensor) else whole

    return SmplPeople(
        **{name: shaped(column) for name, column in columns.items()},
        gender=np.where(bad == "", of_each, "").reshape(leading),
        status=status.reshape(leading),
        reason=reason.reshape(leading),
    )


def _faults(people: dict[str, NDArray[np.float32]], gender: NDArray[np.str_]) -> list[str]:
    """What is wrong with each person; '' for nothing."""
    faults = RowFaults(len(gender))
    faults.check_finite(people, {name: name for name in people})
    faults.report(gender == "", "no_gender")
    with np.errstate(over="ignore", invalid="ignore"):
        distance = np.linalg.norm(people["trans"].astype(np.float64), axis=1)
    limit = LIMITS.distance_m
    text = f"bad_translation: trans is {{:.0f}} m from the origin, more than {limit:.0f}"
    faults.report(np.isfinite(distance) & (distance > limit), text, distance)
    return faults.texts()


def _columns(
    people: dict[str, NDArray[np.float32]], gender: NDArray[np.str_], fitter: SmplFitter
) -> dict[str, NDArray[Any]]:
    """The fits of N people by field, NaN and not converged where the gender is ''."""
    count = len(gender)
    columns: dict[str, NDArray[Any]] = {
        "pose": np.full((count, 24, 3), np.nan, np.float32),
        "betas": np.full((count, 10), np.nan, np.float32),
        "transl": np.full((count, 3), np.nan, np.float32),
        "pve_mm": np.full(count, np.nan, np.float32),
        "max_vertex_mm": np.full(count, np.nan, np.float32),
        "converged": np.zeros(count, bool),
    }
    for name in sorted(set(gender.tolist()) - {""}):
        rows = np.flatnonzero(gender == name)
        fit: SmplFit = fitter.fit(name, *(torch.from_numpy(people[key][rows]) for key in _SHAPES))
        finite = fit.finite.numpy()
        for key, column in columns.items():
            column[rows[finite]] = getattr(fit, key).numpy()[finite]
    return columns


@lru_cache(maxsize=2)
def _fitter(models: ModelSet, device: str) -> SmplFitter:
    """The fitter of a kind of call, kept for the next: to prepare it takes seconds."""
    return SmplFitter(models, device=device)
