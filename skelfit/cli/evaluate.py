"""`skelfit evaluate`: a network or predictions, measured by a published protocol."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FILE_PLACE, FOLDER, OUT_FILE, PIPELINE, PLACE
from skelfit.cli.shared_options import COUNT, device_option, json_option, limit_option, models_option
from skelfit.protocols.evaluation_lines import short_line
from skelfit.protocols.evaluation_run import evaluate
from skelfit.protocols.protocol_table import PROTOCOLS
from skelfit.storage.locations import Location


@click.command("evaluate")
@click.argument("predictions", metavar="CHECKPOINT|PREDICTIONS", type=PLACE)
@click.option("--protocol", type=click.Choice(list(PROTOCOLS)), required=True, help="How to measure.")
@click.option("--labels", type=FILE_PLACE, required=True, help="The label file of the protocol (npz).")
@click.option("--images", type=FOLDER, help="Folder below which the labels' images are; for a checkpoint.")
@models_option
@click.option(
    "--intrinsics-from",
    metavar="exif|diagonal|label|MODULE:CALLABLE",
    help="For a checkpoint: by EXIF, else the diagonal; by the labels; or your own predictor  [default: exif].",
)
@click.option("--batch-size", type=COUNT, help="For a checkpoint  [default: 32].")
@click.option(
    "--pipeline",
    type=PIPELINE,
    help="How to fit: a name or a file  [default: hmr-skel]; for SMPL predictions.",
)
@click.option(
    "--skel-gender",
    type=click.Choice(["male", "female", "best"]),
    help="Of the SKEL that is fitted to neutral SMPL predictions  [default: the pipeline's].",
)
@device_option
@limit_option()
@json_option("json")
@click.option("--html", type=OUT_FILE, help="Write it as one page for the browser, with the worst people.")
@click.option("--rows", type=OUT_FILE, help="Write the status and the errors of every row (CSV).")
@pass_console
def evaluate_command(console: Console, /, predictions: Location | Path, **options: Any) -> None:
    """Measure a checkpoint, or predictions in a file, by a published protocol.

    PREDICTIONS is a folder or people.npz of skelfit predict, or SMPL parameters of any network, to which SKEL is
    fitted first. Exits with 1 when a row of the protocol has no prediction that can be scored.
    """
    with interruptible("interrupted: nothing was written"):
        evaluation = evaluate(predictions, **options, progress=console.reporter())
    if evaluation.report["stages"][-1]["people"]:
        console.in_short(short_line(evaluation.report))
    sys.exit(0 if evaluation.complete else 1)
