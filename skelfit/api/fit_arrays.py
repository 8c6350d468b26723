"""`skelfit.fit` and `skelfit.fit_mesh`: people in arrays, fitted as a conversion fits the rows of a label file."""

from __future__ import annotations

import logging
from functools import lru_cache
from pathlib import Path
from typing import Any, TypeAlias, overload

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor

from skelfit.api.arguments import GivenPeople, given_labels, given_meshes
from skelfit.api.fitted_people import FittedPeople
from skelfit.bodies.model_set import ModelSet, find_models
from skelfit.config.pipeline import Pipeline
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE, chosen_pipeline
from skelfit.conversion.fitted_rows import RowFits, RowsToFit, frames_of
from skelfit.conversion.row_fits import LabelFitter, fit_rows, labels_fit, meshes_fit
from skelfit.conversion.row_judgement import judge_rows
from skelfit.conversion.run_fitter import label_kernels, make_fitter, make_mesh_fitter
from skelfit.conversion.shard_samples import without_jumps
from skelfit.errors import ArgumentError, found_text
from skelfit.fitting.backends.backend import MESHES, compile_once
from skelfit.fitting.backends.compute_device import find_device
from skelfit.fitting.mesh_labels import MeshLabelFitter
from skelfit.shards.row_status import PUBLISHED
from skelfit.storage.locations import Place

Models: TypeAlias = "ModelSet | Place | None"
NumPyPeople = FittedPeople[NDArray[np.float32]]
_log = logging.getLogger(__name__)


@overload
def fit(
    pose: Tensor,
    betas: ArrayLike | Tensor,
    transl: ArrayLike | Tensor | None = None,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
    frames_per_second: float | None = None,
) -> FittedPeople[Tensor]: ...


@overload
def fit(
    pose: ArrayLike,
    betas: ArrayLike | Tensor,
    transl: ArrayLike | Tensor | None = None,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
    frames_per_second: float | None = None,
) -> NumPyPeople: ...


def fit(
    pose: ArrayLike | Tensor,
    betas: ArrayLike | Tensor,
    transl: ArrayLike | Tensor | None = None,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
    frames_per_second: float | None = None,
) -> FittedPeople[Any]:
    """Fit SKEL to people given by SMPL parameters, in NumPy arrays or torch tensors.

    A person's answer is the one that `skelfit convert` writes for the same numbers, bit by bit, and does not depend on
    who else is in the call. The leading dimensions `...` are any, and are kept in the result: () for one person, (N,),
    or (people, frames). Those of the arguments are broadcast, so betas (10,) may serve all poses.

    Args:
        pose: axis-angles (..., 24, 3) or (..., 72) in rad, or rotation matrices (..., 24, 3, 3); joint 0 is the
            global orientation.
        betas: SMPL's shape (..., 10); of more than 10 the first 10 are used, and `notes` of the result says so.
        transl: SMPL's translation (..., 3) in m, in any frame: the result is in the same one. None: zeros.
        gender: of the SMPL body: neutral, male or female; one for all or one per person.
        models: a set of `load_models`, or a folder; None: $SKELFIT_MODELS, else ./models, else the open body.
        device: auto, cpu or cuda; auto takes a GPU where there is one.
        pipeline: how to fit: the name of a pipeline that comes with skelfit, a YAML file, or a Pipeline.
        skel_gender: of the SKEL for neutral people: male, female, or best, whichever fits a person better. None: as
            the pipeline has it.
        frames_per_second: the last leading dimension holds the frames of one motion, this many a second. They are
            fitted as one problem, with one shape: betas and gender are the same for all frames of a motion. None:
            every row is a person by themselves.

    Returns:
        A FittedPeople, whose arrays are tensors on pose's device where pose is a tensor, else NumPy arrays; float32.
        A person with a number that is not finite, is masked (numpy.ma), or that no person has, gets the status
        `bad_input` and NaN. All numbers of a person whose fit is not finite are NaN.

    Raises:
        ArgumentError: for a wrong shape, dtype or gender.
        ModelError, ConfigError, DeviceError: for models, a pipeline or a device that cannot be used.
    """
    chosen = chosen_pipeline(pipeline, skel_gender)
    given = given_labels(pose, betas, transl, gender, chosen.gates.max_abs_beta, frames_per_second)
    model_set = usable_models(models)
    kind = usable_device(device, label_kernels(chosen, given.batch.gender, bool(given.batch.sequences)))
    rows = RowsToFit.of(given.batch, frames=frames_of(given.batch, chosen.temporal))
    fits = fit_rows(rows, labels_fit(rows, _fitter(model_set, chosen, kind)), len(chosen.fit.stages))
    return _fitted(given, fits, chosen, model_set, pose)


@overload
def fit_mesh(
    vertices: Tensor,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
) -> FittedPeople[Tensor]: ...


