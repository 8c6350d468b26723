"""`skelfit export`: finished shards to the files of other trainers."""

from __future__ import annotations

from pathlib import Path

import click

from skelfit.export import export_skel_cf


@click.command("export")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@click.option("--format", "form", type=click.Choice(["skel-cf"]), required=True, help="Whose files to write.")
@click.option("--out", type=click.Path(dir_okay=False, path_type=Path), required=True, help="File to write.")
@click.option("--overwrite", is_flag=True, help="Replace the file when it exists.")
def export_command(folder: Path, form: str, out: Path, overwrite: bool) -> None:
    """Write the people of a finished run as a file that another trainer reads."""
    people = export_skel_cf(folder, out, overwrite=overwrite)
    click.echo(f"{people} people in {out} ({form})")
