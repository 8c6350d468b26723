"""The models and the fitter of a run. A process makes them once: that takes longer than a shard takes to fit."""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet, load_models, open_models
from skelfit.bodies.smpl import root_joint_tables
from skelfit.config.fit_settings import RootPrior
from skelfit.config.pipeline import Pipeline
from skelfit.conversion.row_fits import LabelFitter
from skelfit.conversion.run_plan import Run
from skelfit.errors import ConfigError, ModelError
from skelfit.fitting.backends.backend import FIT, FREE_BETAS, MESHES, SEQUENCES
from skelfit.fitting.backends.compute_device import find_device
from skelfit.fitting.baseline.first_order import FirstOrderFitter
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_labels import MeshLabelFitter
from skelfit.labels.label_store import store_contents
from skelfit.shards.label_vector import FloatArray


def make_fitter(models: ModelSet, pipeline: Pipeline, device: str) -> LabelFitter:
    """The fitter that a pipeline asks for."""
    if pipeline.first_order is not None:
        return FirstOrderFitter(models, pipeline.fit, pipeline.first_order, device)
    return Fitter(models, pipeline.fit, device)


def make_mesh_fitter(models: ModelSet, pipeline: Pipeline, device: str) -> MeshLabelFitter:
    """The fitter of bare meshes. Raises ConfigError for settings that need SMPL parameters."""
    if pipeline.first_order is not None:
        expected = "labels with SMPL parameters, for a pipeline with first_order"
        raise ConfigError(pipeline.name, "first_order", expected, "bare meshes")
    # A frozen root is the default of pipelines, and a free one is what meshes have.
    usual: dict[str, tuple[object, ...]] = {
        "neutral_target": ("neutral",),
        "betas": ("transfer",),
        "root": ("frozen", "free"),
        "root_prior": (RootPrior(),),
    }
    for key, values in usual.items():
        if (value := getattr(pipeline.fit, key)) not in values:
            expected = f"labels with SMPL parameters, for {key}: {value}"
            raise ConfigError(pipeline.name, f"fit.{key}", expected, "bare meshes")
    return MeshLabelFitter(models, pipeline.fit, device)


def label_kernels(pipeline: Pipeline, genders: Collection[str], sequences: bool) -> tuple[str, ...]:
    """The files of kernels that a fit of labels launches: to SMPL bodies of these genders, of sequences or not."""
    files = SEQUENCES if sequences and pipeline.temporal else FIT
    return (*files, *FREE_BETAS) if "neutral" in genders else files


def run_kernels(run: Run) -> tuple[str, ...]:
    """The files of kernels that a run launches."""
    contents = [store_contents(file.store, file.rows) for file in run.labels]
    if not any(one.has_smpl for one in contents):
        return MESHES
    genders = {gender for one in contents for gender in one.genders}
    return label_kernels(run.pipeline, genders, any(one.sequences for one in contents))


def fitter_of(run: Run) -> LabelFitter:
    """The fitter of a run's labels in this process."""
    return _fitter(run.models, run.models_sha256, run.pipeline, run.device)


def mesh_fitter_of(run: Run) -> MeshLabelFitter:
    """The fitter of a run's meshes in this process."""
    return _mesh_fitter(run.models, run.models_sha256, run.pipeline, run.device)


def root_joints(run: Run, gender: str, betas: FloatArray) -> NDArray[np.float64]:
    """Rest positions (K,3) m of SMPL's root joint, of betas (K,10)."""
    at_rest, directions = _root_joint_tables(run.models, run.models_sha256, gender)
    joints: NDArray[np.float64] = at_rest + betas.astype(np.float64) @ directions.T
    return joints


@lru_cache(maxsize=1)
def _fitter(models: str | None, models_sha256: str, pipeline: Pipeline, device: str) -> LabelFitter:
    return make_fitter(_models(models, models_sha256), pipeline, find_device(device))


@lru_cache(maxsize=1)
def _mesh_fitter(models: str | None, models_sha256: str, pipeline: Pipeline, device: str) -> MeshLabelFitter:
    return make_mesh_fitter(_models(models, models_sha256), pipeline, find_device(device))


@lru_cache(maxsize=3)
def _root_joint_tables(
    models: str | None, models_sha256: str, gender: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return root_joint_tables(_models(models, models_sha256).smpl_of(gender))


def _models(folder: str | None, sha256: str) -> ModelSet:
    """The models of a run as this machine has them. Raises ModelError when they are not those of the run."""
    models = open_models() if folder is None else load_models(folder)
    if models.sha256 != sha256:
        raise ModelError(models.source, "sha256", f"the models of the run, {sha256}", models.sha256)
    return models
