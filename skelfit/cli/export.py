"""`skelfit export`: finished shards to the files of other trainers, of viewers and of OpenSim."""

from __future__ import annotations

from pathlib import Path

import click

from skelfit.bodies.model_set import find_models
from skelfit.cli.path_types import FILE, FOLDER, PATH
from skelfit.cli.progress_bars import Progress
from skelfit.exports.hsmr import export_hsmr
from skelfit.exports.opensim import export_opensim
from skelfit.exports.skel_cf import export_skel_cf
from skelfit.shards.finished_run import FinishedRun, Step, open_run

MESHES = 10  # people whose meshes are written when nobody says whose: two files of 1 MB each


@click.command("export")
@click.argument("folder", metavar="DIR", type=FOLDER)
@click.option(
    "--format",
    "form",
    type=click.Choice(["skel-cf", "hsmr", "opensim", "obj", "ply"]),
    required=True,
    help="skel-cf: one label file; hsmr: tars with images; opensim: .mot and .trc; obj, ply: skin and bones.",
)
@click.option("--out", type=PATH, required=True, help="File (skel-cf), else folder.")
@click.option(
    "--models", type=FOLDER, help="opensim, obj, ply: the models of the run  [default: as convert]."
)
@click.option("--key", "keys", multiple=True, help="obj, ply: whose meshes; may be given several times.")
@click.option(
    "--limit", type=click.IntRange(min=1), help=f"obj, ply: of the first people  [default: {MESHES}]."
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
    if form not in ("obj", "ply") and (keys or limit is not None):
        raise click.UsageError("--key and --limit choose people for --format obj and ply")
    if keys and limit is not None:
        raise click.UsageError("give either --key or --limit")
    run = open_run(folder)
    if keep is not None:
        run = run.only(keep)
    total = (
        run.rows_out if form not in ("obj", "ply") else len(set(keys)) or min(limit or MESHES, run.rows_out)
    )
    with Progress(total, 0) as progress:
        lines = _export(run, form, out, models, keys, limit, overwrite, progress.update)
    for line in lines:
        click.echo(line)


def _export(
    run: FinishedRun,
    form: str,
    out: Path,
    models: Path | None,
    keys: tuple[str, ...],
    limit: int | None,
    overwrite: bool,
    step: Step,
) -> list[str]:
    """Do it; returns what to tell: where the result is, and what to do with it."""
    if form == "skel-cf":
        people = export_skel_cf(run, out, overwrite=overwrite, step=step)
        return [
            f"{people} people in {out} ({form})",
            "next: give it to SKEL-CF's trainer as X-release-skel.npz",
        ]
    if form == "hsmr":
        people, left_out = export_hsmr(run, out, overwrite=overwrite, step=step)
        lines = [f"{people} people in {out} ({form})"]
        if left_out:
            lines.append(f"{left_out} people are left out: they have no image that HSMR's loader takes")
        return [*lines, f"next: name the tars in HSMR's dataset configuration: urls: {out}/{{000000..N}}.tar"]
    found = find_models(models)
    click.echo(f"models: {found.source} (sha256 {found.sha256[:12]})")
    if form == "opensim":
        motions = export_opensim(run, out, found, overwrite=overwrite, step=step)
        return [
            f"{run.rows_out} people in {motions} motions in {out} (.mot, .trc; .csv says who is which row)",
            "next: plot a .mot, or scale a model with markers of your own to a .trc (docs/opensim.md);",
            "  no OpenSim model has SKEL's coordinates, so none plays a .mot",
        ]
    # Imported here because trimesh takes a moment, which other commands need not wait for.
    from skelfit.exports.mesh_files import export_meshes

    count = None if keys else limit or MESHES
    people = export_meshes(run, out, found, form, keys=keys, limit=count, overwrite=overwrite, step=step)
    lines = [f"skin and bones of {people} people in {out} (.{form}, metres, y up)"]
    if not keys and limit is None and people < run.rows_out:
        lines.append(f"these are the first of {run.rows_out}; others with --limit N or --key KEY")
    return [*lines, "next: open a skin and its bones together, in Blender or MeshLab, say"]
