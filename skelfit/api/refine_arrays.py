"""`skelfit.refine`: people in arrays, refined against 2D keypoints; and the function that a training refines with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, Generic, TypeVar

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skelfit.api.arguments import motions_of
from skelfit.api.fit_arrays import Models, usable_device, usable_models
from skelfit.bodies.model_set import ModelSet
from skelfit.config.refine_settings import RefineConfig, published_loop_config
from skelfit.errors import ArgumentError
from skelfit.fitting.backends.backend import REFINEMENT
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementStatus,
)
from skelfit.fitting.refinement.refiner import Refiner
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.labels.label_batch import MotionSequence
from skelfit.learning.data.better_labels import BetterLabelsConfig, PosedPeople, RefinePeople

A = TypeVar("A")  # of arrays


@dataclass(frozen=True)
class RefinedPeople(Generic[A]):
    """What became of people, with the leading dimensions `...` of the call; pairs are before and after."""

    poses: A  # (..., 46) rad
    betas: A  # (..., 10)
    trans: A  # (..., 3) m
    reprojection_px: A  # (..., 2) mean distance of the seen keypoints; NaN: cannot be measured
    cam_int: A  # (..., 3, 3) px, as given, or estimated for the people who are refined; 0: not known
    objective: A  # (..., 2) what was minimised, in squared shoulder-hip lengths
    status: NDArray[np.str_]  # (...) refined, or why the person is as before

    @property
    def ok(self) -> NDArray[np.bool_]:
        """(...) who was refined."""
        return np.asarray(self.status == "refined")


def refine(
    poses: ArrayLike | Tensor,
    betas: ArrayLike | Tensor,
    trans: ArrayLike | Tensor,
    keypoints2d: ArrayLike | Tensor,
    cam_int: ArrayLike | Tensor | None,
    *,
    image_size: ArrayLike | Tensor | None = None,
    gender: ArrayLike = "male",
    settings: RefineConfig | None = None,
    models: Models = None,
    device: str = "auto",
    frames_per_second: float | None = None,
) -> RefinedPeople[Any]:
    """Refine SKEL parameters, such as predictions, against 2D keypoints. Nothing couples two people, but frames.

    The leading dimensions `...` are those of poses; other arguments are broadcast to them.

    Args:
        poses: SKEL's angles (..., 46) in rad, in the frame of the camera (x right, y down, z forward).
        betas: (..., 10).
        trans: (..., 3) m.
        keypoints2d: (..., 44, 3), px of the image and confidence; 0: not seen. 25 of OpenPose, then 19 extra ones.
        cam_int: intrinsics (..., 3, 3) px; 0: not known. None: of no one.
        image_size: width and height (..., 2) px. Where the camera is not known, it is estimated with them: the focal
            length under the prior of `settings.focal`, the principal point in the middle. trans is not used then.
        gender: of the SKEL body: male or female; one for all, or one each.
        settings: a RefineConfig. None: the default, which holds people near where they are given.
        models, device: as for `skelfit.fit`.
        frames_per_second: None: each is a person of their own. Else the last of the leading dimensions is time, and
            the frames of a person are refined as one problem and share their betas.

    Returns:
        A RefinedPeople, whose arrays are tensors on poses' device where poses are a tensor, else NumPy arrays; float32.
        A person who cannot be refined keeps the numbers given, and `status` says why: unchanged, not_finite,
        no_camera, few_keypoints, behind_camera, swapped or unlikely_focal.

    Raises:
        ArgumentError: for a wrong shape or gender, or settings of another type.
        ModelError, DeviceError: for models or a device that cannot be used.
    """
    if settings is not None and not isinstance(settings, RefineConfig):
        raise ArgumentError("settings", "a RefineConfig, or None", type(settings).__name__)
    angles = _numbers("poses", poses)
    if angles.ndim < 1 or angles.shape[-1] != 46:
        raise ArgumentError("poses", "shape (..., 46)", f"shape {tuple(angles.shape)}")
    leading = tuple(angles.shape[:-1])
    cam_int = torch.zeros(3, 3) if cam_int is None else cam_int
    image_size = torch.zeros(2) if image_size is None else image_size
    others: list[tuple[str, ArrayLike | Tensor, tuple[int, ...]]] = [
        ("betas", betas, (10,)),
        ("trans", trans, (3,)),
        ("keypoints2d", keypoints2d, (44, 3)),
        ("cam_int", cam_int, (3, 3)),
        ("image_size", image_size, (2,)),
    ]
    sized = [_broadcast(name, x, leading, size) for name, x, size in others]
    problem = RefinementProblem(
        BodyParameters(angles.reshape(-1, 46), sized[0], sized[1]),
        _female(gender, leading),
        sized[2],
        sized[3],
        image_size=sized[4],
        frames=_frames(motions_of(leading, frames_per_second, "poses")),
    )
    result = _refiner(
        usable_models(models), settings or RefineConfig(), usable_device(device, REFINEMENT)
    ).refine(problem)

    def shaped(x: Tensor) -> Any:
        whole = x.float().reshape(leading + x.shape[1:])
        return whole.to(poses.device) if isinstance(poses, Tensor) else whole.numpy()

    names = [RefinementStatus(number).name.lower() for number in result.status.tolist()]
    return RefinedPeople(
        poses=shaped(result.refined.angles),
        betas=shaped(result.refined.betas),
        trans=shaped(result.refined.transl),
        reprojection_px=shaped(result.reprojection_px),
        cam_int=shaped(result.cam_int),
        objective=shaped(result.objective),
        status=np.array(names, np.str_).reshape(leading),
    )


def _frames(motions: Sequence[MotionSequence]) -> FrameIndex | None:
    """The frames of some people, one after the other."""
    if not motions:
        return None
    sequence = np.concatenate([np.full(motion.frames, k) for k, motion in enumerate(motions)])
    times = [np.arange(motion.frames) / (motion.frame_rate or 1.0) for motion in motions]
    return FrameIndex(sequence, np.concatenate(times))


def label_refiner(config: BetterLabelsConfig, models: ModelSet, gender: str, device: str) -> RefinePeople:
    """The function that a training refines its predictions with. gender: of the body that is predicted."""
    settings = published_loop_config() if config.refiner == "published" else RefineConfig()

    def refined(people: PosedPeople) -> tuple[PosedPeople, Tensor]:
        start = BodyParameters(people.poses, people.betas, people.trans)
        female = torch.full((len(people.poses),), gender == "female")
        problem = RefinementProblem(start, female, people.keypoints2d, people.cam_int)
        result = _refiner(models, settings, device).refine(problem)
        new = result.refined
        made = replace(people, poses=new.angles, betas=new.betas, trans=new.transl)
        return made, result.status == int(RefinementStatus.REFINED)

    return refined


@lru_cache(maxsize=2)
def _refiner(models: ModelSet, settings: RefineConfig, device: str) -> Refiner:
    """The refiner of a kind of call, kept for the next: to prepare it takes seconds."""
    return Refiner(models, settings, device)


def _numbers(name: str, x: ArrayLike | Tensor) -> Tensor:
    try:
        return torch.as_tensor(x).detach().cpu().float()
    except (TypeError, ValueError, RuntimeError) as error:
        raise ArgumentError(name, "numbers", str(error)[:100]) from None


def _broadcast(name: str, x: ArrayLike | Tensor, leading: tuple[int, ...], size: tuple[int, ...]) -> Tensor:
    """Numbers (N, *size) of an argument. Raises ArgumentError."""
    given = _numbers(name, x)
    try:
        return given.expand(*leading, *size).reshape(-1, *size)
    except RuntimeError:
        expected = f"shape {(*leading, *size)}, or one that can be broadcast to it"
        raise ArgumentError(name, expected, f"shape {tuple(given.shape)}") from None


def _female(gender: ArrayLike, leading: tuple[int, ...]) -> Tensor:
    """Who is female, (N,) bool. Raises ArgumentError."""
    names = np.asarray(gender)
    if wrong := sorted({str(name) for name in names.ravel().tolist()} - {"male", "female"}):
        raise ArgumentError("gender", "male or female", ", ".join(wrong[:3]))
    try:
        return torch.from_numpy(np.broadcast_to(names == "female", leading).reshape(-1).copy())
    except ValueError:
        raise ArgumentError("gender", f"one, or shape {leading}", f"shape {names.shape}") from None
