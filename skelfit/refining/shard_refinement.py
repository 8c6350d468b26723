"""The stages of shards that are refined: they are read, their people refined together, and each is judged.

No result depends on the people beside it, but for the frames of a sequence, which no shard cuts. So shards have the
same bytes as when each is refined by itself. What is measured afterwards is measured shard by shard, in one thread:
sums of matrix products may depend on how many there are.
"""

from __future__ import annotations

import platform
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from skelfit import __version__
from skelfit.bodies.model_set import ModelSet, load_models, open_models
from skelfit.config.refine_job import RefineJob
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.errors import ConfigError, ModelError
from skelfit.fitting.backends.compute_device import find_device
from skelfit.fitting.refinement.refinement_problem import (
    BodyParameters,
    RefinementProblem,
    RefinementResult,
    map_refinements,
)
from skelfit.fitting.refinement.refiner import Refiner
from skelfit.refining.acceptance import judge_refinements
from skelfit.refining.candidates import Candidates
from skelfit.refining.frame_times import frames_of
from skelfit.refining.refine_run import REFINEMENT_VERSION, RefineRun, RefineTask
from skelfit.refining.refined_samples import RefinedShard
from skelfit.refining.source_shard import SourceShard, read_source
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.verification.measures.posed_bodies import BodyModels

_CAMERA_AXES = ("camera_axes", "crop_camera")


class PeopleRefiner(Protocol):
    """Refines people."""

    def refine(self, problem: RefinementProblem) -> RefinementResult:
        """What becomes of N people."""


@dataclass(frozen=True)
class RefinementStages:
    """How shards are refined."""

    refiner: PeopleRefiner | None = None  # None: that of the run, which this process makes once

    def check(self, run: RefineRun) -> None:
        """Raise ConfigError when this skelfit gives other results than the run: a worker may have an older one."""
        if run.version != REFINEMENT_VERSION:
            expected = f"{run.version}, that of the run, on every worker"
            here = f"{REFINEMENT_VERSION} on {platform.node()} (skelfit {__version__})"
            raise ConfigError(Path(__file__).parent, "version of refinements", expected, here)

    def read(self, task: RefineTask) -> SourceShard:
        """Read a finished shard. Raises ShardError."""
        return read_source(task)

    def calls(self, shards: Sequence[SourceShard]) -> Iterator[Sequence[SourceShard]]:
        """All of a batch are refined together."""
        if shards:
            yield shards

    def fit(self, shards: Sequence[SourceShard], stopwatch: Stopwatch) -> Sequence[RefinedShard]:
        """Refine the people of shards, and judge what comes of it."""
        run = shards[0].task.run
        with stopwatch.phase("preparing"):
            refiner, bodies = self.refiner or _refiner(run), _bodies(run)
            problem = _problem(np.concatenate([shard.labels for shard in shards]), shards)
            frames = frames_of(shards, run.job.refine.ties.frame_rate)
        with stopwatch.phase("fit"):
            result = refiner.refine(replace(problem, frames=frames)) if len(problem) else None
            return [
                _judged(shard, part, bodies)
                for shard, part in zip(shards, _parts(shards, result), strict=True)
            ]


def refine_batch(batch: ShardBatch, refiner: PeopleRefiner | None = None) -> BatchJob:
    """The work of a refinement: what there is to do with a batch."""
    return BatchJob(batch, RefinementStages(refiner))


def make_refiner(models: ModelSet, job: RefineJob, device: str) -> Refiner:
    """The refiner of a run."""
    return Refiner(models, job.refine, device)


def _problem(labels: FloatArray, shards: Sequence[SourceShard]) -> RefinementProblem:
    """The people of some shards. Intrinsics are 0 where the camera is not known; with the size of the image it can be
    estimated for labels in a camera's axes."""
    metas = [meta for shard in shards for meta in shard.metas]
    part = {name: torch.from_numpy(np.ascontiguousarray(x)) for name, x in unpack(labels).items()}
    known = torch.tensor(
        [meta["camera"] and meta["coordinates"] == "camera" for meta in metas], dtype=torch.bool
    )
    sizes = [meta["image_size"] if _can_be_placed(meta) else None for meta in metas]
    return RefinementProblem(
        start=BodyParameters(part["skel_poses"], part["skel_betas"], part["skel_trans"]),
        female=torch.tensor([meta["skel_gender"] == "female" for meta in metas], dtype=torch.bool),
        keypoints2d=part["gtkps"],
        cam_int=part["cam_int"] * known[:, None, None],
        image_size=torch.tensor([size or (0, 0) for size in sizes], dtype=torch.float32).reshape(-1, 2),
    )


def _can_be_placed(meta: Mapping[str, Any]) -> bool:
    """Whether a person can be placed before an estimated camera: the axes are a camera's, and it is not known."""
    coordinates = meta["coordinates"]
    return coordinates == "camera" or (coordinates in _CAMERA_AXES and not meta["camera"])


def _parts(
    shards: Sequence[SourceShard], result: RefinementResult | None
) -> Iterator[RefinementResult | None]:
    """The result of each shard."""
    start = 0
    for shard in shards:
        stop = start + len(shard.labels)
        yield None if result is None else map_refinements(lambda x, a=start, b=stop: x[a:b], result)
        start = stop


def _judged(shard: SourceShard, result: RefinementResult | None, bodies: BodyModels) -> RefinedShard:
    if result is None or not len(shard.labels):
        return RefinedShard(shard, shard.labels, ())
    with _one_thread():
        candidates = Candidates(shard, result, bodies)
        verdicts = judge_refinements(candidates.tried, candidates.measures, shard.task.run.job.accept)
    accepted = np.array([verdict.accepted for verdict in verdicts], bool)
    labels = np.where(accepted[:, None], candidates.labels, shard.labels)
    return RefinedShard(shard, labels, tuple(verdicts))


@contextmanager
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _refiner(run: RefineRun) -> Refiner:
    return _made_refiner(run.models, run.models_sha256, run.job, run.device)


@lru_cache(maxsize=1)
def _made_refiner(models: str | None, sha256: str, job: RefineJob, device: str) -> Refiner:
    return make_refiner(_models(models, sha256), job, find_device(device))


def _bodies(run: RefineRun) -> BodyModels:
    return _made_bodies(run.models, run.models_sha256)


@lru_cache(maxsize=1)
def _made_bodies(models: str | None, sha256: str) -> BodyModels:
    return BodyModels(_models(models, sha256))


def _models(folder: str | None, sha256: str) -> ModelSet:
    """The models of a run as this machine has them. Raises ModelError when they are not those of the run."""
    models = open_models() if folder is None else load_models(folder)
    if models.sha256 != sha256:
        raise ModelError(models.source, "sha256", f"the models of the run, {sha256}", models.sha256)
    return models
