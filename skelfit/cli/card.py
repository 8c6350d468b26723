"""`skelfit card`: the dataset card of finished shards."""

from __future__ import annotations

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER_PLACE, OUT_FILE
from skelfit.cli.shared_options import out_option, overwrite_option
from skelfit.errors import OutputError
from skelfit.exports.dataset_card.card_facts import read_facts
from skelfit.exports.dataset_card.markdown import CARD_NAME
from skelfit.storage.command_lines import command
from skelfit.storage.locations import Location


@click.command("card")
@click.argument("folders", metavar="DIR...", nargs=-1, required=True, type=FOLDER_PLACE)
@out_option(OUT_FILE, default="DIR/README.md")
@click.option("--title", help="Its title  [default: made of the names of the subsets].")
@overwrite_option
@pass_console
def card_command(
    console: Console, folders: tuple[Location, ...], out: Location | None, title: str | None, overwrite: bool
) -> None:
    """Write the dataset card of one or several finished runs, from their shards alone; pictures go beside it."""
    # Imported here because matplotlib takes a moment, which other commands need not wait for.
    from skelfit.exports.dataset_card.write_card import write_card

    if out is None:
        if len(folders) > 1:
            raise click.UsageError("several folders: say with --out where their card goes")
        out = folders[0] / CARD_NAME
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")
    subsets = [read_facts(folder) for folder in folders]
    pictures = write_card(subsets, out, title)[0].parent
    people = sum(subset.rows.rows_out for subset in subsets)
    console.result(f"card of {people} people in {out}, its pictures in {pictures}")
    unnamed = [subset.name for subset in subsets if not subset.origins]
    if unnamed:
        console.say(
            f"no origin and no licence is named for {', '.join(unnamed)}: add `origins` to the manifest"
        )
    console.say(f"next: publish the shards with {out.name} and {pictures.name}/")
    if len(folders) == 1:
        publish = command("publish", folders[0], "hf://datasets/OWNER/NAME")
        console.say(f"  or with tables, too: {publish}")
