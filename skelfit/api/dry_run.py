"""What a conversion would do: what it reads, how much it writes, how long it takes and what is missing."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from skelfit.api.conversion_result import Conversion, ConversionPlan, ConvertedSubset, PlannedFile
from skelfit.api.images_look import ImagesLook, look_at_images
from skelfit.api.plan_table import plan_lines, table_of_plans
from skelfit.api.run_costs import Amount, run_costs
from skelfit.api.run_making import RunOptions, make_run
from skelfit.api.subsets import MissingError, Subset, data_root, manifest_subset, manifests_of
from skelfit.api.trial_shards import TAR_END, TAR_RECORD, TrialShards, try_shards
from skelfit.config.manifest import Manifest, load_manifest
from skelfit.conversion.planned_shard import rows_of
from skelfit.conversion.run_extension import plan_run
from skelfit.conversion.run_plan import (
    LabelFile,
    Run,
    ShardTask,
    check_subset,
    check_summary,
    finished_shards,
    plan_shards,
)
from skelfit.conversion.run_status import read_status
from skelfit.conversion.shard_batch import cut_batches, default_rows
from skelfit.errors import SkelfitError
from skelfit.executors.executor import cores
from skelfit.images.image_source import ImageLocation
from skelfit.labels.label_store import store_contents
from skelfit.shards.shard_files import ShardError
from skelfit.storage.local_cache import fetched
from skelfit.storage.locations import Location, below


def plan_conversion(
    source: Subset | Path | None,
    images: ImageLocation | None,
    out: Location,
    options: RunOptions,
    people_per_second: float | None,
) -> Conversion:
    """Say what a conversion would do, and write nothing.

    source: a subset, a manifest or a folder of manifests. Raises as `convert`, but for label files that are not there:
    these are in the result, and so is what else is missing. Of a folder, a subset that fails does not stop the others.
    """
    say = options.reporter.say
    say("dry run: nothing is written")
    results = []
    several = isinstance(source, Path) and source.is_dir()
    for name, folder, load in _subsets(source, images, out, options):
        say(f"== {name}")
        try:
            plan = load(folder, people_per_second)
        except MissingError as error:
            say(f"missing: {error}")
            results.append(ConvertedSubset(name, folder, None, str(error), missing=True))
            continue
        except SkelfitError as error:
            if not several:
                raise
            options.reporter.warn(f"Error: {error}")
            results.append(ConvertedSubset(name, folder, None, str(error)))
            continue
        for line in plan_lines(plan, folder):
            say(line)
        problem = "; ".join(plan.missing)
        results.append(ConvertedSubset(name, folder, None, problem, missing=bool(problem), plan=plan))
    if len(results) > 1:
        say(table_of_plans(results))
    return Conversion(tuple(results))


Load = Callable[[Location, "float | None"], ConversionPlan]


def _subsets(
    source: Subset | Path | None, images: ImageLocation | None, out: Location, options: RunOptions
) -> Iterator[tuple[str, Location, Load]]:
    """Name and folder of each subset, and what makes its plan."""
    if isinstance(source, Subset):
        yield source.name, out, partial(_plan, source, options)
    elif source is not None:
        for path in manifests_of(source) if source.is_dir() else [source]:
            name = load_manifest(path).name
            yield name, out / name if source.is_dir() else out, partial(_plan_manifest, path, images, options)


def _plan_manifest(
    path: Path,
    images: ImageLocation | None,
    options: RunOptions,
    out: Location,
    people_per_second: float | None,
) -> ConversionPlan:
    manifest = load_manifest(path)
    labels = [below(data_root(), source.path) for source in manifest.labels]
    if manifest.demo is not None and not all(path.exists() for path in labels):
        return _plan_demo(manifest, manifest.demo.people, options, out, people_per_second)
    subset = manifest_subset(path, images, options.models, options.reporter, make_demo=False)
    return _plan(subset, options, out, people_per_second)


def _plan_demo(
    manifest: Manifest, people: int, options: RunOptions, out: Location, people_per_second: float | None
) -> ConversionPlan:
    """The plan of a demo whose people a run would make first."""
    options.reporter.say(f"{people} people are not made yet; a run makes them, and their images, first")
    rows = people if options.limit is None else min(people, options.limit)
    file = LabelFile("", manifest.labels[0].path, "", rows, "camerahmr", "neutral", "none")
    run = Run(
        manifest.name,
        str(out),
        None,
        None,
        options.models.sha256,
        options.pipeline,
        options.device,
        (file,),
    )
    return _planned(plan_shards(run), set(), options, Samples(), people_per_second)


def _plan(
    subset: Subset, options: RunOptions, out: Location, people_per_second: float | None
) -> ConversionPlan:
    """The plan of a subset whose label files are there. They are read into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="skelfit-dry-run-") as stores:
        began = time.monotonic()
        # Its sha256 is compared with the record, but no record is written.
        run = make_run(replace(subset, recorded=False), out, Path(stores), options)
        validated = time.monotonic() - began
        check_subset(run)
        check_summary(out)
        plan = plan_run(run, overwrite=options.overwrite, extend=options.extend)
        run, tasks = plan.run, plan.tasks
        finished = set() if options.overwrite else finished_shards(run, tasks, plan.identities)
        samples = Samples(try_shards(run, Path(stores)), look_at_images(run), validated)
        files = tuple(
            PlannedFile(path, file.source, file.rows, len(store_contents(file.store, file.rows).sequences))
            for path, file in zip(subset.paths, run.labels, strict=True)
        )
        store_bytes = sum(map(_bytes_of, {Path(file.store) for file in run.labels}))
    return replace(
        _planned(tasks, finished, options, samples, people_per_second),
        files=files,
        label_file_bytes=sum(_bytes_of(fetched(path)) for path in subset.paths),
        store_bytes=store_bytes,
        last_people_per_second=_last_speed(out),
        missing=tuple(_missing(subset, samples.look.looked_at, samples.look.there)),
    )


