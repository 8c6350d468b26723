"""Make the shards of a run that are not finished, and sum it up. Its caller holds the lock of the output folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import Any

from skelfit.api.conversion_lines import finished_already, lines_of_plan, rank_is_done, summary_lines_of
from skelfit.api.run_time import this_time
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.planned_shard import RunPlan, rows_of
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_extension import plan_run
from skelfit.conversion.run_lock import keep_results, sharing, write_record
from skelfit.conversion.run_plan import Run, pending, unfinished_shards
from skelfit.conversion.run_summary import rejected_so_far, results_of_ranks, write_summary
from skelfit.conversion.shard_batch import ShardBatch, cut_batches, default_rows
from skelfit.conversion.shard_outcome import ShardFailure, ShardResult
from skelfit.errors import SkelfitError
from skelfit.executors.dask_tasks import run_tasks
from skelfit.executors.executor import THIS_PROCESS, Executor, Work
from skelfit.executors.progress_bars import LOGGED, Progress, Reporter
from skelfit.labels.label_store import store_info
from skelfit.storage.locations import location_of

# How many rows are left -> about how many are fitted together where no option says so; None: one shard.
UsualBatch = Callable[[int], int | None]
_log = logging.getLogger(__name__)


class ShardsFailedError(SkelfitError):
    """Shards of a run that could not be made; the same call tries them again."""


def convert_run(
    run: Run, executor: Executor = THIS_PROCESS, *, work: Work = convert_batch, **options: Any
) -> dict[str, Any]:
    """Do what is left of a run of label rows; writes and returns its summary. Raises ShardsFailedError.

    options: of `plan_run`, and those of `make_run_of`.
    """
    return make_run_of(*_planned(run, executor, options), executor, work, **options)


def convert_rank(
    run: Run, rank: Rank, executor: Executor = THIS_PROCESS, *, work: Work = convert_batch, **options: Any
) -> dict[str, Any] | None:
    """Do what is left of a rank's share, as `make_rank_of`; otherwise as `convert_run`."""
    return make_rank_of(*_planned(run, executor, options), rank, executor, work, **options)


def make_run_of(
    plan: RunPlan,
    usual_batch: UsualBatch,
    executor: Executor,
    work: Work,
    *,
    reporter: Reporter = LOGGED,
    **options: Any,
) -> dict[str, Any]:
    """Do what is left of a planned run; writes and returns its summary. Raises ShardsFailedError.

    usual_batch, options: of `_make_shards`.
    """
    made = _make_shards(plan, usual_batch, None, executor, work, reporter, **options)
    return _summarised(plan, made.results, made.seconds, reporter)


def make_rank_of(
    plan: RunPlan,
    usual_batch: UsualBatch,
    rank: Rank,
    executor: Executor,
    work: Work,
    *,
    reporter: Reporter = LOGGED,
    **options: Any,
) -> dict[str, Any] | None:
    """Do what is left of a rank's share; the summary of the run, or None while shards of other ranks are not finished.

    As `make_run_of` otherwise.
    """
    _make_shards(plan, usual_batch, rank, executor, work, reporter, **options)
    tasks, out = plan.tasks, location_of(plan.run.out)
    with sharing(out, rank, reporter.say):
        if unfinished := unfinished_shards(plan.run, tasks):
            own = sum(rank.owns(task.name) for task in tasks)
            reporter.say(rank_is_done(rank, own, len(unfinished)))
            return None
        return _summarised(plan, *results_of_ranks(out), reporter)


def _planned(run: Run, executor: Executor, options: dict[str, Any]) -> tuple[RunPlan, UsualBatch]:
    """The plan of a run of label rows, and how many of them are fitted together where no option says so."""
    plan = plan_run(run, overwrite=options.get("overwrite", False), extend=options.pop("extend", False))
    meshes = any(not store_info(file.store).about.has_smpl for file in run.labels)
    return plan, lambda rows: default_rows(run.device, rows, executor.workers, meshes)


@dataclass(frozen=True)
class _Made:
    results: Sequence[ShardResult]
    seconds: float


def _make_shards(
    plan: RunPlan,
    usual_batch: UsualBatch,
    rank: Rank | None,
    executor: Executor,
    work: Work,
    reporter: Reporter,
    *,
    overwrite: bool = False,
    fit_batch: int | None = None,
) -> _Made:
    """Make the shards of a run, or of a rank, that are not finished. Raises ShardsFailedError.

    fit_batch: about how many rows are fitted together; None: as usual_batch says.
    """
    run, tasks, out = plan.run, plan.tasks, location_of(plan.run.out)
    own = [task for task in tasks if rank is None or rank.owns(task.name)]
    for line in lines_of_plan(plan, rank, own):
        reporter.say(line)
    todo = pending(run, tasks, plan.identities, overwrite=overwrite, rank=rank)
    write_record(out, run.subset, rows_of(tasks), len(tasks), rank)
    if len(todo) < len(own):
        reporter.say(finished_already(len(own) - len(todo)))
    left = {task.name for task in todo}
    rejected = rejected_so_far(task for task in own if task.name not in left)
    batches = cut_batches(todo, fit_batch or usual_batch(rows_of(todo)))
    started = time.perf_counter()
    with reporter.counting(rows_of(own), rows_of(own) - rows_of(todo), rejected) as progress:
        results, failures = _work_off(batches, executor, work, progress)
    seconds = time.perf_counter() - started
    if rank is not None:
        keep_results(out, rank, [asdict(result) for result in results])
    for failure in failures:
        reporter.warn(f"{failure.trace}shard {failure.name} failed: {failure.error}")
    if failures:
        raise ShardsFailedError(
            f"{len(failures)} of {len(own)} shards failed; the same command tries them again"
        )
    return _Made(results, seconds)


def _summarised(
    plan: RunPlan, results: Sequence[ShardResult], seconds: float, reporter: Reporter
) -> dict[str, Any]:
    summary = write_summary(plan.run, plan.tasks, this_time(results, seconds))
    for line in summary_lines_of(summary):
        reporter.say(line)
    return summary


def _work_off(
    todo: Sequence[ShardBatch], executor: Executor, work: Work, progress: Progress
) -> tuple[list[ShardResult], list[ShardFailure]]:
    """Convert the batches; returns what was done, and the failures."""
    done: list[ShardResult] = []
    failures: list[ShardFailure] = []
    with closing(run_tasks(todo, executor, work, progress.say)) as results:
        for result in results:
            if isinstance(result, ShardResult):
                done.append(result)
                progress.update(result.rows_in, result.rejected)
                _log.debug("%s: %d rows, seconds by phase: %s", result.name, result.rows_in, result.seconds)
            else:
                failures.append(result)
    return done, failures
