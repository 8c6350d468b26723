"""`skelfit refine`: finished shards, refined against the keypoints of their pictures."""

from __future__ import annotations

import sys
from typing import Any

import click

from skelfit.api.refine_shards import refine_shards
from skelfit.api.run_shards import ShardsFailedError
from skelfit.cli.console import Console, pass_console
from skelfit.cli.convert import GO_ON, SHARDS_FAILED
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FILE, FOLDER_PLACE, OUT_FOLDER
from skelfit.cli.shared_options import COUNT, device_option, models_option, out_option, overwrite_option
from skelfit.cli.worker_options import run_options
from skelfit.storage.locations import Location


@click.command("refine")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@out_option(OUT_FOLDER)
@click.option(
    "--settings",
    type=FILE,
    help="YAML file: how to refine, and what to accept  [default: as docs/refine.md says].",
)
@models_option
@device_option
@click.option(
    "--fit-batch",
    type=COUNT,
    metavar="ROWS",
    help="Rows that a worker refines together, in whole shards  [default: GPU: 32768; CPU: one shard].",
)
@run_options
@overwrite_option
@pass_console
def refine_command(console: Console, /, folder: Location, out: Location, **options: Any) -> None:
    """Refine the people of the finished shards in DIR against their 2D keypoints, and write shards of the same form.

    Who cannot be refined, or would not be better for it, keeps their parameters; the row says why. A run that was cut
    short goes on where it was.
    """
    with interruptible(GO_ON):
        try:
            refined = refine_shards(folder, out, **options, progress=console.reporter())
        except ShardsFailedError as error:
            console.warn(error)
            sys.exit(SHARDS_FAILED)
    if refined.summary is None:
        console.in_short(f"{refined.subset}: this rank is done, others are not, in {refined.folder}")
        return
    counts = refined.summary["refinement"]["statuses"]
    rows, people = refined.summary["rows_in"], refined.summary["rows_out"]
    console.in_short(
        f"{refined.subset}: {rows} rows, {people} people, {counts.get('refined', 0)} refined, in {refined.folder}"
    )
