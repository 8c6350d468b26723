"""What a conversion would do: what it reads, how much it writes, how long it takes and what is missing."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path

import numpy as np

from skelfit.api.conversion_lines import counted_shards, finished_already
from skelfit.api.conversion_result import Conversion, ConversionPlan, ConvertedSubset, PlannedFile
from skelfit.api.run_making import RunOptions, make_run
from skelfit.api.subsets import MissingError, Subset, data_root, manifest_subset, manifests_of
from skelfit.config.manifest import load_manifest
from skelfit.conversion.run_plan import (
    Run,
    ShardTask,
    check_subset,
    check_summary,
    finished_shards,
    plan_shards,
)
from skelfit.conversion.run_status import read_status
from skelfit.conversion.shard_samples import images_of_people
from skelfit.errors import SkelfitError
from skelfit.executors.progress_bars import duration
from skelfit.executors.report_table import ReportTable
from skelfit.images.image_source import ImageLocation, open_images, read_images
from skelfit.labels.label_store import read_selected_rows, store_contents, store_sequences
from skelfit.shards.label_vector import LABEL_SIZE
from skelfit.shards.shard_files import ShardError
from skelfit.storage.locations import Location, below

IMAGES_LOOKED_AT = 32  # of each label file, evenly from all its rows
_TAR_BLOCK = 512
_NPY_HEADER = 128
# Measured on one small run of demo people: metadata of 530 to 700 bytes, and a line of 480 in the sidecar.
_META_BYTES, _ROW_BYTES = 700, 480
NO_SPEED = "not known: measure it with `skelfit bench` and give --people-per-second N"


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
        for line in _lines(plan, folder):
            say(line)
        problem = "; ".join(plan.missing)
        results.append(ConvertedSubset(name, folder, None, problem, missing=bool(problem), plan=plan))
    if len(results) > 1:
        say(_table(results))
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
        return _plan_demo(manifest.demo.people, options, people_per_second)
    subset = manifest_subset(path, images, options.models, options.reporter, make_demo=False)
    return _plan(subset, options, out, people_per_second)


def _plan_demo(people: int, options: RunOptions, people_per_second: float | None) -> ConversionPlan:
    """The plan of a demo whose people a run would make first."""
    options.reporter.say(f"{people} people are not made yet; a run makes them, and their images, first")
    rows = people if options.limit is None else min(people, options.limit)
    return ConversionPlan(
        files=(),
        rows=rows,
        shards=math.ceil(rows / options.pipeline.shard_size),
        rows_done=0,
        shards_done=0,
        label_bytes=rows * label_bytes_per_person(),
        image_bytes=0,
        images_looked_at=0,
        images_there=0,
        people_per_second=people_per_second,
        speed_from="--people-per-second" if people_per_second else NO_SPEED,
        missing=(),
    )


def _plan(
    subset: Subset, options: RunOptions, out: Location, people_per_second: float | None
) -> ConversionPlan:
    """The plan of a subset whose label files are there. They are read into a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="skelfit-dry-run-") as stores:
        # Its sha256 is compared with the record, but no record is written.
        run = make_run(replace(subset, recorded=False), out, Path(stores), options)
        sequences = [[s.start for s in store_sequences(file.store)] for file in run.labels]
        tasks = plan_shards(run, dict(enumerate(sequences)))
        check_subset(run)
        check_summary(out)
        finished = set() if options.overwrite else finished_shards(run)
        done = [task for task in tasks if task.name in finished]
        sizes = list(chain.from_iterable(_image_sizes(run)))
        files = tuple(
            PlannedFile(path, file.source, file.rows, len(store_contents(file.store, file.rows).sequences))
            for path, file in zip(subset.paths, run.labels, strict=True)
        )
    there = [size for size in sizes if size]
    rows = _rows(tasks)
    speed, speed_from = _speed(out, people_per_second)
    return ConversionPlan(
        files=files,
        rows=rows,
        shards=len(tasks),
        rows_done=_rows(done),
        shards_done=len(done),
        label_bytes=rows * label_bytes_per_person(),
        image_bytes=round(rows * sum(map(_in_tar, there)) / len(sizes)) if there else 0,
        images_looked_at=len(sizes),
        images_there=len(there),
        people_per_second=speed,
        speed_from=speed_from,
        missing=tuple(_missing(subset, len(sizes), len(there))),
    )


