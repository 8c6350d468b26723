"""`skelfit export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

from typing import Any

import click

from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FOLDER_PLACE, OUT_PLACE
from skelfit.cli.shared_options import (
    FiniteRange,
    keep_option,
    limit_option,
    models_option,
    out_option,
    overwrite_option,
)
from skelfit.exports.export_run import export
from skelfit.exports.formats import EXPORTERS
from skelfit.exports.mesh_files import DEFAULT_LIMIT
from skelfit.storage.locations import Location


@click.command("export")
@click.argument("folder", metavar="DIR", type=FOLDER_PLACE)
@click.option(
    "--format",
    type=click.Choice(list(EXPORTERS)),
    required=True,
    help="; ".join(f"{name}: {exporter.summary}" for name, exporter in EXPORTERS.items()) + ".",
)
@out_option(OUT_PLACE)
@models_option
@click.option(
    "--key",
    multiple=True,
    help="opensim, glb, bvh, obj, ply: these people, one by one; may be given several times.",
)
@limit_option(f"of meshes, {DEFAULT_LIMIT}; opensim: all, by sequence or shard; glb, bvh: all sequences")
@click.option(
    "--frame-rate",
    type=FiniteRange(0, min_open=True),
    help="opensim, glb, bvh: in Hz, of sequences whose labels do not say it  [default: what the fit assumed].",
)
@keep_option
@overwrite_option
@pass_console
def export_command(console: Console, /, folder: Location, **options: Any) -> None:
    """Write the people of a finished run, or for smpl of a prediction, in the form that others read."""
    result = export(folder, **options, progress=console.reporter())
    console.in_short(result.notes[0])
