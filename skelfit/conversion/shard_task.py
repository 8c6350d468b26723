"""One shard from end to end: label rows in, fitted people out. Knows nothing of Dask.

A task holds names and numbers, never arrays, so that it travels cheaply; it may run twice, or on another
machine, and then writes the same bytes. A row that cannot be used or fitted is data: it gets a status and a
reason in the sidecar.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit import __version__
from skelfit.bodies.angle_continuity import make_continuous
from skelfit.bodies.model_set import ModelSet, load_models, open_models
from skelfit.bodies.smpl import root_joint_tables
from skelfit.config.pipeline import Pipeline
from skelfit.conversion.row_status import (
    FitRows,
    Fitted,
    FitterLike,
    Verdict,
    fit_rows,
    fitted_rates,
    frames_of,
    judge,
    to_labels,
    to_meshes,
)
from skelfit.conversion.run_plan import ALGORITHM_VERSION, Run, ShardTask
from skelfit.conversion.subject_shapes import subject_shapes
from skelfit.errors import ConfigError, DeviceError, ModelError, OutputError
from skelfit.fitting.baseline.first_order import FirstOrderFitter
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.mesh_labels import MeshPeople
from skelfit.images.image_bytes import ShardImage
from skelfit.images.image_source import open_images, read_images
from skelfit.images.square_crop import CropBox
from skelfit.labels.filters import FilterResult, apply_filters
from skelfit.labels.image_names import image_path
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import read_rows
from skelfit.labels.world_up import turned
from skelfit.shards.label_vector import LAYOUT_VERSION, FloatArray, pack
from skelfit.shards.row_statistics import round_mm
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_schema import ShardRow, ShardSample
from skelfit.shards.shard_writer import write_shard

BETAS_STEPS = ("transferred", "refined")


# Where the time of a shard goes. `waiting`: for the shard before it, which is being fitted or written.
PHASES = ("labels", "preparing", "waiting", "fit", "images", "writing")
# The shards of a process share one device: one is fitted at a time.
_DEVICE = threading.Lock()
# Entered while a shard that is fitted is written. A cluster sets it, so as to let the next shard begin meanwhile.
writing_behind: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar(
    "writing_behind", default=nullcontext
)


@dataclass(frozen=True)
class ShardResult:
    """What was done of one shard."""

    name: str
    rows_in: int
    rows_out: int
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]  # as in the marker
    seconds: Mapping[str, float]  # of each of PHASES
    process: str  # who did it: host and process id
    span: tuple[float, float]  # from when to when, in seconds by the clock of that host


class _Clock:
    """Adds up the seconds of phases; what an inner phase takes is not counted to the outer."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(PHASES, 0.0)
        self._phases: list[str] = []
        self._last = time.perf_counter()

    def _count(self) -> None:
        now = time.perf_counter()
        if self._phases:
            self.seconds[self._phases[-1]] += now - self._last
        self._last = now

    @contextmanager
    def phase(self, name: str) -> Iterator[None]:
        self._count()
        self._phases.append(name)
        try:
            yield
        finally:
            self._count()
            self._phases.pop()


def run_shard(task: ShardTask, fitter: FitterLike | None = None) -> ShardResult:
    """Convert one shard and write it. Raises SkelfitError when a file cannot be read or written."""
    run, clock, began = task.run, _Clock(), time.time()
    check_algorithm(run)
    with announced(task.files) as tried_before:
        # A shard that was lost with its worker has the next worker for itself: the fault may be in its neighbour.
        behind = nullcontext if tried_before else writing_behind.get()
        with clock.phase("labels"):
            batch = read_rows(run.labels[task.file_index].store, task.start, task.stop)
            batch, screening = apply_filters(batch, run.filters)
            batch = _as_stored(batch, run, task.file_index)
        with clock.phase("waiting"), _DEVICE:
            with clock.phase("preparing"):
                fit = _way_to_fit(task, batch, fitter)
            with clock.phase("fit"):
                fitted = fit_rows(batch, fit, len(run.pipeline.fit.stages), screening.reasons)
        with clock.phase("waiting"), behind(), clock.phase("writing"):
            entries = _entries(task, batch, fitted, screening, clock)
            marker = write_shard(task.files, entries, run.identity(), (task.start, task.stop))
    return ShardResult(
        name=task.name,
        rows_in=marker.rows_in,
        rows_out=marker.rows_out,
        statuses=marker.statuses,
        rejected=marker.rejected,
        seconds=clock.seconds,
        process=f"{platform.node()} {os.getpid()}",
        span=(began, time.time()),
    )