@overload
def fit_mesh(
    vertices: ArrayLike,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
) -> NumPyPeople: ...


def fit_mesh(
    vertices: ArrayLike | Tensor,
    *,
    gender: ArrayLike = "neutral",
    models: Models = None,
    device: str = "auto",
    pipeline: Place | Pipeline = DEFAULT_PIPELINE,
    skel_gender: str | None = None,
) -> FittedPeople[Any]:
    """Fit SKEL to people given by meshes alone, in SMPL's topology.

    Args:
        vertices: skins (..., 6890, 3) in m, in any frame: the result is in the same one.
        gender: which SKEL: male, female, or neutral, where the pipeline or `skel_gender` chooses; one or one each.
        models, device, pipeline, skel_gender: as for `fit`.

    Returns:
        As `fit` does. A mesh with a number that is not finite, or of a size that no person has, gets the status
        `bad_input` and NaN.

    Raises:
        ArgumentError: for a wrong shape, dtype or gender.
        ModelError, ConfigError, DeviceError: for models, a pipeline or a device that cannot be used.
    """
    chosen = chosen_pipeline(pipeline, skel_gender)
    given = given_meshes(vertices, gender)
    model_set, kind = usable_models(models), usable_device(device, MESHES)
    rows = RowsToFit.of(given.batch)
    fits = fit_rows(rows, meshes_fit(rows, _mesh_fitter(model_set, chosen, kind)), len(chosen.fit.stages))
    return _fitted(given, fits, chosen, model_set, vertices)


def load_models(folder: Place | None = None) -> ModelSet:
    """The body models to fit and to pose with.

    Args:
        folder: where `skelfit models import` wrote them. None: $SKELFIT_MODELS, else ./models, else the open body, a
            free stand-in that comes with skelfit. `source` of the result says which it is.

    Returns:
        A set whose `smpl_of(gender)` and `skel_of(gender)` are what SmplModel and SkelModel are made of.

    Raises:
        ModelError: for a folder without models, or with damaged ones.
    """
    return find_models(folder)


def usable_models(models: Models) -> ModelSet:
    """The models of an argument. Raises ArgumentError, ModelError."""
    if isinstance(models, ModelSet):
        return models
    if models is not None and not isinstance(models, (str, Path)):
        expected = "a set of load_models, the path of a models folder, or None"
        raise ArgumentError("models", expected, found_text(models))
    return find_models(models)


def check_device(device: str) -> None:
    """Raise ArgumentError for a name that is none of a device."""
    if device not in ("auto", "cpu", "cuda"):
        raise ArgumentError("device", "auto, cpu or cuda", repr(device))


def usable_device(device: str, kernels: tuple[str, ...]) -> str:
    """cpu or cuda. These kernels for it are compiled where they are not. Raises ArgumentError, DeviceError."""
    check_device(device)
    kind = find_device(device)
    compile_once(kind, kernels, _log.warning)
    return kind


@lru_cache(maxsize=2)
def _fitter(models: ModelSet, pipeline: Pipeline, device: str) -> LabelFitter:
    """The fitter of a kind of call, kept for the next: to prepare it takes seconds."""
    return make_fitter(models, pipeline, device)


@lru_cache(maxsize=2)
def _mesh_fitter(models: ModelSet, pipeline: Pipeline, device: str) -> MeshLabelFitter:
    """The same for meshes."""
    return make_mesh_fitter(models, pipeline, device)


def _fitted(
    given: GivenPeople, fitted: RowFits, pipeline: Pipeline, models: ModelSet, like: object
) -> FittedPeople[Any]:
    """Judge the fits of a call as a job judges those of a shard, and give them the shape of the call."""
    batch, leading = given.batch, given.leading
    verdicts = judge_rows(batch, fitted, pipeline)
    poses = without_jumps(batch, fitted.poses, [verdict.status in PUBLISHED for verdict in verdicts])
    genders = np.where(fitted.finite, np.where(fitted.female, "female", "male"), "")

    def shaped(array: NDArray[Any]) -> Any:
        # A fit that is not finite may have numbers that are; they mean nothing.
        finite = fitted.finite.reshape(-1, *[1] * (array.ndim - 1)) if array.size else True
        whole = np.where(finite, array, np.float32(np.nan)).reshape(leading + array.shape[1:])
        return torch.from_numpy(whole).to(like.device) if isinstance(like, Tensor) else whole

    return FittedPeople(
        poses=shaped(poses),
        betas=shaped(fitted.betas),
        trans=shaped(fitted.trans),
        pve_mm=shaped(fitted.pve_mm),
        max_vertex_mm=shaped(fitted.max_vertex_mm),
        status=np.array([verdict.status for verdict in verdicts], np.str_).reshape(leading),
        reason=np.array([verdict.reason for verdict in verdicts], np.str_).reshape(leading),
        skel_gender=genders.reshape(leading),
        models=models,
        notes=batch.about.notes,
    )
