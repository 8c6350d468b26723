"""`skelfit convert`: a dataset from label files to shards."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch

from skelfit.bodies.model_set import OPEN_BODY, ModelSet, find_models
from skelfit.cli.image_options import ImageOptions, image_options, prepare_images
from skelfit.cli.interrupts import interruptible
from skelfit.cli.label_options import LabelOptions, label_options
from skelfit.cli.path_types import FILE, FOLDER, MANIFEST, PIPELINE
from skelfit.cli.progress_bars import Progress, report, report_subsets
from skelfit.cli.refused_options import Given, check_given, check_image_options
from skelfit.cli.subset_options import (
    FILTER_NAMES,
    MissingError,
    Subset,
    check_filters,
    check_images,
    data_root,
    file_subset,
    filter_values,
    label_files,
    manifest_subset,
    manifests_of,
    say_sequences,
)
from skelfit.cli.worker_options import PlaceOptions, place_options
from skelfit.config.manifest import load_manifest
from skelfit.config.pipeline import Pipeline
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE, chosen_pipeline
from skelfit.conversion.run_fitter import make_fitter
from skelfit.conversion.run_lock import write_record, writing
from skelfit.conversion.run_plan import Run, ShardTask, pending, plan_shards
from skelfit.conversion.run_summary import rejected_so_far, write_summary
from skelfit.conversion.shard_task import ShardResult, run_shard
from skelfit.conversion.stopwatch import PHASES
from skelfit.errors import SkelfitError
from skelfit.executors.dask_reports import check_bokeh
from skelfit.executors.dask_tasks import ShardFailure, run_tasks
from skelfit.executors.dask_worker import Work
from skelfit.executors.executor import HERE, Place, visible_gpus
from skelfit.fitting.backends.backend import is_compiled, make_backend
from skelfit.fitting.backends.compute_device import find_device
from skelfit.labels.filters import PUBLISHED_VALUES, switch_filters
from skelfit.labels.label_store import clear_temporaries, store_sequences
from skelfit.resources.catalog import MANIFESTS

STORES = ".stores"  # beside the shards: all workers can read what they write to
COUNT = click.IntRange(min=1)
SHARDS_FAILED, NOTHING_THERE = 1, 2
GO_ON = "interrupted; the same command goes on from the finished shards"


@dataclass(frozen=True)
class Orders:
    """What the options ask for, whatever the subset."""

    pipeline: Pipeline
    models: ModelSet
    device: str
    place: Place
    limit: int | None
    filters_on: Sequence[tuple[str, float | None]]
    filters_off: Sequence[str]
    overwrite: bool
    given: Given


@click.command("convert")
@click.option(
    "--manifest",
    type=MANIFEST,
    help=f"What to convert: {', '.join(MANIFESTS.names)}; a file; all, or a folder of them, each to a folder in --out.",
)
@label_options
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards.")
@click.option(
    "--pipeline", type=PIPELINE, default=DEFAULT_PIPELINE, show_default=True, help="How to convert."
)
@click.option("--models", type=FOLDER, help="Assets  [default: $SKELFIT_MODELS, ./models, the open body].")
@image_options
@click.option(
    "--skel-gender",
    type=click.Choice(["male", "female", "best"]),
    help="SKEL for neutral labels; best: whichever fits a person better.",
)
@click.option(
    "--independent-frames",
    is_flag=True,
    help="Fit each frame of a sequence by itself, not all as one problem.",
)
@click.option(
    "--filter",
    "filters",
    metavar="RULE[=VALUE]",
    multiple=True,
    callback=filter_values,
    help=f"Switch a filter on: {', '.join(PUBLISHED_VALUES)}; or 4dhumans, hsmr, all.",
)
@click.option(
    "--no-filter", "no_filters", multiple=True, type=click.Choice(FILTER_NAMES), help="Switch one off."
)
@click.option("--limit", type=COUNT, help="Take the first rows only.")
@click.option("--shard-size", type=COUNT, help="Label rows per shard.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@place_options
@click.option("--dashboard", is_flag=True, help="Serve Dask's dashboard on this machine; says where.")
@click.option("--performance-report", type=FILE, help="HTML file for Dask's report of all tasks.")
@click.option("--overwrite", is_flag=True, help="Replace finished shards of another configuration.")
def convert_command(
    manifest: Path | None,
    label_options: LabelOptions,
    out: Path,
    pipeline: Path,
    models: Path | None,
    image_options: ImageOptions,
    skel_gender: str | None,
    independent_frames: bool,
    filters: tuple[tuple[str, float | None], ...],
    no_filters: tuple[str, ...],
    limit: int | None,
    shard_size: int | None,
    device: str,
    place_options: PlaceOptions,
    dashboard: bool,
    performance_report: Path | None,
    overwrite: bool,
) -> None:
    """Fit SKEL to SMPL labels and write WebDataset shards. A run that was cut short goes on where it was."""
    if image_options.place is not None and manifest is not None and manifest.is_dir():
        raise click.UsageError("--images is for one subset: give one manifest")
    if manifest is not None:
        data_root()  # said before anything is read
    chosen = chosen_pipeline(pipeline, skel_gender, shard_size, independent_frames)
    settings = image_options.applied_to(chosen)
    given = Given(
        skel_gender=skel_gender,
        images=image_options.place is not None,
        image_mode=image_options.mode,
        crop_options=image_options.of_crops(),
        filters=tuple(name for name, _ in filters),
        independent_frames=independent_frames,
    )
    one = manifest is not None and not manifest.is_dir() and load_manifest(manifest).images is None
    check_image_options(given, settings.images.mode, has_images=given.images or not (one or manifest is None))
    found = find_models(models)
    click.echo(f"models: {found.source} (sha256 {found.sha256[:12]})")
    if found.source == OPEN_BODY:
        click.echo("  a free stand-in, not SMPL and SKEL; import those with: skelfit models import")
    device = device if place_options.scheduler is not None else find_device(device)
    place = place_options.place(visible_gpus(torch.cuda.device_count()) if device == "cuda" else ())
    if dashboard or performance_report is not None:
        if place == HERE:
            raise click.UsageError("--dashboard and --performance-report watch workers: give --workers")
        check_bokeh()
        place = replace(place, dashboard=dashboard, report=performance_report)
    orders = Orders(settings, found, device, place, limit, filters, no_filters, overwrite, given)
    if manifest is None:
        convert_subset(file_subset(label_options, image_options.place), out, orders)
    elif manifest.is_dir():
        convert_all(manifest, out, orders)
    else:
        convert_subset(manifest_subset(manifest, image_options.place, found), out, orders)


def convert_subset(subset: Subset, out: Path, orders: Orders) -> dict[str, Any]:
    """Convert one subset; returns its summary. Exits when a shard failed or the run was interrupted."""
    settings, models = orders.pipeline, orders.models
    with interruptible(GO_ON), writing(out, subset.name):
        clear_temporaries(out / STORES)
        run = Run(
            subset=subset.name,
            out=str(out.absolute()),
            images=prepare_images(subset.images, settings.images.mode, out / STORES),
            models=None if models.source == OPEN_BODY else str(Path(models.source).absolute()),
            models_sha256=models.sha256,
            pipeline=settings,
            device=orders.device,
            labels=label_files(subset, out / STORES, settings.gates.max_abs_beta, orders.limit),
            filters=switch_filters(subset.filters, orders.filters_on, orders.filters_off),
            description=subset.description,
            origins=subset.origins,
        )
        check_given(run, orders.given)
        check_filters(run)
        check_images(run)
        say_sequences(run)
        if orders.place.scheduler is None and not is_compiled(run.device):
            click.echo("compiling the kernels of the fit for this machine; that takes up to a minute, once")
            make_backend(run.device).compile()
        work = run_shard
        if orders.place == HERE:
            work = partial(run_shard, fitter=make_fitter(models, settings, run.device))
        summary = convert_run(run, orders.place, overwrite=orders.overwrite, work=work)
    for command in (
        f"verify {out}",
        f"card {out}",
        f"export {out} --format skel-cf --out {subset.name}-skel.npz",
    ):
        click.echo(f"next: skelfit {command}")
    return summary


def convert_all(folder: Path, out: Path, orders: Orders) -> None:
    """Convert every manifest of a folder, each to its own folder in `out`, and print a table.

    A subset without label files is named with what to do; one that fails does not stop the others. Exits with 1 when
    one failed, with 2 when none had its files.
    """
    ends: list[tuple[str, dict[str, Any] | None, str]] = []
    missing, failed = [], 0
    for path in manifests_of(folder):
        name, summary = load_manifest(path).name, None
        click.echo(f"== {name}")
        try:
            summary = convert_subset(manifest_subset(path, None, orders.models), out / name, orders)
            end = str(out / name)
        except MissingError as error:
            missing.append(str(error))
            end = "not there, see below"
            click.echo("its label files are not there")
        except SkelfitError as error:
            failed += 1
            end = "failed, see above"
            click.echo(f"Error: {error}", err=True)
        except SystemExit as stop:
            if stop.code != SHARDS_FAILED:
                raise
            failed += 1
            end = "some shards failed, see above"
        ends.append((name, summary, end))
    report_subsets(ends)
    for line in missing:
        click.echo(line)
    if failed or len(missing) == len(ends):
        sys.exit(SHARDS_FAILED if failed else NOTHING_THERE)


def convert_run(
    run: Run, place: Place = HERE, *, overwrite: bool = False, work: Work = run_shard
) -> dict[str, Any]:
    """Do what is left of a run; writes and returns its summary. Exits with 1 when a shard failed.

    The caller holds the lock.
    """
    sequences = {i: [s.start for s in store_sequences(file.store)] for i, file in enumerate(run.labels)}
    out, tasks = Path(run.out), plan_shards(run, sequences)
    device = run.device if run.device != "auto" else "the workers' devices"
    rows = sum(task.stop - task.start for task in tasks)
    click.echo(
        f"{run.subset}: {rows} rows in {len(tasks)} shards, fitted on {device}, to {os.path.relpath(out)}"
    )
    todo = pending(run, tasks, overwrite=overwrite)
    write_record(out, run.subset, rows, len(tasks))
    if len(todo) < len(tasks):
        click.echo(f"{len(tasks) - len(todo)} shards are finished already")
    left = {task.name for task in todo}
    rejected = rejected_so_far(task for task in tasks if task.name not in left)
    started = time.perf_counter()
    with Progress(rows, rows - sum(task.stop - task.start for task in todo), rejected) as progress:
        results, failures = _work_off(todo, place, work, progress)
    for failure in failures:
        click.echo(f"{failure.trace}shard {failure.name} failed: {failure.error}", err=True)
    if failures:
        click.echo(
            f"{len(failures)} of {len(tasks)} shards failed; the same command tries them again", err=True
        )
        sys.exit(SHARDS_FAILED)
    summary = write_summary(run, tasks, this_time(results, time.perf_counter() - started))
    report(summary)
    return summary


def this_time(results: Sequence[ShardResult], seconds: float) -> dict[str, Any]:
    """What the summary says of the shards done in this run, not of earlier ones: speed, and where the time went."""
    if not results:
        return {"people_per_second": None, "time": None}
    total = {phase: sum(result.seconds[phase] for result in results) for phase in PHASES}
    shares = {phase: round(value / sum(total.values()), 4) for phase, value in total.items()}
    spans: dict[str, list[float]] = {}
    for result in results:
        spans.setdefault(result.process, []).extend(result.span)
    at_work = sum(max(times) - min(times) for times in spans.values())
    return {
        "people_per_second": sum(result.rows_in for result in results) / seconds,
        "time": {
            "seconds": round(seconds, 1),
            "worker_seconds": round(at_work, 1),  # of each process from its first shard to its last
            "fitting": round(total["fit"] / at_work, 4),
            "shares": shares,
        },
    }


def _work_off(
    todo: Sequence[ShardTask], place: Place, work: Work, progress: Progress
) -> tuple[list[ShardResult], list[ShardFailure]]:
    """Run the tasks; returns what was done, and the failures."""
    done: list[ShardResult] = []
    failures: list[ShardFailure] = []
    with closing(run_tasks(todo, place, work, progress.say)) as results:
        for result in results:
            if isinstance(result, ShardResult):
                done.append(result)
                progress.update(result.rows_in, result.rejected)
            else:
                failures.append(result)
    return done, failures