def _rows(tasks: Sequence[ShardTask]) -> int:
    return sum(task.stop - task.start for task in tasks)


def _in_tar(size: int) -> int:
    """Bytes that a file takes in a tar: a header and whole blocks."""
    return _TAR_BLOCK * (1 + math.ceil(size / _TAR_BLOCK))


def label_bytes_per_person() -> int:
    """Bytes of a person without an image: label vector and metadata in the tar, and a line of the sidecar."""
    return _in_tar(4 * LABEL_SIZE + _NPY_HEADER) + _in_tar(_META_BYTES) + _ROW_BYTES


def _image_sizes(run: Run) -> Iterator[list[int]]:
    """For a sample of each label file: the bytes of each person's image in a shard, 0 where there is none."""
    if run.images is None:
        return
    with closing(open_images(run.images)) as images:
        for file in run.labels:
            count = min(file.rows, IMAGES_LOOKED_AT)
            rows = (
                np.unique(np.linspace(0, file.rows - 1, count).astype(np.int64))
                if count
                else np.zeros(0, int)
            )
            people = images_of_people(read_selected_rows(file.store, rows), file) if count else []
            with closing(read_images(images, people, run.pipeline.images)) as pictures:
                yield [len(picture.data or b"") for picture in pictures]


def _speed(out: Location, people_per_second: float | None) -> tuple[float | None, str]:
    if people_per_second is not None:
        return people_per_second, "--people-per-second"
    try:
        measured = read_status(out).people_per_second
    except ShardError:  # no run yet
        measured = None
    return measured, NO_SPEED if measured is None else "the last run in this folder"


def _missing(subset: Subset, looked_at: int, there: int) -> Iterator[str]:
    if subset.missing_images is not None:
        yield f"the images {subset.missing_images}"
    if subset.images is not None and subset.images.missing:
        yield f"{len(subset.images.missing)} tars of images, such as {subset.images.missing[0]}"
    if looked_at and not there:
        yield f"images: none of the {looked_at} looked at is there, or can be read"
    elif there < looked_at:
        yield f"images: {looked_at - there} of the {looked_at} looked at are not there, or cannot be read"


def _lines(plan: ConversionPlan, out: Location) -> Iterator[str]:
    """The plan in words."""
    yield f"{plan.rows} rows in {counted_shards(plan.shards)}, to {out}"
    if plan.shards_done:
        yield f"  {finished_already(plan.shards_done, f' with {plan.rows_done} rows')}"
    kilobytes = label_bytes_per_person() / 1000
    yield f"labels: about {_size(plan.label_bytes)} ({kilobytes:.1f} kB a person, the size of the label vector)"
    if plan.images_looked_at:
        looked = f"{plan.images_there} of {plan.images_looked_at} images looked at are there"
        yield f"images: about {_size(plan.image_bytes)} ({looked}; measured on these)"
    elif plan.files:
        yield "images: none"
    else:
        yield "images: not known before they are made"
    if plan.hours_left is None:
        yield f"time: {plan.speed_from}"
    else:
        took = duration(3600 * plan.hours_left)
        yield f"time: about {took} at {plan.people_per_second:.1f} people/s ({plan.speed_from})"
    for each in plan.missing:
        yield f"missing: {each}"
    if not plan.missing:
        yield "missing: nothing"


def _size(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def _table(results: Sequence[ConvertedSubset]) -> ReportTable:
    heads = ("subset", "rows", "shards", "finished", "GB", "hours", "missing")
    rows = tuple((result.name, *_cells(result)) for result in results)
    lines = [
        f"{name:<16} " + " ".join(f"{cell:>9}" for cell in cells) + f"   {missing}"
        for name, *cells, missing in (heads, *rows)
    ]
    return ReportTable(heads, rows, "\n" + "\n".join(lines))


def _cells(result: ConvertedSubset) -> tuple[str, ...]:
    plan = result.plan
    if plan is None:
        return (*"-----", "label files" if result.missing else "cannot be read, see above")
    hours = "-" if plan.hours_left is None else f"{plan.hours_left:.2g}"
    gigabytes = f"{(plan.label_bytes + plan.image_bytes) / 1e9:.2g}"
    missing = "images" if plan.missing else "nothing"
    return str(plan.rows), str(plan.shards), str(plan.shards_done), gigabytes, hours, missing
