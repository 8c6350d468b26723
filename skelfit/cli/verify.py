"""`skelfit verify`: are finished shards whole, accurate and anatomical, and which people to leave out."""

from __future__ import annotations

import sys
from typing import Any

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FOLDER_PLACE, OUT_FILE
from skelfit.cli.shared_options import FiniteRange, json_option, models_option
from skelfit.cli.worker_options import worker_options
from skelfit.storage.locations import Location
from skelfit.verification.gates import GATES
from skelfit.verification.report.report_data import EXIT_CODES
from skelfit.verification.report.terminal import verdict_line
from skelfit.verification.verify_folders import SAMPLE, verify


@click.command("verify")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER_PLACE)
@models_option
@json_option("json")
@click.option("--html", type=OUT_FILE, help="Write it as one page for the browser, with pictures.")
@click.option("--max-pve", type=FiniteRange(), help="Exit with 1 when the mean PVE is above so many mm.")
@click.option(
    "--sample",
    type=click.IntRange(min=0),
    help=f"Measure so many people, evenly from all shards; 0: integrity only  [default: {SAMPLE}].",
)
@click.option("--all", is_flag=True, help="Measure all people.")
@click.option("--keep", type=OUT_FILE, help="Write which people pass the gates (CSV); measures all people.")
@click.option(
    "--ground", type=OUT_FILE, help="Write floor and foot contact of each sequence (CSV), from all frames."
)
@click.option(
    "--gate",
    metavar="NAME[=LIMIT]",
    multiple=True,
    help=f"A gate; may be given several times: {', '.join(GATES)}  [default: max_vertex=60].",
)
@click.option("--against", type=FOLDER_PLACE, help="Compare with the shards in another folder.")
@click.option(
    "--picture",
    type=OUT_FILE,
    help="With --against: photos of people who differ, with both skeletons (JPEG).",
)
@worker_options
@pass_console
def verify_command(console: Console, /, folders: tuple[Location, ...], **options: Any) -> None:
    """Check finished shards: are they whole, accurate and anatomical? Trusts nothing that is stored.

    Exits with 0 when all is good, with 1 below the gate (--max-pve), with 2 when something is damaged or missing.
    """
    with interruptible("interrupted: nothing was changed; reports are written at the end"):
        verification = verify(folders, **options, progress=console.reporter())
    console.in_short(verdict_line(verification.report))
    sys.exit(EXIT_CODES[verification.verdict])
