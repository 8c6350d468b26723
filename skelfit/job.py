"""One shard from end to end: label rows in, fitted people out. Knows nothing of Dask.

A task holds names and numbers, never arrays, so that it travels cheaply; it may run twice, or on another
machine, and then writes the same bytes. A row that cannot be used or fitted is data: it gets a status and a
reason in the sidecar.
"""

from __future__ import annotations

import platform
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.body.dofs import dof_limits
from skelfit.body.models import ModelSet, load_models, open_models
from skelfit.config import GateConfig, Pipeline
from skelfit.errors import DeviceError, ModelError
from skelfit.fit.first_order import FirstOrderFitter
from skelfit.fit.fitter import FitResult, Fitter
from skelfit.labels.batch import LabelBatch, image_path
from skelfit.labels.store import read_rows
from skelfit.metrics import PUBLISHED, limit_excess, round_mm
from skelfit.plan import ShardTask
from skelfit.shards import LAYOUT_VERSION, FloatArray, Row, Sample, pack, write_shard

IMAGE_ENDINGS = frozenset({"bmp", "gif", "jpeg", "jpg", "png", "tif", "tiff", "webp"})
BAD_INPUT, NOT_CONVERGED, ABOVE_GATE = "bad_input", "not_converged", "residual_above_gate"
OK, LIMIT_VIOLATION = PUBLISHED
BETAS_STEPS = ("transferred", "refined")


class FitterLike(Protocol):
    """What a job asks of a fitter."""

    def fit(
        self, smpl_gender: str, pose: torch.Tensor, betas: torch.Tensor, transl: torch.Tensor
    ) -> FitResult:
        """Fit N people: pose (N,24,3) rad, betas (N,10), transl (N,3) m."""


@dataclass(frozen=True)
class ShardResult:
    """What was done of one shard."""

    name: str
    rows_in: int
    rows_out: int
    statuses: Mapping[str, int]
    seconds: float


def run_shard(task: ShardTask, fitter: FitterLike | None = None) -> ShardResult:
    """Convert one shard and write it. Raises SkelfitError when a file cannot be read or written."""
    started = time.perf_counter()
    run = task.run
    batch = read_rows(run.labels[task.file_index].store, task.start, task.stop)
    fitter = fitter or cached_fitter(run.models, run.models_sha256, run.pipeline, run.device)
    fitted = fit_people(batch, fitter, len(run.pipeline.fit.stages))
    verdicts = judge(batch, fitted, run.pipeline)
    images = [
        _find_image(task, name) if verdict.status in PUBLISHED else None
        for name, verdict in zip(batch.imgname, verdicts, strict=True)
    ]
    rows = _rows(task, batch, fitted, verdicts, images)
    samples = _samples(task, batch, fitted, rows, images)
    marker = write_shard(task.files, samples, rows, run.identity(), (task.start, task.stop))
    seconds = time.perf_counter() - started
    return ShardResult(task.name, marker.rows_in, marker.rows_out, marker.statuses, seconds)


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


@dataclass(frozen=True)
class Fitted:
    """What the fit found of N people; NaN and False where a row was not fitted."""

    poses: FloatArray  # (N,46) rad
    betas: FloatArray  # (N,10)
    trans: FloatArray  # (N,3) m
    converged: NDArray[np.bool_]  # (N,)
    finite: NDArray[np.bool_]  # (N,)
    pve_mm: FloatArray  # (N,)
    max_vertex_mm: FloatArray  # (N,)
    stage_pve_mm: FloatArray  # (N,S)
    female: NDArray[np.bool_]  # (N,) of the SKEL body
    betas_mm: FloatArray  # (N,2) what the betas' transfer and their refinement leave, at rest
    keypoints3d: FloatArray  # (N,44,3) m, camera frame

    @classmethod
    def nothing(cls, people: int, stages: int) -> Fitted:
        """No row fitted yet."""

        def nans(*shape: int) -> FloatArray:
            return np.full((people, *shape), np.nan, np.float32)

        def no() -> NDArray[np.bool_]:
            return np.zeros(people, bool)

        errors = nans(), nans(), nans(stages)
        return cls(nans(46), nans(10), nans(3), no(), no(), *errors, no(), nans(2), nans(44, 3))


def fit_people(batch: LabelBatch, fitter: FitterLike, stages: int) -> Fitted:
    """Fit the rows of a batch that have no fault, gender by gender."""
    fitted = Fitted.nothing(len(batch), stages)
    good = np.array([not reason for reason in batch.bad], dtype=bool)
    genders = np.array(batch.gender, dtype=str)
    for gender in sorted(set(genders[good])):
        index = np.flatnonzero(good & (genders == gender))
        result = fitter.fit(
            str(gender), *(torch.tensor(a[index]) for a in (batch.pose, batch.betas, batch.transl))
        )
        for field in fields(Fitted):
            found = getattr(result, field.name)
            if found is not None:
                getattr(fitted, field.name)[index] = found.numpy()
    return fitted


@dataclass(frozen=True)
class Verdict:
    """What becomes of a row, and why; ok needs no reason."""

    status: str
    reason: str = ""


