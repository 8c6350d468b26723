"""`skelfit publish`: a finished run as a dataset of the Hugging Face Hub."""

from __future__ import annotations

from typing import Any

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.interrupts import interruptible
from skelfit.cli.path_types import FOLDER, FOLDER_PLACE
from skelfit.cli.shared_options import keep_option, out_option, overwrite_option
from skelfit.cli.worker_options import workers_option
from skelfit.publishing.publish_run import publish
from skelfit.storage.locations import Location


@click.command("publish")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@click.argument("to", metavar="hf://datasets/OWNER/NAME")
@click.option(
    "--private/--public",
    default=True,
    show_default=True,
    help="Who sees it; a repository that is there must be so already.",
)
@click.option("--revision", help="The branch  [default: main].")
@click.option("--license", help="An identifier of the Hub, such as cc-by-nc-4.0  [default: none is claimed].")
@click.option("--title", help="Of the card  [default: made of the name of the subset].")
@keep_option
@click.option("--dry-run", is_flag=True, help="Send nothing: write all that would be sent to --out.")
@out_option(FOLDER, default="none; a dry run needs it, and nothing else takes it")
@overwrite_option
@workers_option
@pass_console
def publish_command(console: Console, /, folder: Location, to: str, **options: Any) -> None:
    """Publish a finished run on the Hugging Face Hub: Parquet tables beside the tars, and the card.

    Every byte is checked first. Files that are there already are not sent again. The token is that of `hf auth login`
    or of HF_TOKEN.
    """
    with interruptible("interrupted: the same command goes on with the files that are not there"):
        published = publish(folder, to, **options, progress=console.reporter())
    console.in_short(f"{published.people} people in {published.place}")
