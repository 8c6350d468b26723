"""`skelfit export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from skelfit.cli.path_types import FILE, FOLDER, PATH
from skelfit.executors.progress_bars import SHOWN
from skelfit.exports.export_run import export
from skelfit.exports.formats import EXPORTERS
from skelfit.exports.mesh_files import DEFAULT_LIMIT


@click.command("export")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--format",
    type=click.Choice(list(EXPORTERS)),
    required=True,
    help="; ".join(f"{name}: {exporter.summary}" for name, exporter in EXPORTERS.items()) + ".",
)
@click.option("--out", type=PATH, required=True, help="File (skel-cf), else folder.")
@click.option(
    "--models", type=FOLDER, help="opensim, obj, ply: the models of the run  [default: as convert]."
)
@click.option("--key", multiple=True, help="obj, ply: whose meshes; may be given several times.")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"obj, ply: of the first people  [default: {DEFAULT_LIMIT}]."
)
@click.option(
    "--keep",
    type=FILE,
    help="Only the people that this list of verify keeps (CSV).",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier export wrote there.")
def export_command(folder: Path, **options: Any) -> None:
    """Write the people of a finished run in the form that others read."""
    export(folder, **options, progress=SHOWN)
