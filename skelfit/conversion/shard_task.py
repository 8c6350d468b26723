"""The work on one shard before its rows are fitted: it is announced, and its labels are read.

A task holds names and numbers, never arrays, so it travels cheaply. It may run twice, or on another machine, and then
gives the same bytes. `batch_fit` fits the rows, mostly with those of other shards, and `shard_output` writes them.
"""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from skelfit import __version__
from skelfit.conversion.fitted_rows import RowsToFit, frames_of
from skelfit.conversion.planned_shard import PlannedShard
from skelfit.conversion.run_fitter import root_joints
from skelfit.conversion.run_plan import ALGORITHM_VERSION, Run, ShardTask
from skelfit.conversion.subject_shapes import subject_shapes
from skelfit.errors import ConfigError, OutputError, StoreError
from skelfit.labels.filters import FilterResult, apply_filters
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import read_rows
from skelfit.labels.world_up import place_roots, rotate_to_up
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import check_shard, read_json, read_marker
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.locations import Location


@dataclass(frozen=True)
class ReadShard:
    """The rows of a shard that are to be fitted, screened."""

    task: ShardTask
    labels: LabelBatch
    labels_sha256: str  # of the label rows as they came in
    screening: FilterResult
    rows: RowsToFit
    began: float  # s since the epoch
    seconds: float  # that reading took


def check_algorithm(run: Run) -> None:
    """Raise ConfigError when this skelfit gives other results than the run: a worker may have an older one."""
    if run.algorithm != ALGORITHM_VERSION:
        expected = f"{run.algorithm}, that of the run, on every worker"
        here = f"{ALGORITHM_VERSION} on {platform.node()} (skelfit {__version__})"
        raise ConfigError(Path(__file__).parent, "algorithm version", expected, here)


def announce(files: ShardFiles) -> int:
    """Say beside the shard that it is being made; returns how many tasks began it before, and did not end.

    Raises OutputError before any time goes into the fit of a shard that cannot be written.
    """
    try:
        tries = _tries(files.started)
        process = {"host": platform.node(), "process": os.getpid(), "tries": tries + 1}
        files.started.write_text(json.dumps(process) + "\n")
    except (OSError, StoreError) as error:
        raise OutputError(f"{files.folder}: cannot be written to: {error}") from error
    return tries


def withdraw(files: ShardFiles) -> None:
    """Say no longer that the shard is being made."""
    # It only informs. Where it cannot be removed, that must not cost a finished shard.
    with suppress(OSError, StoreError):
        files.started.unlink()


def finished_marker(task: PlannedShard) -> ShardMarker | None:
    """The marker of a shard that another try of its run has finished; None where none has."""
    files = task.files
    if not files.marker.exists():
        return None
    try:
        marker = read_marker(files)
        check_shard(files, marker)
    except ShardError:
        return None
    return marker if marker.identity_sha256 == task.run.identity_sha256 else None


def read_shard(task: ShardTask) -> ReadShard:
    """Read the label rows of a shard, in the world that the run asks for. Raises LabelError."""
    began, started = time.time(), time.perf_counter()
    run, file = task.run, task.run.labels[task.file_index]
    labels = read_rows(file.store, task.start, task.stop)
    labels_sha256 = labels.sha256()
    labels = place_roots(labels, partial(root_joints, run))
    labels, screening = apply_filters(labels, run.filters)
    if file.read.up is not None:
        labels = rotate_to_up(labels, file.read.up, partial(root_joints, run))
    temporal = run.pipeline.temporal
    frames = frames_of(labels, temporal)
    if temporal is not None and frames is not None:
        shapes = subject_shapes(labels, file, run.filters, temporal.beta_frames)
        frames = replace(frames, shapes=shapes)
    rows = RowsToFit.of(labels, screening.reasons, frames)
    # Meshes are large, and nothing but the fit needs them.
    labels = replace(labels, vertices=None)
    return ReadShard(task, labels, labels_sha256, screening, rows, began, time.perf_counter() - started)


def _tries(path: Location) -> int:
    """How many tasks began a shard without an end, as the last of them noted it."""
    try:
        return int(read_json(path).get("tries", 1))
    except (ShardError, TypeError, ValueError):
        return int(path.exists())
