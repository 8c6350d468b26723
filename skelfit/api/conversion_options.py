"""The options of a conversion, each checked: an ArgumentError names the option."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar, get_args

from skelfit.api.arguments import local_path_of
from skelfit.api.subsets import FILTER_NAMES, data_root
from skelfit.config.manifest import LabelLayout, ReadOptions, load_manifest
from skelfit.config.pipeline import ImageConfig
from skelfit.config.yaml_dataclasses import build
from skelfit.errors import ArgumentError, ConfigError
from skelfit.executors.dask_reports import check_bokeh
from skelfit.executors.executor import THIS_PROCESS, Executor
from skelfit.images.image_source import ImageLocation, locate_images
from skelfit.resources.catalog import MANIFESTS

T = TypeVar("T")


def what_to_read(
    manifest: str | Path | None, labels: str | Path | None, source: str | None, reading: dict[str, str | None]
) -> tuple[Path | None, LabelLayout | None, ReadOptions]:
    """The manifest, or a folder of them; layout and options of labels that are given without. Raises ArgumentError."""
    if (manifest is None) == (labels is None):
        expected = "either a manifest, or labels"
        raise ArgumentError("manifest", expected, "neither" if manifest is None else "both")
    given = [name for name, value in {"source": source, **reading}.items() if value is not None]
    if manifest is not None and given:
        raise ArgumentError(given[0], "labels, which it is for", "a manifest, which says itself how to read")
    layouts: dict[str | None, LabelLayout | None] = {
        None: None,
        **{layout: layout for layout in get_args(LabelLayout)},
    }
    if source not in layouts:
        raise ArgumentError("source", f"one of {', '.join(get_args(LabelLayout))}", repr(source))
    read = built_of(ReadOptions, reading, {})
    if manifest is None:
        return None, layouts[source], read
    path = local_path_of("manifest", manifest)
    file = path if isinstance(manifest, Path) else MANIFESTS.find(manifest)
    data_root()  # said before anything is read
    return file, None, read


def images_at(images: str | Path | None, file: Path | None) -> ImageLocation | None:
    """Where images are, by a folder or a pattern of tars. Raises ArgumentError."""
    if images is None:
        return None
    if file is not None and file.is_dir():
        raise ArgumentError("images", "one manifest, as images are those of one subset", "a folder of them")
    location = locate_images(str(local_path_of("images", images)))
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
        if count is not None and count < 1:
            raise ArgumentError(name, "at least 1", str(count))


def check_speed(people_per_second: float | None, dry_run: bool) -> None:
    """Raise ArgumentError for a speed that is none, or that no dry run reckons with."""
    if people_per_second is None:
        return
    if not dry_run:
        raise ArgumentError("people_per_second", "a dry run, which it is for", "none")
    if not people_per_second > 0:
        raise ArgumentError("people_per_second", "a number above 0", f"{people_per_second:g}")


def filter_names(names: Sequence[str]) -> tuple[str, ...]:
    """Names of rules, or groups of them, that are switched off. Raises ArgumentError."""
    for name in names:
        if name not in FILTER_NAMES:
            raise ArgumentError("no_filter", f"one of {', '.join(FILTER_NAMES)}", repr(name))
    return tuple(names)


def watched_executor(executor: Executor, dashboard: bool, performance_report: str | Path | None) -> Executor:
    """An executor with Dask's own ways to watch it. Raises ArgumentError, ClusterError."""
    if not dashboard and performance_report is None:
        return executor
    if executor == THIS_PROCESS:
        name = "dashboard" if dashboard else "performance_report"
        raise ArgumentError(name, "workers, which it watches", "none (workers: 0)")
    check_bokeh()
    report = None if performance_report is None else Path(performance_report)
    return replace(executor, dashboard=dashboard, report=report)
