"""The options of a label file, where no manifest says how to read it."""

from __future__ import annotations

from typing import get_args

import click

from skelfit.cli.path_types import FILE, PLACE
from skelfit.cli.shared_options import options_of
from skelfit.config.manifest import LabelLayout

label_options = options_of(
    click.option("--labels", type=PLACE, help="Or one label file, or a folder of sequences."),
    click.option(
        "--source",
        type=click.Choice(get_args(LabelLayout)),
        help="Layout of the label file  [default: told by its keys].",
    ),
    click.option(
        "--scale-unit",
        type=click.Choice(["px", "px/200"]),
        help="Unit of the boxes' scale  [default: by value].",
    ),
    click.option(
        "--angle-unit", type=click.Choice(["rad", "deg"]), help="Unit of axis-angles  [default: by value]."
    ),
    click.option(
        "--rot6d",
        type=click.Choice(["rows", "columns", "interleaved"]),
        help="How 6 numbers give a rotation  [default: by value].",
    ),
    click.option(
        "--length-unit", type=click.Choice(["m", "cm", "mm"]), help="Unit of meshes  [default: by value]."
    ),
    click.option(
        "--vertex-map",
        type=FILE,
        help="Brings meshes of another topology into SMPL's; 'skelfit models map' makes it.",
    ),
    click.option(
        "--coordinates",
        type=click.Choice(["camera", "world"]),
        help="Which coordinates to read, where a file has both  [default: by its layout].",
    ),
    click.option(
        "--labels-up",
        type=click.Choice(["y", "z"]),
        help="Axis that is up in the labels' world  [default: by value].",
    ),
    click.option(
        "--up",
        type=click.Choice(["y", "z"]),
        help="Axis that is up in the shards; people are turned  [default: as it is].",
    ),
)
