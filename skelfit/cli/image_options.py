"""What the command line says of images, and how a run finds them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import wraps
from pathlib import Path
from typing import Any

import click

from skelfit.cli.path_types import PATTERN
from skelfit.config.pipeline import ImageMode, Pipeline
from skelfit.images.image_source import ImageLocation, locate_images
from skelfit.images.tar_index import INDEX_NAME, build_index
from skelfit.storage.path_checks import describe_skipped

_FAULTS_SAID = 10


@dataclass(frozen=True)
class ImageOptions:
    """Where images are and what of them is wanted, where the command line says so."""

    place: ImageLocation | None
    mode: ImageMode | None
    size: int | None
    margin: float | None

    def of_crops(self) -> tuple[str, ...]:
        """The names of the options of crops that were given."""
        given = {"--crop-size": self.size, "--crop-margin": self.margin}
        return tuple(name for name, value in given.items() if value is not None)

    def applied_to(self, pipeline: Pipeline) -> Pipeline:
        """The pipeline with what the options change of it."""
        given = {"mode": self.mode, "size": self.size, "margin": self.margin}
        changes: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        return replace(pipeline, images=replace(pipeline.images, **changes))


def image_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of images; it gets them as `image_options`."""

    @click.option(
        "--images",
        type=PATTERN,
        help="Folder or tars ('DIR/*.tar', quoted) of the images, not the manifest's.",
    )
    @click.option(
        "--image-mode",
        type=click.Choice(["bytes", "crop", "none"]),
        help="Images as they are, crops of the people, or labels only  [default: bytes].",
    )
    @click.option("--crop-size", type=click.IntRange(64, 4096), help="Side of a crop, px  [default: 384].")
    @click.option(
        "--crop-margin",
        type=click.FloatRange(0.1, 10),
        help="Side of the square that is cut out, in longer sides of the box  [default: 1.5].",
    )
    @wraps(command)
    def with_options(
        images: str | None,
        image_mode: ImageMode | None,
        crop_size: int | None,
        crop_margin: float | None,
        **others: Any,
    ) -> None:
        place = None if images is None else locate_images(images)
        if images is not None and place is None:
            raise click.BadParameter(f"no such folder or tar: {images}", param_hint="--images")
        command(image_options=ImageOptions(place, image_mode, crop_size, crop_margin), **others)

    return with_options


def prepare_images(place: ImageLocation | None, mode: ImageMode, stores: Path) -> str | None:
    """What a run reads its images from: a folder, or the index of tars, which is made or renewed in `stores`.

    None for labels only. Raises ImageError when no tar holds an image, OutputError when the index cannot be written.
    """
    if place is None or mode == "none":
        return None
    if place.folder is not None:
        return str(place.folder)
    if place.missing:
        others = f" and {len(place.missing) - 1} more" if len(place.missing) > 1 else ""
        click.echo(f"no tar {place.missing[0]}{others}: their images will be missing")
    index = (stores / INDEX_NAME).absolute()
    tars = "1 tar" if len(place.tars) == 1 else f"{len(place.tars)} tars"
    click.echo(f"images: looking into {tars}")
    report = build_index(place.tars, index)
    click.echo(f"images: {report.images} in {tars}; tars read anew: {report.scanned}")
    for fault in report.faults[:_FAULTS_SAID]:
        click.echo(f"  {fault}")
    if len(report.faults) > _FAULTS_SAID:
        click.echo(f"  and {len(report.faults) - _FAULTS_SAID} more tars with faults")
    if report.skipped:
        click.echo(f"  {describe_skipped(report.skipped, 'images')}")
    return str(index)
