"""The bytes of shards are pinned: a faster way to write them must write the very same.

The labels, fits and images are plain arithmetic, so no version of a library enters the bytes.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from job_fakes import PIPELINE

from skelfit.config.fit_settings import TemporalConfig
from skelfit.config.manifest import Filters
from skelfit.config.pipeline import ImageConfig
from skelfit.conversion.fitted_rows import RowFits
from skelfit.conversion.run_plan import LabelFile, Run, ShardTask
from skelfit.conversion.shard_samples import FittedBatch, shard_entries
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.labels.filters import apply_filters
from skelfit.labels.label_batch import FIELD_SHAPES, LabelBatch, LabelProperties, MotionSequence
from skelfit.shards.shard_writer import write_shard

ROWS, FIRST = 24, 1000  # rows of the shard, and the first of them in its file
BAD, DIVERGED, LOST, STILL_GAINING, FAR, FURTHEST, BENT, HUGE = 2, 3, 4, 5, 6, 7, 8, 9
# A gray JPEG of 8 x 8 px.
JPEG = bytes.fromhex(
    "ffd8ffe000104a46494600010100000100010000ffdb0043001b12141714111b1716171e1c1b2028422b28252528513a3d30"
    "42605565645f555d5b6a7899816a7190735b5d85b586909ea3abadab6780bcc9baa6c799a8aba4ffc0000b08000800080101"
    "1100ffc40014000100000000000000000000000000000001ffc40014100100000000000000000000000000000000ffda0008"
    "010100003f005fffd9"
)

# The first 16 digits of the sha256 of tar and sidecar.
PINNED = {
    "labels": ("6ff4382d991143ac", "dfbc868bbb48685c"),
    "images": ("abe29055f17d550b", "1be1dd8dbbbf805b"),
    "filtered": ("af7c454ff621f6d5", "c58d05a87599671a"),
    "meshes": ("a27d31f14f0e54df", "adb845ebc30c9685"),
    "sequences": ("3ffb339abddeac5b", "edf81b56ce053704"),
    "one-problem": ("612e5967428c73a4", "7a35a033bfd47a5b"),
}


def numbers(*shape: int, seed: int) -> np.ndarray:
    """Float32 numbers between -1 and 1, of arithmetic alone."""
    index = np.arange(np.prod(shape), dtype=np.int64) * (2 * seed + 1)
    return ((index * 7919 % 2003 - 1001) / 1001).astype(np.float32).reshape(shape)


def labels_of(sequences: tuple[MotionSequence, ...] = (), **about: Any) -> LabelBatch:
    """Rows of which one is bad; their names try the encoder of JSON."""
    fields = {name: numbers(ROWS, *shape, seed=k) for k, (name, shape) in enumerate(FIELD_SHAPES.items())}
    fields["keypoints3d"][::2, :, 3] = 0
    fields["gtkps"][..., 2] = np.abs(fields["gtkps"][..., 2])
    fields["scale"] = 1 + fields["scale"] ** 2
    names = [f"train/{i:03d}.jpg" for i in range(ROWS)]
    names[10] = "train/Zoë \u2028 \U0001f600.jpg"
    names[11] = 'a "quoted"\\name\t\x7f.jpg'
    names[12] = ""
    names[13] = "../out.jpg"
    names[15] = names[14]  # two people of one image
    bad = [""] * ROWS
    bad[BAD] = "non_finite:pose; absurd_betas: |beta| max 12.0 > 10"
    fields["pose"][BAD, 3] = np.nan
    return LabelBatch(
        row=np.arange(FIRST, FIRST + ROWS),
        imgname=names,
        gender=[("neutral", "male", "female")[i % 3] for i in range(ROWS)],
        bad=bad,
        sequences=sequences,
        about=LabelProperties(**about),
        **fields,
    )


def fits_of(labels: LabelBatch, left_out: list[str]) -> RowFits:
    """Fits, of which some have a fault."""
    fits = RowFits.unfitted(ROWS, 2)
    done = np.array([not bad and not out for bad, out in zip(labels.bad, left_out, strict=True)])
    poses = numbers(ROWS, 46, seed=20) * 0.01
    poses[:, 6] = 0.5  # the right knee, whose limit is 0
    poses[:, [27, 37]] = -0.2  # scapula elevation, whose limits do not hold 0
    poses[BENT, 6] = -0.7
    # Whole turns, the other triples of a ball joint, and its pole: what make_continuous takes back.
    poses[::5, 13] += np.float32(2 * np.pi)
    poses[14:17, 3:6] = np.pi - poses[14:17, 3:6] * (-1, 1, -1)
    poses[18:20, 4] = np.float32(np.pi / 2)
    values = {
        "poses": poses,
        "betas": numbers(ROWS, 10, seed=21),
        "trans": numbers(ROWS, 3, seed=22) + 5,
        "gain": np.abs(numbers(ROWS, seed=23)),
        "pve_mm": 8 + 3 * numbers(ROWS, seed=24),
        "max_vertex_mm": 30 + 9 * numbers(ROWS, seed=25),
        "stage_pve_mm": 9 + 3 * numbers(ROWS, 2, seed=26),
        "betas_mm": 2 + numbers(ROWS, 2, seed=27),
        "keypoints3d": numbers(ROWS, 44, 3, seed=28),
    }
    values["gain"][STILL_GAINING] = np.nan
    values["pve_mm"][FAR], values["pve_mm"][HUGE] = 25, 1e-5
    values["max_vertex_mm"][FURTHEST] = 61.25
    values["stage_pve_mm"][HUGE] = (1e7, 123456.78)
    values["betas_mm"][HUGE] = np.nan
    for name, column in values.items():
        column[LOST] = np.nan
        getattr(fits, name)[done] = column[done]
    fits.converged[:] = done & ~np.isin(np.arange(ROWS), [DIVERGED, STILL_GAINING])
    fits.finite[:] = done & (np.arange(ROWS) != LOST)
    fits.female[:] = done & (np.arange(ROWS) % 2 == 0)
    return fits


def run_to(folder: Path, **changes: Any) -> Run:
    file = LabelFile("store.h5", "people.npz", "0" * 64, FIRST + ROWS, "camerahmr", "neutral", "basename")
    run = Run("made", str(folder / "out"), None, None, "0" * 64, PIPELINE, "cpu", (file,))
    return replace(run, **changes)


def written(run: Run, labels: LabelBatch, filters: Filters | None = None) -> tuple[str, str]:
    """The start of the sha256 of the tar and of the sidecar of a shard."""
    labels, screening = apply_filters(labels, filters or run.filters)
    task = ShardTask(run, "made-000003", 0, FIRST, FIRST + ROWS)
    batch = FittedBatch(task, labels, screening, fits_of(labels, screening.reasons))
    write_shard(task.files, shard_entries(batch, Stopwatch()), run.identity(), (task.start, task.stop))
    one, other = (
        hashlib.sha256(path.read_bytes()).hexdigest() for path in (task.files.tar, task.files.sidecar)
    )
    return one[:16], other[:16]


def images_in(folder: Path) -> str:
    """Images by base name: JPEG, BMP, a damaged one, one of another ending; some are missing."""
    folder.mkdir()
    for i in range(ROWS):
        if i != 17:
            (folder / f"{i:03d}.jpg").write_bytes(JPEG if i != 18 else JPEG[:100])
    (folder / 'a "quoted"\\name\t\x7f.jpg').write_bytes(JPEG)
    head = struct.pack("<2sIHHIIiiHHIIiiII", b"BM", 54 + 48, 0, 0, 54, 40, 4, 4, 1, 24, 0, 48, 0, 0, 0, 0)
    (folder / "020.jpg").write_bytes(head + bytes(range(48)))
    return str(folder)


def test_labels_only(tmp_path: Path) -> None:
    assert written(run_to(tmp_path), labels_of()) == PINNED["labels"]


def test_images(tmp_path: Path) -> None:
    run = run_to(tmp_path, images=images_in(tmp_path / "images"))
    assert run.pipeline.images == ImageConfig(mode="bytes")
    assert written(run, labels_of()) == PINNED["images"]


def test_filtered_rows(tmp_path: Path) -> None:
    filters = Filters(low_confidence=0.3, few_keypoints=29, large_betas=0.95, vertex_error=38)
    assert written(run_to(tmp_path, filters=filters), labels_of()) == PINNED["filtered"]


@pytest.mark.parametrize("kind", ["sequences", "one-problem"])
def test_sequences(tmp_path: Path, kind: str) -> None:
    sequences = (
        MotionSequence("walk/ü", 's "1"', 30.0, FIRST - 5, 8),
        MotionSequence("run", "s2", None, FIRST + 3, 1),
        MotionSequence("fall", "s3", 59.94, FIRST + 6, 30),
    )
    labels = labels_of(sequences, coordinates="world_z_up", has_camera=False)
    temporal = TemporalConfig() if kind == "one-problem" else None
    fit = replace(PIPELINE.fit, temporal=temporal)
    run = run_to(tmp_path, pipeline=replace(PIPELINE, fit=fit))
    assert written(run, labels) == PINNED[kind]


def test_meshes(tmp_path: Path) -> None:
    """Their labels have no parameters of SMPL."""
    labels = labels_of(has_smpl=False, has_keypoints=False, coordinates="unknown")
    assert written(run_to(tmp_path, subset="für-dich"), labels) == PINNED["meshes"]
