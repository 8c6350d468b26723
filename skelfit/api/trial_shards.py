"""Some rows written as a run would write them, with made-up fits and without images: how large they are, and how long
it takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from skelfit.bodies.dofs import dof_limits, limits_middle
from skelfit.config.pipeline import GateConfig
from skelfit.conversion.fitted_rows import RowFits
from skelfit.conversion.run_plan import Run, ShardTask
from skelfit.conversion.shard_output import write_fitted
from skelfit.conversion.shard_samples import FittedBatch
from skelfit.conversion.shard_task import read_shard
from skelfit.shards.shard_files import shard_name

TAR_END, TAR_RECORD = 1024, 10_240  # a tar ends with some zeros, and is filled up to whole records
_BLOCKS, _BLOCK_ROWS = 4, 128  # of each label file, evenly from all its rows
_ERROR_MM = 4.3217


@dataclass(frozen=True)
class TrialShards:
    """What a row takes, on average over those that were tried."""

    tar_bytes: float
    sidecar_bytes: float
    marker_bytes: float  # of a shard
    reading_ms: float  # from its label store, of a core of this machine
    writing_ms: float


def try_shards(run: Run, folder: Path) -> TrialShards:
    """Write some rows of each label file into a folder. All figures are 0 where there are no rows."""
    # Most rows pass the gates, whatever these are.
    run = replace(run, out=str(folder), images=None, pipeline=replace(run.pipeline, gates=GateConfig()))
    tasks = list(_tasks(run))
    if not tasks:
        return TrialShards(0, 0, 0, 0, 0)
    _try(tasks[0])  # the first has caches to fill
    tar, sidecar, marker, labels, writing = np.sum([_try(task) for task in tasks], axis=0).tolist()
    rows = sum(task.stop - task.start for task in tasks)
    return TrialShards(
        tar / rows, sidecar / rows, marker / len(tasks), 1000 * labels / rows, 1000 * writing / rows
    )


def _tasks(run: Run) -> Iterator[ShardTask]:
    """Small shards from all over the label files."""
    number = 0
    for index, file in enumerate(run.labels):
        last = max(0, file.rows - _BLOCK_ROWS)
        for start in np.unique(np.linspace(0, last, _BLOCKS).astype(int)).tolist() if file.rows else []:
            stop = min(start + _BLOCK_ROWS, file.rows)
            yield ShardTask(run, shard_name(run.subset, number), index, start, stop)
            number += 1


def _try(task: ShardTask) -> tuple[float, ...]:
    """Bytes of tar, sidecar and marker, and seconds of a core for reading and writing."""
    began = time.process_time()
    shard = read_shard(task)
    read = time.process_time()
    fits = _made_up_fits(task)
    marker = write_fitted(FittedBatch(task, shard.labels, shard.screening, fits, shard.labels_sha256)).marker
    written = time.process_time()
    tar = marker.tar.bytes - (TAR_END + TAR_RECORD) / 2  # what a tar is filled up with, on average
    return tar, marker.sidecar.bytes, task.files.marker.stat().st_size, read - began, written - read


def _made_up_fits(task: ShardTask) -> RowFits:
    """Good fits: finite, converged and within the limits."""
    fit = task.run.pipeline.fit
    fits = RowFits.unfitted(task.stop - task.start, len(fit.stages))
    for field in (fits.betas, fits.trans, fits.gain, fits.pve_mm, fits.max_vertex_mm, fits.stage_pve_mm):
        field[:] = _ERROR_MM
    fits.poses[:] = limits_middle(dof_limits(fit.limits))
    for flags in (fits.converged, fits.finite):
        flags[:] = True
    fits.betas_mm[:] = fits.keypoints3d[:] = _ERROR_MM
    return fits
