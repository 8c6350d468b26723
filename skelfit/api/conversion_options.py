"""The options of a conversion, each checked: an ArgumentError names the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from skelfit.api.subsets import FILTER_NAMES, data_root
from skelfit.config.manifest import LabelLayout, ReadOptions, load_manifest
from skelfit.config.pipeline import ImageConfig
from skelfit.config.yaml_dataclasses import build
from skelfit.conversion.rank import Rank
from skelfit.errors import ArgumentError, ConfigError
from skelfit.executors.dask_reports import check_bokeh
from skelfit.executors.executor import Executor
from skelfit.images.image_source import ImageLocation, locate_images
from skelfit.resources.catalog import MANIFESTS
from skelfit.storage.checked_arguments import (
    file_argument,
    local_path_or_none,
    location_argument,
    number_of,
    texts_of,
    whole_number,
)
from skelfit.storage.locations import Place

T = TypeVar("T")


def what_to_read(
    manifest: Place | None, labels: Place | None, source: str | None, reading: dict[str, str | None]
) -> tuple[Path | None, LabelLayout | None, ReadOptions]:
    """The manifest, or a folder of them; layout and options of labels that are given without. Raises ArgumentError."""
    if (manifest is None) == (labels is None):
        expected = "either a manifest, or labels"
        raise ArgumentError("manifest", expected, "neither" if manifest is None else "both")
    given = [name for name, value in {"source": source, **reading}.items() if value is not None]
    if manifest is not None and given:
        raise ArgumentError(given[0], "none with a manifest, which says how to read its labels", "one")
    layouts: dict[str | None, LabelLayout | None] = {
        None: None,
        **{layout: layout for layout in get_args(LabelLayout)},
    }
    if source not in layouts:
        raise ArgumentError("source", f"one of {', '.join(get_args(LabelLayout))}", repr(source))
    read = built_of(ReadOptions, reading, {})
    if manifest is None:
        return None, layouts[source], read
    file = file_argument("manifest", manifest, MANIFESTS.find)
    data_root()  # said before anything is read
    return file, None, read


def images_at(images: Place | None, file: Path | None) -> ImageLocation | None:
    """Where images are, by a folder or a pattern of tars. Raises ArgumentError."""
    if images is None:
        return None
    if file is not None and file.is_dir():
        raise ArgumentError("images", "one manifest, as images are those of one subset", "a folder of them")
    place = location_argument("images", images)
    location = locate_images(str(place) if isinstance(place, Path) else place.address)
    if location is None:
        raise ArgumentError("images", "a folder or tars", f"no such folder or tar: {images}")
    return location


def has_images(file: Path | None) -> bool:
    """Whether a manifest names images; of a folder of them, some may."""
    return file is not None and (file.is_dir() or load_manifest(file).images is not None)


def images_of(images: ImageConfig, picture: Mapping[str, Any]) -> ImageConfig:
    """What of images is wanted, with what the options change of it. Raises ArgumentError."""
    names = {"mode": "image_mode", "size": "crop_size", "margin": "crop_margin"}
    changes = {key: picture[name] for key, name in names.items() if picture[name] is not None}
    return built_of(ImageConfig, asdict(images) | changes, names)


def built_of(cls: type[T], values: Mapping[str, Any], names: Mapping[str, str]) -> T:
    """A configuration of options; `names`: of options that are not called as its keys. Raises ArgumentError."""
    try:
        return build(cls, values, "options")
    except ConfigError as error:
        key = error.key or ""
        raise ArgumentError(names.get(key, key), error.expected, error.found) from None


def check_at_least_one(**counts: int | None) -> None:
    """Raise ArgumentError for a count below 1."""
    for name, count in counts.items():
        if count is not None:
            whole_number(name, count, 1)


def check_skel_gender(skel_gender: str | None) -> None:
    """Raise ArgumentError for a gender that no SKEL has."""
    if skel_gender not in (None, "male", "female", "best"):
        raise ArgumentError("skel_gender", "male, female or best", repr(skel_gender))


def check_speed(people_per_second: float | None, dry_run: bool) -> None:
    """Raise ArgumentError for a speed that is none, or that no dry run reckons with."""
    if people_per_second is None:
        return
    if not dry_run:
        raise ArgumentError("people_per_second", "none, except for a dry run", repr(people_per_second))
    expected = "a number above 0"
    if not number_of("people_per_second", people_per_second, expected) > 0:
        raise ArgumentError("people_per_second", expected, f"{people_per_second:g}")


def rank_of(rank: int | None, world: int | None, *, scheduler: str | None, dry_run: bool) -> Rank | None:
    """The rank of this process; None where it makes all shards. Raises ArgumentError."""
    if rank is None and world is None:
        return None
    if rank is None or world is None:
        missing, given = ("rank", "world") if rank is None else ("world", "rank")
        raise ArgumentError(missing, f"a number beside {given}", "none")
    if scheduler is not None:
        raise ArgumentError("rank", "none with a scheduler, which shares out the shards itself", str(rank))
    if dry_run:
        raise ArgumentError("rank", "none with a dry run, which is of all ranks", str(rank))
    world = whole_number("world", world, 1)
    rank = whole_number("rank", rank, 0)
    if rank >= world:
        raise ArgumentError("rank", f"a number from 0 to {world - 1}, for a world of {world}", str(rank))
    return Rank(rank, world)


def check_extension(extend: bool, overwrite: bool) -> None:
    """Raise ArgumentError for an extension of shards that are to be replaced."""
    if extend and overwrite:
        raise ArgumentError("extend", "none with overwrite, which makes all shards again", "both")


def filter_names(names: str | Sequence[str]) -> tuple[str, ...]:
    """Names of rules, or groups of them, that are switched off. Raises ArgumentError."""
    texts = texts_of("no_filter", names)
    for name in texts:
        if name not in FILTER_NAMES:
            raise ArgumentError("no_filter", f"one of {', '.join(FILTER_NAMES)}", repr(name))
    return texts


def watched_executor(executor: Executor, dashboard: bool, performance_report: str | Path | None) -> Executor:
    """An executor with Dask's own ways to watch it. Raises ArgumentError, ClusterError."""
    if not dashboard and performance_report is None:
        return executor
    if executor.is_here:
        name = "dashboard" if dashboard else "performance_report"
        raise ArgumentError(name, "workers, which it watches", "none (workers: 0)")
    check_bokeh()
    report = local_path_or_none("performance_report", performance_report)
    return replace(executor, dashboard=dashboard, report=report)
