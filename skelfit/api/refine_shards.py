"""`skelfit.refine_shards`: finished shards, refined against the 2D keypoints of their pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from skelfit.api.conversion_options import check_at_least_one, rank_of, watched_executor
from skelfit.api.fit_arrays import check_device
from skelfit.api.run_shards import make_rank_of, make_run_of
from skelfit.bodies.model_set import KEYPOINTS_NAME, OPEN_BODY, ModelSet, find_models
from skelfit.config.refine_job import RefineJob, load_refine_job
from skelfit.conversion.planned_shard import RunPlan
from skelfit.conversion.rank import Rank
from skelfit.conversion.run_lock import writing
from skelfit.conversion.run_plan import check_summary
from skelfit.conversion.shard_batch import default_rows
from skelfit.errors import ArgumentError, ModelError
from skelfit.executors.executor import Executor, Work, chosen_executor, visible_gpus
from skelfit.executors.progress_bars import Count, Reporter, reporter_of
from skelfit.fitting.backends.backend import REFINEMENT, compile_once
from skelfit.fitting.backends.compute_device import find_device
from skelfit.refining.refine_run import plan_refinement
from skelfit.refining.shard_refinement import make_refiner, refine_batch
from skelfit.shards.finished_run import FinishedRun, open_run
from skelfit.storage.checked_arguments import file_argument, location_argument, whole_number
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Location, Place, address_of, location_of, protocol_of


@dataclass(frozen=True)
class RefinedShards:
    """What became of a run."""

    subset: str
    folder: Location  # of the refined shards
    summary: Mapping[str, Any] | None  # as in summary.json; None while shards of other ranks are not finished


def refine_shards(
    folder: Place,
    out: Place,
    *,
    settings: Place | RefineJob | None = None,
    models: Place | None = None,
    device: str = "auto",
    fit_batch: int | None = None,
    writers: int | None = None,
    workers: int | None = None,
    scheduler: str | None = None,
    tls_ca: str | Path | None = None,
    tls_cert: str | Path | None = None,
    tls_key: str | Path | None = None,
    max_wait: float | None = None,
    dashboard: bool = False,
    performance_report: str | Path | None = None,
    rank: int | None = None,
    world: int | None = None,
    overwrite: bool = False,
    progress: bool | Count | Reporter = False,
) -> RefinedShards:
    """Refine the people of finished shards against their 2D keypoints, and write shards of the same form.

    The options are those of `skelfit refine`, which docs/refine.md explains. A run that was cut short goes on where it
    was. Where workers are processes of this machine, a script needs `if __name__ == "__main__":` around the call.

    Args:
        folder: the shards of a finished conversion; they stay as they are.
        out: folder for the refined shards.
        settings: a YAML file that says how people are refined, and what is accepted; None: as it is by default.
        progress: True shows a bar; a function is called with the people done and the people there are.

    Returns:
        What became of the run, with its summary.

    Raises:
        ArgumentError: for an option that cannot be used.
        ShardsFailedError: when some shards failed; the same call tries them again.
        ShardError, ModelError, ConfigError, OutputError, DeviceError, ClusterError: for files and places of that kind.
    """
    reporter, source = reporter_of(progress), location_argument("folder", folder)
    target = location_argument("out", out, writing=True)
    if address_of(source) == address_of(target):
        raise ArgumentError("out", "another folder than that of the shards, which stay as they are", str(out))
    check_at_least_one(fit_batch=fit_batch)
    if writers is not None:
        writers = whole_number("writers", writers, 0)
    check_device(device)
    of_ranks = rank_of(rank, world, scheduler=scheduler, dry_run=False)
    job = _job(settings)
    kind = device if scheduler is not None else find_device(device)
    gpus = visible_gpus(torch.cuda.device_count()) if kind == "cuda" else ()
    executor = chosen_executor(workers, scheduler, tls_ca, tls_cert, tls_key, max_wait, gpus)
    if not executor.is_here and protocol_of(address_of(target)) == "memory":
        raise ArgumentError("out", "what other processes see too, or workers: 0", f"the address {target}")
    executor = watched_executor(replace(executor, writers=writers), dashboard, performance_report)
    run = open_run(source)
    body_models = find_models(models)
    _check_models(run, body_models)
    reporter.say(f"models: {body_models.source} (sha256 {body_models.sha256[:12]})")
    plan = plan_refinement(
        run,
        address_of(target),
        None if body_models.source == OPEN_BODY else address_of(location_of(body_models.source)),
        body_models.sha256,
        kind,
        job,
    )
    options: dict[str, Any] = {"overwrite": overwrite, "fit_batch": fit_batch, "reporter": reporter}
    summary = _make(plan, target, body_models, job, executor, of_ranks, **options)
    if summary is None:
        reporter.say(next_command("status", target))
    else:
        reporter.say(next_command("verify", target, "--against", source, "--html", "report.html"))
    return RefinedShards(run.subset, target, summary)


def _make(
    plan: RunPlan,
    out: Location,
    models: ModelSet,
    job: RefineJob,
    executor: Executor,
    rank: Rank | None,
    *,
    reporter: Reporter,
    **options: Any,
) -> dict[str, Any] | None:
    """Make the shards that are not finished, and sum them up."""
    run = plan.run
    check_summary(out)
    with writing(out, run.subset, rank):
        if executor.scheduler is None:
            compile_once(run.device, REFINEMENT, reporter.say)
        work: Work = refine_batch
        if executor.is_here:
            work = partial(refine_batch, refiner=make_refiner(models, job, run.device))

        def usual(rows: int) -> int | None:
            return default_rows(run.device, rows, executor.workers)

        if rank is None:
            return make_run_of(plan, usual, executor, work, reporter=reporter, **options)
        return make_rank_of(plan, usual, rank, executor, work, reporter=reporter, **options)


def _job(settings: Place | RefineJob | None) -> RefineJob:
    if settings is None:
        return RefineJob()
    return (
        settings
        if isinstance(settings, RefineJob)
        else load_refine_job(file_argument("settings", settings, Path))
    )


def _check_models(run: FinishedRun, models: ModelSet) -> None:
    """Raise ModelError unless these are the models of the shards, with what a refinement needs."""
    expected = run.identity.get("models_sha256")
    if models.sha256 != expected:
        raise ModelError(
            models.source, "sha256", f"the models of {run.folder}, {expected} (--models DIR)", models.sha256
        )
    if models.keypoints44 is None:
        wanted = f"{KEYPOINTS_NAME} (make it with: skelfit models import --keypoints FILE)"
        raise ModelError(models.source, "keypoints44", wanted, "nothing")
