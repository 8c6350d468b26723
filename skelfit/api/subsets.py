"""What is to be converted: subsets as this machine has their files, by manifest or by hand."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path

from skelfit.bodies.model_set import ModelSet
from skelfit.config.manifest import (
    DemoSpec,
    Filters,
    LabelLayout,
    LabelSource,
    Manifest,
    Origin,
    ReadOptions,
    load_manifest,
)
from skelfit.config.pipeline import ImageMode
from skelfit.conversion.run_plan import LabelFile, Run
from skelfit.errors import ArgumentError, ConfigError, LabelError
from skelfit.executors.progress_bars import Reporter, Say
from skelfit.images.image_source import ImageLocation, ImageSource, locate_images, open_images
from skelfit.images.tar_index import INDEX_NAME, build_index
from skelfit.labels.filters import FILTER_GROUPS, PUBLISHED_VALUES, REQUIRED_DATA, active_filters
from skelfit.labels.image_names import image_path
from skelfit.labels.label_schema import record_sha256
from skelfit.labels.label_store import read_rows, store_contents, store_info
from skelfit.labels.placed_store import place_store
from skelfit.labels.read_settings import OptionError
from skelfit.labels.readers.label_folder import describe_skipped_files
from skelfit.labels.readers.registry import detect_layout
from skelfit.storage.checked_arguments import texts_of
from skelfit.storage.command_lines import next_command
from skelfit.storage.local_cache import fetched, kept_for, upload_named
from skelfit.storage.locations import LOCATION, Location, address_of, below, describe_unusable, location_of
from skelfit.storage.locks import take_lock
from skelfit.storage.path_checks import describe_skipped

IMAGES_LOOKED_FOR = 100  # rows
DEMO_LOCK = ".making.lock"
_FAULTS_SAID = 10
FILTER_NAMES = (*PUBLISHED_VALUES, *FILTER_GROUPS)


@dataclass(frozen=True)
class Subset:
    """What is converted: a manifest, or one label file given by hand."""

    name: str
    sources: tuple[LabelSource, ...]
    paths: tuple[Location, ...]  # of the label files
    images: ImageLocation | None
    filters: Filters = Filters()
    recorded: bool = False  # whether the sha256 of its files is kept beside them
    description: str = ""
    origins: tuple[Origin, ...] = ()
    missing_images: Location | None = None  # images that the manifest names and that are not there


def file_subset(
    path: Location, layout: LabelLayout | None, read: ReadOptions, images: ImageLocation | None
) -> Subset:
    """The subset of one label file, or of a folder of sequences, named after it."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "-", path.resolve().stem)
    return Subset(name, (LabelSource(str(path), layout, read=read),), (path,), images)


def manifest_subset(
    path: Path, images: ImageLocation | None, models: ModelSet, reporter: Reporter, *, make_demo: bool = True
) -> Subset:
    """The subset of a manifest; the demo's people are made when they are not there, unless not `make_demo`.

    Raises LabelError when a label file is missing, saying what to download, and where to put it.
    """
    manifest, root = load_manifest(path), data_root()
    paths = tuple(below(root, source.path) for source in manifest.labels)
    if manifest.demo is not None and make_demo:
        _make_demo(paths[0].parent, manifest.demo, models, reporter)
    _check_there(manifest, paths)
    missing_images = None
    if images is None and manifest.images is not None:
        images = locate_images(manifest.images, root)
        if images is None:
            missing_images = below(root, manifest.images)
            reporter.say(f"no images {missing_images}: the shards will hold labels without images")
            if sources := _sources(manifest, "images"):
                reporter.say(f"  to have them, put them there; they come from {sources}")
    return Subset(
        name=manifest.name,
        sources=tuple(_with_map(source, root) for source in manifest.labels),
        paths=paths,
        images=images,
        filters=manifest.filters,
        # What was made here changes with its models, and is checked by its own record.
        recorded=manifest.demo is None,
        description=manifest.description,
        origins=manifest.origins,
        missing_images=missing_images,
    )


def _with_map(source: LabelSource, root: Location) -> LabelSource:
    """A label file of a manifest, with its vertex map below the data folder, too."""
    if source.read.vertex_map is None:
        return source
    return replace(source, read=replace(source.read, vertex_map=str(below(root, source.read.vertex_map))))


def manifests_of(folder: Path) -> list[Path]:
    """The manifests of a folder but for those that make their people up, by name. Raises ConfigError."""
    manifests = [path for path in sorted(folder.glob("*.yaml")) if load_manifest(path).demo is None]
    if not manifests:
        raise ConfigError(folder, None, "a folder of manifests (*.yaml)", "none")
    return manifests


def data_root() -> Location:
    """The folder that manifests speak of. Raises ConfigError."""
    named = os.environ.get("SKELFIT_DATA") or "data"
    if (problem := describe_unusable(named)) is not None:
        raise ConfigError("$SKELFIT_DATA", None, LOCATION, problem)
    return location_of(named)