@dataclass(frozen=True)
class Samples:
    """What was measured on some rows. As it stands: of labels that are not there yet, much as those of the demo."""

    trial: TrialShards = TrialShards(
        tar_bytes=4200, sidecar_bytes=480, marker_bytes=6000, reading_ms=0.02, writing_ms=0.2
    )
    look: ImagesLook = ImagesLook()
    validated: float = 0.0  # seconds in which the labels were checked


def _planned(
    tasks: Sequence[ShardTask],
    finished: Set[str],
    options: RunOptions,
    samples: Samples,
    people_per_second: float | None,
) -> ConversionPlan:
    """The plan of some shards, without what is known of their label files."""
    executor, trial, look = options.executor, samples.trial, samples.look
    rows, left = rows_of(tasks), [task for task in tasks if task.name not in finished]
    usual = default_rows(options.device, rows_of(left), executor.workers)
    batches = cut_batches(left, options.fit_batch or usual)
    workers = max(1, executor.workers)
    amount = Amount(
        rows=rows_of(left),
        batches=len(batches),
        batch_rows=max((batch.rows for batch in batches), default=0),
        workers=workers,
        device="cuda" if options.device == "cuda" else "cpu",
        threads=max(1, cores() // workers),
        # 0 is a thread.
        writers=None if executor.writers is None else max(1, executor.writers),
        core_ms={"reading": trial.reading_ms, "images": look.core_ms, "writing": trial.writing_ms},
        alone_seconds=samples.validated,
    )
    return ConversionPlan(
        files=(),
        rows=rows,
        shards=len(tasks),
        fit_batches=len(batches),
        rows_done=rows - rows_of(left),
        shards_done=len(tasks) - len(left),
        label_file_bytes=0,
        source_image_bytes=round(rows * look.source_bytes),
        store_bytes=0,
        label_bytes=sum(_shard_bytes(task.stop - task.start, trial) for task in tasks),
        image_bytes=round(rows * look.tar_bytes),
        images_looked_at=look.looked_at,
        images_there=look.there,
        workers=workers,
        people_per_second=people_per_second,
        last_people_per_second=None,
        costs=run_costs(amount, people_per_second),
        missing=(),
    )


def _bytes_of(path: Location) -> int:
    """The bytes of a file, or of all files of a folder."""
    return sum(
        file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()
    )


def _shard_bytes(rows: int, trial: TrialShards) -> int:
    """Bytes of a shard without images: tar, sidecar and marker."""
    tar = TAR_RECORD * math.ceil((rows * trial.tar_bytes + TAR_END) / TAR_RECORD)
    return tar + round(rows * trial.sidecar_bytes + trial.marker_bytes)


def _last_speed(out: Location) -> float | None:
    """People/s of the last run in a folder."""
    try:
        return read_status(out).people_per_second
    except ShardError:  # no run yet
        return None


def _missing(subset: Subset, looked_at: int, there: int) -> Iterator[str]:
    if subset.missing_images is not None:
        yield f"the images {subset.missing_images}"
    if subset.images is not None and subset.images.missing:
        yield f"{len(subset.images.missing)} tars of images, such as {subset.images.missing[0]}"
    if looked_at and not there:
        yield f"images: none of the {looked_at} looked at is there, or can be read"
    elif there < looked_at:
        yield f"images: {looked_at - there} of the {looked_at} looked at are not there, or cannot be read"