def check_algorithm(run: Run) -> None:
    """Raise ConfigError when this skelfit gives other results than the run: a worker may have an older one."""
    if run.algorithm != ALGORITHM_VERSION:
        expected = f"{run.algorithm}, that of the run, on every worker"
        found = f"{ALGORITHM_VERSION} on {platform.node()} (skelfit {__version__})"
        raise ConfigError(Path(__file__).parent, "algorithm version", expected, found)


@contextmanager
def announced(files: ShardFiles) -> Iterator[bool]:
    """Say beside the shard that it is being made; gives whether somebody began and did not end it.

    Raises OutputError: no fit for what cannot be written.
    """
    who = {"host": platform.node(), "process": os.getpid()}
    try:
        tried_before = files.started.exists()
        files.started.write_text(json.dumps(who) + "\n")
    except OSError as error:
        raise OutputError(f"{files.folder}: cannot be written to: {error}") from error
    try:
        yield tried_before
    finally:
        # Only for those who watch: when it cannot be removed, that must not cost a finished shard.
        with suppress(OSError):
            files.started.unlink()


def _as_stored(batch: LabelBatch, run: Run, file_index: int) -> LabelBatch:
    """A batch in the world that is asked for."""
    up = run.labels[file_index].read.up
    if up is None:
        return batch
    return turned(batch, up, lambda gender, betas: _root_joints(run.models, run.models_sha256, gender, betas))


def _root_joints(
    models: str | None, models_sha256: str, gender: str, betas: FloatArray
) -> NDArray[np.float64]:
    """Rest positions (K,3) m of SMPL's root joint, of betas (K,10)."""
    at_rest, moved = _root_joint_tables(models, models_sha256, gender)
    found: NDArray[np.float64] = at_rest + betas.astype(np.float64) @ moved.T
    return found


