"""The options of images: where they are, and what of them is wanted."""

from __future__ import annotations

import click

from skelfit.cli.path_types import PATTERN
from skelfit.cli.shared_options import FiniteRange, options_of

image_options = options_of(
    click.option(
        "--images",
        type=PATTERN,
        help="Folder or tars ('DIR/*.tar', quoted) of the images, not the manifest's.",
    ),
    click.option(
        "--image-mode",
        type=click.Choice(["bytes", "crop", "none"]),
        help="Images as they are, crops of the people, or labels only  [default: bytes].",
    ),
    click.option("--crop-size", type=click.IntRange(64, 4096), help="Side of a crop, px  [default: 384]."),
    click.option(
        "--crop-margin",
        type=FiniteRange(0.1, 10),
        help="Side of the square that is cut out, in longer sides of the box  [default: 1.5].",
    ),
)
