"""`skelfit export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import click

from skelfit.bodies.model_set import find_models
from skelfit.cli.path_types import FILE, FOLDER, PATH
from skelfit.cli.progress_bars import Progress
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.formats import EXPORTERS
from skelfit.exports.mesh_files import DEFAULT_LIMIT
from skelfit.shards.finished_run import open_run


@click.command("export")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--format",
    "form",
    type=click.Choice(list(EXPORTERS)),
    required=True,
    help="skel-cf: one label file; hsmr: tars with images; opensim: .mot and .trc; obj, ply: skin and bones.",
)
@click.option("--out", type=PATH, required=True, help="File (skel-cf), else folder.")
@click.option(
    "--models", type=FOLDER, help="opensim, obj, ply: the models of the run  [default: as convert]."
)
@click.option("--key", "keys", multiple=True, help="obj, ply: whose meshes; may be given several times.")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"obj, ply: of the first people  [default: {DEFAULT_LIMIT}]."
)
@click.option(
    "--keep",
    type=FILE,
    help="Only whom this list of verify keeps (CSV).",
)
@click.option("--overwrite", is_flag=True, help="Replace what an earlier export wrote there.")
def export_command(
    folder: Path,
    form: str,
    out: Path,
    models: Path | None,
    keys: tuple[str, ...],
    limit: int | None,
    keep: Path | None,
    overwrite: bool,
) -> None:
    """Write the people of a finished run in the form that others read."""
    exporter = EXPORTERS[form]
    if not exporter.selects_people and (keys or limit is not None):
        raise click.UsageError("--key and --limit choose people for --format obj and ply")
    if keys and limit is not None:
        raise click.UsageError("give either --key or --limit")
    run = open_run(folder)
    if keep is not None:
        run = run.only(keep)
    options = ExportOptions(keys=keys, limit=limit, overwrite=overwrite)
    if exporter.needs_models:
        options = replace(options, models=find_models(models))
        source = options.required_models()
        click.echo(f"models: {source.source} (sha256 {source.sha256[:12]})")
    with Progress(exporter.count(run, options), 0) as progress:
        result = exporter.write(run, out, replace(options, step=progress.update))
    for line in result.notes:
        click.echo(line)
