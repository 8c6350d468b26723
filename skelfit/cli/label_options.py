"""What the command line says of a label file, where no manifest does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any, get_args

import click

from skelfit.cli.path_types import PATH
from skelfit.config.manifest import LabelLayout, ReadOptions


@dataclass(frozen=True)
class LabelOptions:
    """A label file or a folder of sequences, and how to read it."""

    path: Path | None
    source: LabelLayout | None
    read: ReadOptions


def label_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options of a label file; it gets them as `label_options`."""

    @click.option("--labels", type=PATH, help="Or one label file, or a folder of sequences.")
    @click.option(
        "--source", type=click.Choice(get_args(LabelLayout)), help="Its layout  [default: told by its keys]."
    )
    @click.option(
        "--scale-unit", type=click.Choice(["px", "px/200"]), help="Of its boxes  [default: by value]."
    )
    @click.option(
        "--angle-unit", type=click.Choice(["rad", "deg"]), help="Of its axis-angles  [default: by value]."
    )
    @click.option(
        "--rot6d",
        type=click.Choice(["rows", "columns", "interleaved"]),
        help="How its 6 numbers are a rotation  [default: by value].",
    )
    @click.option(
        "--length-unit", type=click.Choice(["m", "cm", "mm"]), help="Of its meshes  [default: by value]."
    )
    @click.option(
        "--labels-up",
        type=click.Choice(["y", "z"]),
        help="Up in the world of its people  [default: by value].",
    )
    @click.option(
        "--up",
        type=click.Choice(["y", "z"]),
        help="Up in the shards' world: turns them  [default: as it is].",
    )
    @wraps(command)
    def with_options(
        manifest: Path | None,
        labels: Path | None,
        source: LabelLayout | None,
        scale_unit: Any,
        angle_unit: Any,
        rot6d: Any,
        length_unit: Any,
        labels_up: Any,
        up: Any,
        **others: Any,
    ) -> None:
        read = ReadOptions(scale_unit, angle_unit, rot6d, length_unit, labels_up, up)
        if (manifest is None) == (labels is None):
            raise click.UsageError("give either --manifest FILE or --labels FILE")
        if manifest is not None and (source is not None or read != ReadOptions()):
            raise click.UsageError(
                "--source, the units and what is up are for --labels; a manifest has its own"
            )
        command(manifest=manifest, label_options=LabelOptions(labels, source, read), **others)

    return with_options