@lru_cache(maxsize=3)
def _root_joint_tables(
    models: str | None, models_sha256: str, gender: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return root_joint_tables(models_of(models, models_sha256).smpl_of(gender))


def _way_to_fit(task: ShardTask, batch: LabelBatch, fitter: FitterLike | None) -> FitRows:
    """What fits some rows of a shard's batch: to their labels, or to their meshes."""
    run = task.run
    made_of = run.models, run.models_sha256, run.pipeline, run.device
    if batch.vertices is not None:
        return to_meshes(batch, cached_mesh_fitter(*made_of))
    temporal = run.pipeline.temporal
    frames = frames_of(batch, temporal)
    if temporal is not None and frames is not None:
        file = run.labels[task.file_index]
        frames = replace(frames, shapes=subject_shapes(batch, file, run.filters, temporal.beta_frames))
    return to_labels(batch, fitter or cached_fitter(*made_of), frames)


@lru_cache(maxsize=1)
def cached_mesh_fitter(models: str | None, models_sha256: str, pipeline: Pipeline, device: str) -> MeshPeople:
    """The same for bare meshes."""
    if pipeline.first_order is not None:
        expected = "labels with SMPL parameters, for a pipeline with first_order"
        raise ConfigError(pipeline.name, "first_order", expected, "bare meshes")
    for key, usual in (("neutral_target", "neutral"), ("betas", "transfer")):
        if (value := getattr(pipeline.fit, key)) != usual:
            expected = f"labels with SMPL parameters, for {key}: {value}"
            raise ConfigError(pipeline.name, f"fit.{key}", expected, "bare meshes")
    return MeshPeople(models_of(models, models_sha256), pipeline.fit, find_device(device))


@lru_cache(maxsize=1)
def cached_fitter(models: str | None, models_sha256: str, pipeline: Pipeline, device: str) -> FitterLike:
    """The fitter of this process, made once: it takes longer to prepare than a shard to fit."""
    return make_fitter(models_of(models, models_sha256), pipeline, find_device(device))


def find_device(name: str) -> str:
    """'cpu' or 'cuda' of this machine; 'auto' is a GPU where there is one. Raises DeviceError."""
    there = torch.cuda.is_available()
    if name == "cuda" and not there:
        raise DeviceError(
            f"device cuda: {platform.node()} has no CUDA device that torch {torch.__version__} can use"
        )
    return name if name != "auto" else "cuda" if there else "cpu"


def make_fitter(models: ModelSet, pipeline: Pipeline, device: str) -> FitterLike:
    """The fitter that a pipeline asks for."""
    if pipeline.first_order is not None:
        return FirstOrderFitter(models, pipeline.fit, pipeline.first_order, device)
    return Fitter(models, pipeline.fit, device)


def models_of(folder: str | None, sha256: str) -> ModelSet:
    """The models of a run as this machine has them; ModelError when they are not those of the run."""
    models = open_models() if folder is None else load_models(folder)
    if models.sha256 != sha256:
        raise ModelError(models.source, "sha256", f"the models of the run, {sha256}", models.sha256)
    return models


def _pictures(
    task: ShardTask, batch: LabelBatch, published: Sequence[bool]
) -> Generator[ShardImage, None, None]:
    """The pictures of a shard's published people, in order. To be closed."""
    run = task.run
    file = run.labels[task.file_index]
    sides = 200.0 * batch.scale.max(axis=1)
    boxes = np.column_stack([batch.center, sides]).astype(float).tolist()
    wanted = [
        (image_path(name, file.path_rule, file.path_prefix), CropBox(*box))
        for name, box, good in zip(batch.imgname, boxes, published, strict=True)
        if good
    ]
    if run.images is not None:
        with closing(open_images(run.images)) as source:
            yield from read_images(source, wanted, run.pipeline.images)


def _without_jumps(batch: LabelBatch, poses: FloatArray, published: Sequence[bool]) -> FloatArray:
    """Angles (N,46) rad that do not jump between neighbouring frames of a sequence, of those who are published."""
    poses = poses.copy()
    for sequence in batch.sequences:
        frames = (batch.row >= sequence.start) & (batch.row < sequence.start + sequence.frames)
        frames &= np.array(published, bool)
        poses[frames] = make_continuous(poses[frames])
    return poses


def _entries(
    task: ShardTask, batch: LabelBatch, fitted: Fitted, screening: FilterResult, clock: _Clock
) -> Iterator[tuple[ShardRow, ShardSample | None]]:
    """Every row of a shard, and the sample of those that are published; images are read on the way."""
    run = task.run
    verdicts = judge(batch, fitted, run.pipeline, screening)
    published = [verdict.status in PUBLISHED for verdict in verdicts]
    keypoints, origins = _keypoints3d(batch, fitted)
    fitted = replace(fitted, poses=_without_jumps(batch, fitted.poses, published))
    labels = _labels(batch, fitted, keypoints)
    rates = fitted_rates(batch, run.pipeline.temporal, screening.reasons, fitted.finite)
    with closing(_pictures(task, batch, published)) as pictures:
        for i, verdict in enumerate(verdicts):
            picture = None
            if published[i] and run.images is not None:
                with clock.phase("images"):
                    picture = next(pictures)
            row = _row(task, batch, fitted, i, verdict, int(screening.unseen[i]), picture, rates[i])
            sample = None
            if published[i]:
                picture = picture or ShardImage(None)
                meta = _meta(task, batch, row, i) | {"keypoints3d": origins[i]} | _image_meta(picture)
                sample = ShardSample(
                    row.key, labels[i], {**meta, "layout": LAYOUT_VERSION}, picture.data, picture.ending
                )
            yield row, sample


def _image_meta(picture: ShardImage) -> dict[str, Any]:
    """What a sample's metadata says of its image."""
    return {"image": picture.data is not None, "image_size": picture.size, "affine": picture.affine}


def _row(
    task: ShardTask,
    batch: LabelBatch,
    fitted: Fitted,
    i: int,
    verdict: Verdict,
    unseen: int,
    picture: ShardImage | None,
    fitted_rate: float | None,
) -> ShardRow:
    """The sidecar row of row i of a shard; its picture is None where none was wanted."""
    stages = [stage.name for stage in task.run.pipeline.fit.stages]
    row, skel_gender = int(batch.row[i]), _skel_gender(fitted, i)
    return ShardRow(
        key=f"{task.run.subset}-{task.file_index}-{row:08d}",
        row=row,
        status=verdict.status,
        reason="; ".join(filter(None, (verdict.reason, picture.why if picture else ""))),
        pve_mm=round_mm(fitted.pve_mm[i]),
        max_vertex_mm=round_mm(fitted.max_vertex_mm[i]),
        stage_pve_mm=dict(zip(stages, map(round_mm, fitted.stage_pve_mm[i]), strict=True)),
        skel_gender=skel_gender,
        target_gender=_target_gender(task, batch, i, skel_gender),
        root=None if skel_gender is None else task.run.pipeline.fit.root_of(batch.about.has_smpl),
        betas_mm=dict(zip(BETAS_STEPS, map(round_mm, fitted.betas_mm[i]), strict=True)),
        unseen_keypoints=unseen,
        image=None if picture is None else picture.data is not None,
        fitted_rate=fitted_rate,
        **_frame(batch, row),
    )


def _frame(batch: LabelBatch, row: int) -> dict[str, Any]:
    """Which frame of which sequence a row is; all None where it is none."""
    sequence = batch.sequence_of(row)
    if sequence is None:
        return dict.fromkeys(("sequence", "frame", "frame_rate", "subject"))
    return {
        "sequence": sequence.name,
        "frame": row - sequence.start,
        "frame_rate": sequence.frame_rate,
        "subject": sequence.subject,
    }


def _skel_gender(fitted: Fitted, i: int) -> str | None:
    """Of the SKEL body that person i was fitted with; None where there was no finite fit."""
    return ("female" if fitted.female[i] else "male") if fitted.finite[i] else None


def _target_gender(task: ShardTask, batch: LabelBatch, i: int, skel_gender: str | None) -> str | None:
    """Of the SMPL body whose mesh person i was fitted to; None where there was no finite fit, or no label of SMPL."""
    if skel_gender is None or not batch.about.has_smpl:
        return None
    return task.run.pipeline.fit.target_gender(batch.gender[i], skel_gender)


def _meta(task: ShardTask, batch: LabelBatch, row: ShardRow, i: int) -> dict[str, Any]:
    """What a sample's metadata says of where it comes from."""
    return {
        "key": row.key,
        "subset": task.run.subset,
        "label_file": task.run.labels[task.file_index].name,
        "row": row.row,
        "imgname": batch.imgname[i],
        "smpl_gender": batch.gender[i],
        "skel_gender": row.skel_gender,
        "target_gender": row.target_gender,
        "root": row.root,
        "status": row.status,
        "coordinates": batch.about.coordinates,
        "camera": batch.about.has_camera,
        "smpl": batch.about.has_smpl,
        "sequence": row.sequence,
        "frame": row.frame,
        "frame_rate": row.frame_rate,
        "fitted_rate": row.fitted_rate,
        "subject": row.subject,
        "angles": "canonical" if row.sequence is None else "continuous",
    }


def _labels(batch: LabelBatch, fitted: Fitted, keypoints: FloatArray) -> FloatArray:
    """The label vectors (N, LABEL_SIZE) of a shard."""
    return pack(
        {
            "skel_poses": fitted.poses,
            "skel_betas": fitted.betas,
            "skel_trans": fitted.trans,
            "smpl_pose": batch.pose,
            "smpl_betas": batch.betas,
            "smpl_trans": batch.transl,
            "center": batch.center,
            "scale": batch.scale,
            "cam_int": batch.cam_int,
            "gtkps": batch.gtkps,
            "keypoints3d": keypoints,
            "errors": np.stack([fitted.pve_mm, fitted.max_vertex_mm], axis=1),
        }
    )


def _keypoints3d(batch: LabelBatch, fitted: Fitted) -> tuple[FloatArray, list[str]]:
    """3D keypoints (N,44,4), of the fitted skin where the labels have none; and their N origins."""
    keypoints = batch.keypoints3d.copy()
    unlabelled = ~(keypoints[..., 3] > 0).any(axis=1)
    regressed = unlabelled & np.isfinite(fitted.keypoints3d).all(axis=(1, 2))
    keypoints[regressed, :, :3] = fitted.keypoints3d[regressed]
    keypoints[regressed, :, 3] = 1
    return keypoints, np.where(regressed, "skel", np.where(unlabelled, "none", "labels")).tolist()
