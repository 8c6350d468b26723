"""A label file, a run and a fitter for the tests of the job: small, and without a body model."""

from __future__ import annotations

import hashlib
import io
import tarfile
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from skelfit.config.fit_settings import FitConfig, StageConfig
from skelfit.config.manifest import LabelSource
from skelfit.config.pipeline import GateConfig, Pipeline
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.run_plan import LabelFile, Run, plan_shards
from skelfit.conversion.shard_batch import ShardBatch, cut_batches
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.images.tar_index import INDEX_NAME, build_index
from skelfit.labels.label_store import build_store, store_info

PIPELINE = Pipeline(
    name="fake",
    fit=FitConfig(
        stages=(
            StageConfig("lower", "lower_body", "lower_body", 1, 1),
            StageConfig("full", "all", "all", 1, 1),
        )
    ),
    gates=GateConfig(max_pve_mm=20.0, limit_deg=5.0),
    shard_size=8,
)
NAN_ROW, DIVERGED_ROW, FAR_ROW, BENT_ROW, NO_IMAGE_ROW = 3, 5, 6, 9, 11

# What the metadata say of people of a label file in camera coordinates, none of them part of a motion.
CAMERA_META = {
    "coordinates": "camera",
    "camera": True,
    "smpl": True,
    "target_gender": "neutral",
    "root": "frozen",
    "sequence": None,
    "frame": None,
    "frame_rate": None,
    "fitted_rate": None,
    "subject": None,
    "angles": "canonical",
    "layout": "skelfit-label-1",
}


@dataclass
class FakeFitter:
    """Finds in each row what the row's betas ask for; counts its calls."""

    delay: float = 0.0
    stages: int = 2
    calls: int = 0
    frames: list[FrameIndex | None] = field(default_factory=list)  # of each call
    rows: list[int] = field(default_factory=list)  # that each call fitted

    def fit(
        self,
        smpl_gender: str,
        pose: torch.Tensor,
        betas: torch.Tensor,
        transl: torch.Tensor,
        frames: FrameIndex | None = None,
    ) -> FitResult:
        self.calls += 1
        self.frames.append(frames)
        self.rows.append(len(pose))
        time.sleep(self.delay)
        n = len(pose)
        poses = torch.zeros(n, 46)
        poses[:, [27, 37]] = -0.2  # scapula elevation, whose limits do not hold 0
        poses[:, 6] = 0.5 + betas[:, 1]  # the right knee, whose limit is 0
        pve = 5 + betas[:, 2] * 10
        finite = torch.isfinite(pve)
        return FitResult(
            poses=poses,
            betas=2 * betas,
            trans=transl + 1,
            converged=betas[:, 0] < 1,
            gain=torch.full_like(pve, 0.015),
            finite=finite,
            pve_mm=pve,
            max_vertex_mm=3 * pve,
            stage_pve_mm=torch.stack([k * pve for k in range(self.stages, 0, -1)], 1),
            objective=pve**2,
            female=betas[:, 3] > 0,
            betas_mm=torch.stack([pve, pve / 2], 1),
            joints=torch.zeros(n, 24, 3),
            keypoints3d=torch.ones(n, 44, 3),
        )


def write_labels(path: Path, people: int = 20) -> Path:
    """A label file of the CameraHMR schema; some rows have faults (see the constants)."""
    rng = np.random.default_rng(0)
    shape = np.zeros((people, 10), np.float32)
    shape[:, 3] = rng.uniform(-1, 1, people)
    pose = rng.normal(0, 0.1, (people, 72)).astype(np.float32)
    for row, column, value in ((DIVERGED_ROW, 0, 2.0), (FAR_ROW, 2, 2.0), (BENT_ROW, 1, -1.0)):
        if row < people:
            shape[row, column] = value
    if people > NAN_ROW:
        pose[NAN_ROW, 7] = np.nan
    camera = np.array([[600, 0, 128], [0, 600, 128], [0, 0, 1]], np.float32)
    np.savez(
        path,
        imgname=np.array([f"train/{i:06d}.jpg" for i in range(people)]),
        center=np.full((people, 2), 128, np.float32),
        scale=rng.uniform(0.5, 1, people).astype(np.float32),
        pose_cam=pose,
        shape=shape,
        trans_cam=np.tile(np.array([0, 0, 5], np.float32), (people, 1)),
        cam_int=np.tile(camera, (people, 1, 1)),
        gtkps=rng.uniform(0, 1, (people, 44, 3)).astype(np.float32),
    )
    return path


def write_images(folder: Path, people: int = 20, side: int = 16) -> Path:
    """An image file for each row but one; they differ. The boxes are about (128, 128)."""
    (folder / "train").mkdir(parents=True)
    for i in range(people):
        if i != NO_IMAGE_ROW:
            (folder / "train" / f"{i:06d}.jpg").write_bytes(picture(i, side))
    return folder


def picture(seed: int, side: int = 16, form: str = "JPEG") -> bytes:
    """A small image file of random colours."""
    pixels = np.random.default_rng(seed).integers(0, 255, (side, side, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def in_tars(run: Run, folder: Path) -> Run:
    """The same run with its images in two tars below a new folder, where they stay packed."""
    source, folder = Path(run.images or ""), folder.absolute()
    folder.mkdir()
    files = sorted(source.rglob("*.jpg"))
    tars = [folder / "000000.tar", folder / "000001.tar"]
    for path, part in zip(tars, (files[::2], files[1::2]), strict=True):
        with tarfile.open(path, "w") as tar:
            for file in part:
                tar.add(file, file.relative_to(source))
    build_index(tars, folder / INDEX_NAME)
    return replace(run, images=str(folder / INDEX_NAME))


def make_run(
    folder: Path, people: int = 20, *, images: bool = False, side: int = 16, shard_size: int = 8
) -> Run:
    """A run of one label file below `folder`, to `folder`/out."""
    folder.mkdir(parents=True, exist_ok=True)
    labels = write_labels(folder / "people.npz", people)
    store = build_store(LabelSource("people.npz", "camerahmr"), labels, folder / "stores")
    return Run(
        subset="fake",
        out=str(folder / "out"),
        images=str(write_images(folder / "images", people, side)) if images else None,
        models=None,
        models_sha256="0" * 64,
        pipeline=replace(PIPELINE, shard_size=shard_size),
        device="cpu",
        labels=(
            LabelFile(
                str(store), labels.name, store_info(store).sha256, people, "camerahmr", "neutral", "none"
            ),
        ),
    )


def batches_of(run: Run, rows: int | None = None) -> list[ShardBatch]:
    """All shards of a run, each by itself; rows: about so many rows in a batch."""
    return cut_batches(plan_shards(run), rows)


def work(batch: ShardBatch) -> BatchJob:
    """Convert shards with the fake fitter."""
    return convert_batch(batch, FakeFitter())


def endless_work(batch: ShardBatch) -> BatchJob:
    """The same, but with the third shard it never comes to an end: there it is to be killed."""
    return convert_batch(batch, FakeFitter(delay=3600.0 if batch.name == "fake-000002" else 0.0))


def failing_work(batch: ShardBatch) -> BatchJob:
    """Fails on the second shard."""
    if batch.name == "fake-000001":
        raise RuntimeError("no such luck")
    return work(batch)


def hashes(folder: Path) -> dict[str, str]:
    """sha256 of each file of a folder, hidden ones too, by name; without those that hold times or nothing."""
    paths = [
        path
        for path in folder.iterdir()
        if path.name != "summary.json" and not path.name.startswith(".run.") and path.is_file()
    ]
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(paths)}
