"""One shard from end to end: read label rows, fit them, judge them, write the shard. It knows no scheduler.

A task holds names and numbers, never arrays, so it travels cheaply. It may run twice, or on another machine, and
then writes the same bytes. A row that cannot be used or fitted is data: it gets a status and a reason.
"""

from __future__ import annotations

import json
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from skelfit import __version__
from skelfit.conversion.row_fits import FitRows, LabelFitter, fit_rows, frames_of, labels_fit, meshes_fit
from skelfit.conversion.run_fitter import fitter_of, mesh_fitter_of, root_joints
from skelfit.conversion.run_plan import ALGORITHM_VERSION, Run, ShardTask
from skelfit.conversion.shard_samples import FittedBatch, shard_entries
from skelfit.conversion.stopwatch import Stopwatch
from skelfit.conversion.subject_shapes import subject_shapes
from skelfit.errors import ConfigError, OutputError, StoreError
from skelfit.labels.filters import FilterResult, apply_filters
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import read_rows
from skelfit.labels.world_up import rotate_to_up
from skelfit.shards.shard_files import ShardFiles
from skelfit.shards.shard_writer import write_shard

# The shards of a process share one device: one is fitted at a time.
_DEVICE = threading.Lock()
# Entered while a fitted shard is written. An executor sets it, to begin the next shard meanwhile.
writing_behind: ContextVar[Callable[[], AbstractContextManager[None]]] = ContextVar(
    "writing_behind", default=nullcontext
)


@dataclass(frozen=True)
class ShardResult:
    """What a task did."""

    name: str
    rows_in: int
    rows_out: int
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]  # as in the marker
    seconds: Mapping[str, float]  # of each phase of the stopwatch
    process: str  # host and process id
    span: tuple[float, float]  # from when to when, in seconds by the clock of that host


def run_shard(task: ShardTask, fitter: LabelFitter | None = None) -> ShardResult:
    """Convert one shard and write it. Raises SkelfitError when a file cannot be read or written."""
    stopwatch, began = Stopwatch(), time.time()
    check_algorithm(task.run)
    with announced(task.files) as tried_before:
        # The fault of a shard that was lost with its worker may lie in its neighbour: now it has a worker to itself.
        behind = nullcontext if tried_before else writing_behind.get()
        with stopwatch.phase("labels"):
            labels, screening = _read(task)
        with stopwatch.phase("waiting"), _DEVICE:
            with stopwatch.phase("preparing"):
                fit = _fit_of(task, labels, fitter)
            with stopwatch.phase("fit"):
                fits = fit_rows(labels, fit, len(task.run.pipeline.fit.stages), screening.reasons)
        batch = FittedBatch(task, labels, screening, fits)
        with stopwatch.phase("waiting"), behind(), stopwatch.phase("writing"):
            entries = shard_entries(batch, stopwatch)
            marker = write_shard(task.files, entries, task.run.identity(), (task.start, task.stop))
    return ShardResult(
        name=task.name,
        rows_in=marker.rows_in,
        rows_out=marker.rows_out,
        statuses=marker.statuses,
        rejected=marker.rejected,
        seconds=stopwatch.seconds,
        process=f"{platform.node()} {os.getpid()}",
        span=(began, time.time()),
    )


def check_algorithm(run: Run) -> None:
    """Raise ConfigError when this skelfit gives other results than the run: a worker may have an older one."""
    if run.algorithm != ALGORITHM_VERSION:
        expected = f"{run.algorithm}, that of the run, on every worker"
        here = f"{ALGORITHM_VERSION} on {platform.node()} (skelfit {__version__})"
        raise ConfigError(Path(__file__).parent, "algorithm version", expected, here)


@contextmanager
def announced(files: ShardFiles) -> Iterator[bool]:
    """Say beside the shard that it is being made. Gives whether an earlier task began it and did not end.

    Raises OutputError before any time goes into the fit of a shard that cannot be written.
    """
    process = {"host": platform.node(), "process": os.getpid()}
    try:
        tried_before = files.started.exists()
        files.started.write_text(json.dumps(process) + "\n")
    except (OSError, StoreError) as error:
        raise OutputError(f"{files.folder}: cannot be written to: {error}") from error
    try:
        yield tried_before
    finally:
        # It only informs. Where it cannot be removed, that must not cost a finished shard.
        with suppress(OSError, StoreError):
            files.started.unlink()


def _read(task: ShardTask) -> tuple[LabelBatch, FilterResult]:
    """The rows of a task in the world that the run asks for, and what the filters say of them."""
    file = task.run.labels[task.file_index]
    labels, screening = apply_filters(read_rows(file.store, task.start, task.stop), task.run.filters)
    if file.read.up is not None:
        labels = rotate_to_up(labels, file.read.up, partial(root_joints, task.run))
    return labels, screening


def _fit_of(task: ShardTask, labels: LabelBatch, fitter: LabelFitter | None) -> FitRows:
    """What fits rows of a task: to their SMPL parameters, or to their meshes."""
    run = task.run
    if labels.vertices is not None:
        return meshes_fit(labels, mesh_fitter_of(run))
    temporal = run.pipeline.temporal
    frames = frames_of(labels, temporal)
    if temporal is not None and frames is not None:
        file = run.labels[task.file_index]
        frames = replace(frames, shapes=subject_shapes(labels, file, run.filters, temporal.beta_frames))
    return labels_fit(labels, fitter or fitter_of(run), frames)
