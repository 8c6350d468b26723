"""Fit the rows of several shards together, in calls as large as a device likes.

No result of a fit depends on the rows beside it, so shards have the same bytes as when each is fitted by itself. The
published first-order fit is another matter: all rows of a call share a line search. It has a call for each shard.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.fitted_rows import RowsToFit, joined
from skelfit.conversion.row_fits import FitRows, LabelFitter, fit_rows, labels_fit, meshes_fit
from skelfit.conversion.run_fitter import fitter_of, mesh_fitter_of
from skelfit.conversion.run_plan import Run, ShardTask
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_samples import FittedBatch
from skelfit.conversion.shard_task import ReadShard, check_algorithm, read_shard
from skelfit.conversion.stopwatch import Stopwatch

# What the labels of a call take at most: it matters for meshes, of which a thousand take 83 MB.
_CALL_BYTES = 512 << 20


@dataclass(frozen=True)
class ConversionStages:
    """The stages of shards that are made of label rows."""

    fitter: LabelFitter | None = None  # None: that of the run, which this process makes once

    def check(self, run: Run) -> None:
        """Raise ConfigError when this skelfit gives other results than the run."""
        check_algorithm(run)

    def read(self, task: ShardTask) -> ReadShard:
        """Read the label rows of a shard. Raises LabelError."""
        return read_shard(task)

    def calls(self, shards: Sequence[ReadShard]) -> Iterator[Sequence[ReadShard]]:
        """The shards that are fitted together, in order."""
        return calls_of(shards)

    def fit(self, shards: Sequence[ReadShard], stopwatch: Stopwatch) -> Sequence[FittedBatch]:
        """Fit the rows of shards of one run."""
        return fit_shards(shards, self.fitter, stopwatch)


def convert_batch(batch: ShardBatch, fitter: LabelFitter | None = None) -> BatchJob:
    """The work of a conversion: what there is to do with a batch. An executor takes it through its stages."""
    return BatchJob(batch, ConversionStages(fitter))


def fit_shards(
    shards: Sequence[ReadShard], fitter: LabelFitter | None, stopwatch: Stopwatch
) -> list[FittedBatch]:
    """Fit the rows of shards of one run, all of one gender in one call."""
    run = shards[0].task.run
    with stopwatch.phase("preparing"):
        rows = joined([shard.rows for shard in shards])
        fit = _fit_of(run, rows, fitter)
    with stopwatch.phase("fit"):
        fits = fit_rows(rows, fit, len(run.pipeline.fit.stages))
    fitted, start = [], 0
    for shard in shards:
        stop = start + len(shard.rows)
        its_fits = fits.rows(start, stop)
        fitted.append(FittedBatch(shard.task, shard.labels, shard.screening, its_fits, shard.labels_sha256))
        start = stop
    return fitted


def calls_of(shards: Sequence[ReadShard]) -> Iterator[list[ReadShard]]:
    """The shards that are fitted together, in order."""
    call: list[ReadShard] = []
    for shard in shards:
        if call and not _go_together(call, shard):
            yield call
            call = []
        call.append(shard)
    if call:
        yield call


def _go_together(call: Sequence[ReadShard], shard: ReadShard) -> bool:
    if shard.task.run.pipeline.first_order is not None:
        return False
    if (call[0].rows.vertices is None) != (shard.rows.vertices is None):
        return False
    return sum(_bytes(one.rows) for one in (*call, shard)) <= _CALL_BYTES


def _bytes(rows: RowsToFit) -> int:
    columns: tuple[Any, ...] = (rows.pose, rows.betas, rows.transl, rows.vertices)
    return sum(column.nbytes for column in columns if column is not None)


def _fit_of(run: Run, rows: RowsToFit, fitter: LabelFitter | None) -> FitRows:
    """What fits rows: to their SMPL parameters, or to their meshes."""
    if rows.vertices is not None:
        return meshes_fit(rows, mesh_fitter_of(run))
    return labels_fit(rows, fitter or fitter_of(run))