def label_files(
    subset: Subset,
    folder: Location,
    max_abs_beta: float,
    limit: int | None,
    say: Say,
    *,
    shared: bool = False,
) -> tuple[LabelFile, ...]:
    """The validated stores of the label files, in a folder; `limit` counts rows through all of them.

    shared: ranks make them, one after another.
    """
    files = []
    left = limit
    for source, path in zip(subset.sources, subset.paths, strict=True):
        store = place_store(source, path, folder, max_abs_beta, shared=shared)
        info, local = store_info(store), fetched(path)
        told = "" if source.source or local.is_dir() else f" (told by its keys {detect_layout(local)[1]})"
        say(f"{path}: {info.rows} rows of {info.source} labels{told}")
        if local.is_dir() and (skipped := describe_skipped_files(local, info.source)):
            say(f"  {skipped}")
        up = "" if source.read.up is None else f"; {source.read.up} is up in the shards"
        say(f"  coordinates of the labels: {info.about.coordinates}{up}")
        for note in info.about.notes:
            say(f"  {note}")
        if subset.recorded and (said := record_sha256(path, info.sha256)):
            say(said)
        _check_names(source, store, path)
        rows = info.rows if left is None else min(info.rows, left)
        left = None if left is None else left - rows
        files.append(
            LabelFile(
                store=address_of(store),
                name=path.name,
                sha256=info.sha256,
                rows=rows,
                source=info.source,
                gender=source.gender,
                path_rule=source.path_rule,
                path_prefix=source.path_prefix,
                read=source.read,
                notes=info.about.notes,
            )
        )
    return tuple(files)


def _check_names(source: LabelSource, store: Location, path: Location) -> None:
    """Raise OptionError for rules on names of images where a label file has none."""
    info = store_info(store)
    for rule in (name for name in ("path_rule", "path_prefix") if getattr(source, name) not in ("none", "")):
        if info.rows and not store_contents(store, info.rows).has_names:
            raise OptionError(
                path,
                None,
                f"names of images, for the manifest's {rule}",
                f"none in these {info.source} labels",
            )


def check_images(run: Run, say: Say) -> None:
    """Say so where no image of a label file's first rows is found: then its path rule may be the wrong one."""
    if run.images is None:
        return
    with closing(open_images(run.images)) as images:
        for file in run.labels:
            names = read_rows(file.store, 0, min(file.rows, IMAGES_LOOKED_FOR)).imgname
            paths = [image_path(name, file.path_rule, file.path_prefix) for name in names]
            if not any(names) or any(path and _is_there(images, path) for path in paths):
                continue
            say(f"{file.name}: none of the images of its first {len(paths)} rows is there")
            say(f"  {names[0]!r} is looked for as {paths[0]!r} (path_rule: {file.path_rule})")
            if similar := images.similar(paths[0]):
                say(f"  the images have {similar!r}: path_rule or path_prefix of the manifest may be wrong")


def check_filters(run: Run, say: Say) -> None:
    """Say so where a filter asks for what a label file does not have."""
    for file in run.labels:
        contents = store_contents(file.store, file.rows)
        for rule in active_filters(run.filters):
            if rule in REQUIRED_DATA and not contents.has(REQUIRED_DATA[rule]):
                effect = "takes no keypoint away" if rule == "low_confidence" else "leaves none of them out"
                say(f"{file.name}: no row has {REQUIRED_DATA[rule]}, so the filter {rule} {effect}")


def say_sequences(run: Run, say: Say) -> None:
    """Say how the frames of sequences are fitted, and at what rate where a file does not give one."""
    temporal = run.pipeline.temporal
    for file in run.labels:
        sequences = store_contents(file.store, file.rows).sequences
        if not sequences:
            continue
        how = "as one problem (--independent-frames: each by itself)" if temporal else "each by itself"
        count = "1 sequence" if len(sequences) == 1 else f"{len(sequences)} sequences"
        say(f"{file.name}: {count}; frames are fitted {how}")
        unknown = sum(sequence.frame_rate is None for sequence in sequences)
        if unknown and temporal:
            assumed = f"{temporal.frame_rate:g} Hz assumed (fit.temporal.frame_rate of the pipeline)"
            whose = "" if len(sequences) == 1 else f"{unknown} of them "
            say(f"  {whose}without a frame rate: {assumed}; give exports the video's, with --frame-rate")


def next_commands(run: Run, out: Location) -> Iterator[str]:
    """Lines with the commands that a finished run is for: of people in images, and of people in motion."""
    yield next_command("verify", out)
    yield next_command("card", out)
    found = [s for file in run.labels for s in store_contents(file.store, file.rows).sequences]
    if not found:
        yield next_command("export", out, "--format", "skel-cf", "--out", f"{run.subset}-skel.npz")
        return
    rate: tuple[str, ...] = ()
    temporal = run.pipeline.temporal
    if temporal and any(sequence.frame_rate is None for sequence in found):
        rate = ("--frame-rate", f"{temporal.frame_rate:g}")
    for name in ("opensim", "glb"):
        yield next_command("export", out, "--format", name, *rate, "--out", f"{run.subset}-{name}")