def judge(batch: LabelBatch, fitted: Fitted, pipeline: Pipeline) -> list[Verdict]:
    """The verdict on each row; of several faults the first in the order of `_verdict` counts."""
    excess, worst = limit_excess(np.nan_to_num(fitted.poses), dof_limits(pipeline.fit.limits))
    gates = pipeline.gates
    return [_verdict(batch.bad[i], fitted, i, float(excess[i]), worst[i], gates) for i in range(len(batch))]


def _verdict(bad: str, fitted: Fitted, i: int, excess: float, worst: str, gates: GateConfig) -> Verdict:
    if bad:
        return Verdict(BAD_INPUT, bad)
    if not fitted.finite[i]:
        return Verdict(NOT_CONVERGED, "the fit is not finite")
    if not fitted.converged[i]:
        return Verdict(NOT_CONVERGED, "the last step still gained")
    pve, furthest = float(fitted.pve_mm[i]), float(fitted.max_vertex_mm[i])
    if gates.max_pve_mm is not None and pve > gates.max_pve_mm:
        return Verdict(ABOVE_GATE, f"pve_mm {pve:.2f} > {gates.max_pve_mm:g}")
    if gates.max_vertex_mm is not None and furthest > gates.max_vertex_mm:
        return Verdict(ABOVE_GATE, f"max_vertex_mm {furthest:.2f} > {gates.max_vertex_mm:g}")
    if gates.limit_deg is not None and excess > gates.limit_deg:
        return Verdict(LIMIT_VIOLATION, f"{worst} {excess:.1f} deg beyond its limit")
    return Verdict(OK)


def _find_image(task: ShardTask, imgname: str) -> Path | None:
    """The file of an image, or None."""
    if task.run.images is None:
        return None
    path = Path(task.run.images, image_path(imgname, task.run.labels[task.file_index].path_rule))
    # An ending of another kind could pass for a label, and an empty file for an image.
    return path if _ending(path) in IMAGE_ENDINGS and path.is_file() and path.stat().st_size else None


def _ending(path: Path) -> str:
    return path.suffix[1:].lower()


def _skel_gender(fitted: Fitted, i: int) -> str | None:
    """Of the SKEL body that person i was fitted with; None where there was no finite fit."""
    return ("female" if fitted.female[i] else "male") if fitted.finite[i] else None


def _rows(
    task: ShardTask, batch: LabelBatch, fitted: Fitted, verdicts: list[Verdict], images: list[Path | None]
) -> list[Row]:
    """The sidecar rows of a shard."""
    stages = [stage.name for stage in task.run.pipeline.fit.stages]
    rows = []
    for i, verdict in enumerate(verdicts):
        wanted = task.run.images is not None and verdict.status in PUBLISHED
        missing = wanted and images[i] is None
        row = int(batch.row[i])
        rows.append(
            Row(
                key=f"{task.run.subset}-{task.file_index}-{row:08d}",
                row=row,
                status=verdict.status,
                reason="; ".join(filter(None, (verdict.reason, "image_missing" if missing else ""))),
                pve_mm=round_mm(fitted.pve_mm[i]),
                max_vertex_mm=round_mm(fitted.max_vertex_mm[i]),
                stage_pve_mm=dict(zip(stages, map(round_mm, fitted.stage_pve_mm[i]), strict=True)),
                skel_gender=_skel_gender(fitted, i),
                betas_mm=dict(zip(BETAS_STEPS, map(round_mm, fitted.betas_mm[i]), strict=True)),
                image=not missing if wanted else None,
            )
        )
    return rows


def _samples(
    task: ShardTask, batch: LabelBatch, fitted: Fitted, rows: list[Row], images: list[Path | None]
) -> Iterator[Sample]:
    """The samples of a shard, of the rows that are published; images are read one at a time."""
    run = task.run
    keypoints, origins = _keypoints3d(batch, fitted)
    labels = pack(
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
    for i, row in enumerate(rows):
        if row.status not in PUBLISHED:
            continue
        path = images[i]
        meta = {
            "key": row.key,
            "subset": run.subset,
            "label_file": run.labels[task.file_index].name,
            "row": row.row,
            "imgname": batch.imgname[i],
            "smpl_gender": batch.gender[i],
            "skel_gender": row.skel_gender,
            "status": row.status,
            "keypoints3d": origins[i],
            "image": path is not None,
            "layout": LAYOUT_VERSION,
        }
        image = path.read_bytes() if path is not None else None
        yield Sample(row.key, labels[i], meta, image, _ending(path) if path is not None else "")


def _keypoints3d(batch: LabelBatch, fitted: Fitted) -> tuple[FloatArray, list[str]]:
    """3D keypoints (N,44,4), of the fitted skin where the labels have none; and their N origins."""
    keypoints = batch.keypoints3d.copy()
    unlabelled = ~(keypoints[..., 3] > 0).any(axis=1)
    regressed = unlabelled & np.isfinite(fitted.keypoints3d).all(axis=(1, 2))
    keypoints[regressed, :, :3] = fitted.keypoints3d[regressed]
    keypoints[regressed, :, 3] = 1
    return keypoints, np.where(regressed, "skel", np.where(unlabelled, "none", "labels")).tolist()
