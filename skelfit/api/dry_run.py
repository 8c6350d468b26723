"""What a conversion would do: what it reads, how much it writes, how long it takes and what is missing."""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from skelfit.api.conversion_result import Conversion, ConversionPlan, ConvertedSubset, PlannedFile
from skelfit.api.images_look import ImagesLook, look_at_images
from skelfit.api.plan_table import plan_lines, table_of_plans
from skelfit.api.run_costs import Amount, run_costs
from skelfit.api.run_making import RunOptions, make_run
from skelfit.api.subsets import MissingError, Subset, data_root, manifest_subset, manifests_of
from skelfit.api.trial_shards import TAR_END, TAR_RECORD, TrialShards, try_shards
from skelfit.config.manifest import load_manifest
from skelfit.conversion.run_plan import ShardTask, check_subset, check_summary, finished_shards, plan_shards
from skelfit.conversion.run_status import read_status
from skelfit.errors import SkelfitError
from skelfit.executors.executor import cores
from skelfit.images.image_source import ImageLocation
from skelfit.labels.label_store import store_contents, store_sequences
from skelfit.shards.shard_files import ShardError

# Of labels that are not there yet, as those of the demo have them: bytes of a row in tar and sidecar.
_NOT_TRIED = TrialShards(tar_bytes=4200, sidecar_bytes=480, marker_bytes=6000, labels_ms=0.02, writing_ms=0.2)


def plan_conversion(
    source: Subset | Path | None,
    images: ImageLocation | None,
    out: Path,
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


Load = Callable[[Path, "float | None"], ConversionPlan]


def _subsets(
    source: Subset | Path | None, images: ImageLocation | None, out: Path, options: RunOptions
) -> Iterator[tuple[str, Path, Load]]:
    """Name and folder of each subset, and what makes its plan."""
    if isinstance(source, Subset):
        yield source.name, out, partial(_plan, source, options)
    elif source is not None:
        for path in manifests_of(source) if source.is_dir() else [source]:
            name = load_manifest(path).name
            yield name, out / name if source.is_dir() else out, partial(_plan_manifest, path, images, options)


def _plan_manifest(
    path: Path, images: ImageLocation | None, options: RunOptions, out: Path, people_per_second: float | None
) -> ConversionPlan:
    manifest = load_manifest(path)
    labels = [data_root() / source.path for source in manifest.labels]
    if manifest.demo is not None and not all(path.exists() for path in labels):
        return _plan_demo(manifest.demo.people, options, people_per_second)
    subset = manifest_subset(path, images, options.models, options.reporter, make_demo=False)
    return _plan(subset, options, out, people_per_second)


def _plan_demo(people: int, options: RunOptions, people_per_second: float | None) -> ConversionPlan:
    """The plan of a demo whose people a run would make first."""
    options.reporter.say(f"{people} people are not made yet; a run makes them, and their images, first")
    rows = people if options.limit is None else min(people, options.limit)
    shard_size = min(options.pipeline.shard_size, rows)
    shards = math.ceil(rows / shard_size)
    amount = _amount(options, rows, shards, shard_size, _NOT_TRIED, ImagesLook(), 0.0)
    return ConversionPlan(
        files=(),
        rows=rows,
        shards=shards,
        fit_batches=shards,
        rows_done=0,
        shards_done=0,
        label_file_bytes=0,
        source_image_bytes=0,
        store_bytes=0,
        label_bytes=shards * _shard_bytes(shard_size, _NOT_TRIED),
        image_bytes=0,
        images_looked_at=0,
        images_there=0,
        workers=amount.workers,
        people_per_second=people_per_second,
        last_people_per_second=None,
        costs=run_costs(amount, people_per_second),
        missing=(),
    )


def _plan(subset: Subset, options: RunOptions, out: Path, people_per_second: float | None) -> ConversionPlan:
    """The plan of a subset whose label files are there. They are read into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="skelfit-dry-run-") as stores:
        began = time.monotonic()
        # Its sha256 is compared with the record, but no record is written.
        run = make_run(replace(subset, recorded=False), out, Path(stores), options)
        validated = time.monotonic() - began
        sequences = [[s.start for s in store_sequences(file.store)] for file in run.labels]
        tasks = plan_shards(run, dict(enumerate(sequences)))
        check_subset(run)
        check_summary(out)
        finished = set() if options.overwrite else finished_shards(run)
        look = look_at_images(run)
        trial = try_shards(run, Path(stores))
        files = tuple(
            PlannedFile(path, file.source, file.rows, len(store_contents(file.store, file.rows).sequences))
            for path, file in zip(subset.paths, run.labels, strict=True)
        )
        store_bytes = sum(map(_bytes_of, {Path(file.store) for file in run.labels}))
    rows, left = _rows(tasks), [task for task in tasks if task.name not in finished]
    largest = max((task.stop - task.start for task in left), default=0)
    amount = _amount(options, _rows(left), len(left), largest, trial, look, validated)
    return ConversionPlan(
        files=files,
        rows=rows,
        shards=len(tasks),
        fit_batches=len(left),
        rows_done=rows - _rows(left),
        shards_done=len(tasks) - len(left),
        label_file_bytes=sum(map(_bytes_of, subset.paths)),
        source_image_bytes=round(rows * look.source_bytes),
        store_bytes=store_bytes,
        label_bytes=sum(_shard_bytes(task.stop - task.start, trial) for task in tasks),
        image_bytes=round(rows * look.tar_bytes),
        images_looked_at=look.looked_at,
        images_there=look.there,
        workers=amount.workers,
        people_per_second=people_per_second,
        last_people_per_second=_last_speed(out),
        costs=run_costs(amount, people_per_second),
        missing=tuple(_missing(subset, look.looked_at, look.there)),
    )


def _amount(
    options: RunOptions,
    rows: int,
    batches: int,
    batch_rows: int,
    trial: TrialShards,
    look: ImagesLook,
    validated: float,
) -> Amount:
    """What is left to do; validated: the seconds that the check of the labels took."""
    workers = max(1, options.executor.workers)
    return Amount(
        rows=rows,
        batches=batches,
        batch_rows=batch_rows,
        workers=workers,
        device="cuda" if options.device == "cuda" else "cpu",
        threads=max(1, cores() // workers),
        writers=None,
        core_ms={"labels": trial.labels_ms, "images": look.core_ms, "writing": trial.writing_ms},
        alone_seconds=validated,
    )


def _rows(tasks: Sequence[ShardTask]) -> int:
    return sum(task.stop - task.start for task in tasks)


def _bytes_of(path: Path) -> int:
    """The bytes of a file, or of all files of a folder."""
    return sum(
        file.stat().st_size for file in (path.rglob("*") if path.is_dir() else [path]) if file.is_file()
    )


def _shard_bytes(rows: int, trial: TrialShards) -> int:
    """Bytes of a shard without images: tar, sidecar and marker."""
    tar = TAR_RECORD * math.ceil((rows * trial.tar_bytes + TAR_END) / TAR_RECORD)
    return tar + round(rows * trial.sidecar_bytes + trial.marker_bytes)


def _last_speed(out: Path) -> float | None:
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