def _is_there(images: ImageSource, path: str) -> bool:
    image = images.find(path)
    return image.exists() if isinstance(image, Path) else image is not None


def filter_rules(texts: str | Sequence[str]) -> tuple[tuple[str, float | None], ...]:
    """The rules, or groups of them, that texts name, with their values where they give any. Raises ArgumentError."""
    rules: list[tuple[str, float | None]] = []
    for text in texts_of("filter", texts):
        name, given, number = text.partition("=")
        try:
            value = float(number) if given else None
            if name not in (PUBLISHED_VALUES if given else FILTER_NAMES) or not (value or 0) >= 0:
                raise ValueError
        except ValueError:
            expected = f"one of {', '.join(FILTER_NAMES)}, or one rule and =NUMBER"
            raise ArgumentError("filter", expected, repr(text)) from None
        rules.append((name, value))
    return tuple(rules)


class MissingError(LabelError):
    """Label files of a manifest that are not there."""


def _check_there(manifest: Manifest, paths: Sequence[Location]) -> None:
    """Raise one MissingError that names every label file that is not there."""
    missing = [str(path) for path in paths if not path.exists()]
    if not missing:
        return
    one = len(missing) == 1
    expected = f"{'the label file' if one else 'label files'} of the subset {manifest.name}"
    advice = f"no such file{'' if one else 's'}"
    if sources := _sources(manifest, "labels"):
        advice += f". {'It comes' if one else 'They come'} from {sources}"
    advice += ". Put it there" if one else ". Put them there"
    advice += " (the folder for data is ./data, or $SKELFIT_DATA)"
    images = manifest.images
    if images and locate_images(images, data_root()) is None and (sources := _sources(manifest, "images")):
        advice += f". The images, {below(data_root(), images)}, come from {sources}"
    raise MissingError(" and ".join(missing), None, expected, advice)


def _sources(manifest: Manifest, of: str) -> str:
    """Who made the labels or the images of a manifest, and what to download there."""
    texts = []
    for origin in manifest.origins:
        if origin.of == of:
            where = f"{origin.name} ({origin.url})" if origin.url else origin.name
            texts.append(f"{where}: {origin.get}" if origin.get else where)
    return "; or from ".join(texts)


def _make_demo(folder: Location, demo: DemoSpec, models: ModelSet, reporter: Reporter) -> None:
    """Make the demo's people, unless they are there as asked for. Raises ConfigError."""
    if not isinstance(folder, Path):
        expected = "a folder of this machine, in which the demo's people are made"
        raise ConfigError("$SKELFIT_DATA", None, expected, f"the address {folder}")
    # Imported here because only the demo draws people.
    from skelfit.labels.demo_people import demo_is_current, write_demo

    people, seed, images = demo.people, demo.seed, demo.images
    if demo_is_current(folder, people, seed, images, models=models):
        return
    folder.mkdir(parents=True, exist_ok=True)
    lock = take_lock(folder / DEMO_LOCK, wait=True)
    try:
        # Of several processes that begin at once, one makes them.
        if demo_is_current(folder, people, seed, images, models=models):
            return
        reporter.say(f"making {people} people in {folder}")
        with reporter.counting(people) as progress:
            write_demo(folder, people, seed, images, models=models, progress=lambda _: progress.update(1))
    finally:
        if lock is not None:
            lock.release()


def prepare_images(location: ImageLocation | None, mode: ImageMode, stores: Location, say: Say) -> str | None:
    """What a run reads its images from: a folder, or the index of tars, which is made or renewed in `stores`.

    None for labels only. Raises ImageError when no tar holds an image, OutputError when the index cannot be written.
    """
    if location is None or mode == "none":
        return None
    if location.folder is not None:
        return address_of(location.folder)
    if location.missing:
        others = f" and {len(location.missing) - 1} more" if len(location.missing) > 1 else ""
        say(f"no tar {location.missing[0]}{others}: their images will be missing")
    index = stores / INDEX_NAME if isinstance(stores, Path) else kept_for(stores) / INDEX_NAME
    tars = "1 tar" if len(location.tars) == 1 else f"{len(location.tars)} tars"
    say(f"images: looking into {tars}")
    report = build_index(location.tars, index)
    say(f"images: {report.images} in {tars}; tars read again: {report.scanned}")
    for fault in report.faults[:_FAULTS_SAID]:
        say(f"  {fault}")
    if len(report.faults) > _FAULTS_SAID:
        say(f"  and {len(report.faults) - _FAULTS_SAID} more tars with faults")
    if report.skipped:
        say(f"  {describe_skipped(report.skipped, 'images')}")
    return address_of(index if isinstance(stores, Path) else upload_named(index, stores))
