"""`skelfit convert`: a dataset from label files to shards."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from skelfit.api.convert_dataset import ShardsFailedError, convert
from skelfit.api.subsets import FILTER_NAMES
from skelfit.cli.image_options import image_options
from skelfit.cli.interrupts import interruptible
from skelfit.cli.label_options import label_options
from skelfit.cli.path_types import FILE, FOLDER, MANIFEST, PIPELINE
from skelfit.cli.worker_options import worker_options
from skelfit.config.pipeline_choice import DEFAULT_PIPELINE
from skelfit.executors.progress_bars import SHOWN
from skelfit.labels.filters import PUBLISHED_VALUES
from skelfit.resources.catalog import MANIFESTS

COUNT = click.IntRange(min=1)
SHARDS_FAILED, NOTHING_THERE = 1, 2
GO_ON = "interrupted; the same command goes on from the finished shards"


@click.command("convert")
@click.option(
    "--manifest",
    type=MANIFEST,
    help=f"What to convert: {', '.join(MANIFESTS.names)}; a file; all, or a folder of them, each to a folder in --out.",
)
@label_options
@click.option("--out", type=FOLDER, required=True, help="Folder for the shards.")
@click.option(
    "--pipeline", type=PIPELINE, default=DEFAULT_PIPELINE, show_default=True, help="How to convert."
)
@click.option("--models", type=FOLDER, help="Assets  [default: $SKELFIT_MODELS, ./models, the open body].")
@image_options
@click.option(
    "--skel-gender",
    type=click.Choice(["male", "female", "best"]),
    help="SKEL for neutral labels; best: whichever fits a person better.",
)
@click.option(
    "--independent-frames",
    is_flag=True,
    help="Fit each frame of a sequence by itself, not all as one problem.",
)
@click.option(
    "--filter",
    metavar="RULE[=VALUE]",
    multiple=True,
    help=f"Switch a filter on: {', '.join(PUBLISHED_VALUES)}; or 4dhumans, hsmr, all.",
)
@click.option("--no-filter", multiple=True, type=click.Choice(FILTER_NAMES), help="Switch one off.")
@click.option("--limit", type=COUNT, help="Take the first rows only.")
@click.option("--shard-size", type=COUNT, help="Label rows per shard.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto", show_default=True)
@worker_options
@click.option("--dashboard", is_flag=True, help="Serve Dask's dashboard on this machine; says where.")
@click.option("--performance-report", type=FILE, help="HTML file for Dask's report of all tasks.")
@click.option("--overwrite", is_flag=True, help="Replace finished shards of another configuration.")
def convert_command(out: Path, **options: Any) -> None:
    """Fit SKEL to SMPL labels and write WebDataset shards. A run that was cut short goes on where it was."""
    with interruptible(GO_ON):
        try:
            subsets = convert(out, **options, progress=SHOWN).subsets
        except ShardsFailedError as error:
            click.echo(str(error), err=True)
            sys.exit(SHARDS_FAILED)
    if any(subset.problem and not subset.missing for subset in subsets):
        sys.exit(SHARDS_FAILED)
    if all(subset.missing for subset in subsets):
        sys.exit(NOTHING_THERE)
