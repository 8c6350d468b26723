"""`skelfit convert`: a dataset from label files to shards."""

from __future__ import annotations

import sys
from typing import Any

import click

from skelfit.api.conversion_lines import counted_shards, summary_in_short
from skelfit.api.conversion_result import ConvertedSubset
from skelfit.api.convert_dataset import convert
from skelfit.api.run_shards import ShardsFailedError
from skelfit.api.subsets import FILTER_NAMES
from skelfit.cli.console import Console, pass_console
from skelfit.cli.image_options import image_options
from skelfit.cli.interrupts import interruptible
from skelfit.cli.label_options import label_options
from skelfit.cli.path_types import MANIFEST, OUT_FOLDER
from skelfit.cli.shared_options import (
    COUNT,
    FiniteRange,
    device_option,
    limit_option,
    models_option,
    out_option,
    overwrite_option,
    pipeline_option,
)
from skelfit.cli.worker_options import run_options
from skelfit.labels.filters import PUBLISHED_VALUES
from skelfit.resources.catalog import MANIFESTS
from skelfit.storage.locations import Location

SHARDS_FAILED, NOTHING_THERE = 1, 2
GO_ON = "interrupted; the same command goes on from the finished shards"


@click.command("convert")
@click.option(
    "--manifest",
    type=MANIFEST,
    help=f"What to convert: {', '.join(MANIFESTS.names)}; a file; all, or a folder of them, each to a folder in --out.",
)
@label_options
@out_option(OUT_FOLDER)
@pipeline_option
@models_option
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
@limit_option()
@click.option("--shard-size", type=COUNT, help="Label rows per shard.")
@device_option
@click.option(
    "--fit-batch",
    type=COUNT,
    metavar="ROWS",
    help="Label rows that a worker fits together, in whole shards  [default: GPU: 32768; CPU: one shard].",
)
@run_options
@overwrite_option
@click.option(
    "--extend",
    is_flag=True,
    help="Add rows to the run in --out: of a raised --limit, a label file that grew, or more label files.",
)
@click.option(
    "--dry-run",
    is_flag=True,
    help="Say what would be read and written, what it costs, how long it takes and what is missing; write nothing.",
)
@click.option(
    "--people-per-second",
    type=FiniteRange(min=0, min_open=True),
    help="With --dry-run: how fast one worker fits  [default: as the last run in --out, with its workers].",
)
@pass_console
def convert_command(console: Console, /, out: Location, **options: Any) -> None:
    """Fit SKEL to SMPL labels and write WebDataset shards. A run that was cut short goes on where it was."""
    with interruptible(GO_ON):
        try:
            subsets = convert(out, **options, progress=console.reporter()).subsets
        except ShardsFailedError as error:
            console.warn(error)
            sys.exit(SHARDS_FAILED)
    for subset in subsets:
        console.in_short(f"{subset.name}: {in_short(subset)}")
    if options["dry_run"]:
        sys.exit(NOTHING_THERE if any(subset.problem for subset in subsets) else 0)
    if any(subset.problem and not subset.missing for subset in subsets):
        sys.exit(SHARDS_FAILED)
    if all(subset.missing for subset in subsets):
        sys.exit(NOTHING_THERE)


def in_short(subset: ConvertedSubset) -> str:
    """What became of a subset, in one line."""
    if subset.plan is not None:
        problem = f"; missing: {subset.problem}" if subset.problem else ""
        return f"{subset.plan.rows} rows in {counted_shards(subset.plan.shards)}{problem}"
    if subset.waits:
        return f"this rank is done, others are not, in {subset.folder}"
    if subset.summary is None:
        return subset.problem
    return f"{summary_in_short(subset.summary)}, in {subset.folder}"
