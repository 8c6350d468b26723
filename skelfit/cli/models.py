"""`skelfit models`: body-model files to assets."""

from __future__ import annotations

from pathlib import Path

import click

from skelfit.bodies.keypoint_regressor import import_keypoints
from skelfit.bodies.model_set import KEYPOINTS_NAME, open_models, refuse_existing, save_models
from skelfit.bodies.official_files import import_models
from skelfit.bodies.open_body import open_body_models, write_official
from skelfit.cli.path_types import FILE, FOLDER


@click.group("models")
def models_group() -> None:
    """Body models: import the official files, or write the open body."""


@models_group.command("import")
@click.option("--smpl", type=FOLDER, help="Folder with SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz.")
@click.option("--skel", type=FOLDER, help="Folder with skel_{male,female}.pkl, v1.1.1.")
@click.option(
    "--keypoints", type=FILE, help="Regressor of 44 keypoints, or of the 19 extra: .npy, .npz, .pkl."
)
@click.option("--out", type=FOLDER, required=True, help="Folder for the assets.")
@click.option("--overwrite", is_flag=True, help="Replace assets that exist.")
def import_command(
    smpl: Path | None, skel: Path | None, keypoints: Path | None, out: Path, overwrite: bool
) -> None:
    """Convert official SMPL and SKEL files, and a keypoint regressor, to assets that need no unpickling."""
    if smpl is not None or skel is not None or keypoints is None:
        _import_bodies(smpl, skel, out, overwrite)
    if keypoints is not None:
        found = import_keypoints(keypoints, out, overwrite=overwrite)
        click.echo(f"keypoints: {found.source}")
        click.echo(f"  source sha256 {found.source_sha256}")
        click.echo(f"  {found.asset}")
        for note in found.notes:
            click.echo(f"  note: {note}")
    elif not (out / KEYPOINTS_NAME).exists():
        click.echo(
            "no keypoint regressor: labels without 3D keypoints stay without; --keypoints FILE adds one"
        )
    _say_next(out)


def _say_next(out: Path) -> None:
    click.echo(f"next: name them with --models {out}, or once and for all: export SKELFIT_MODELS={out}")


def _import_bodies(smpl: Path | None, skel: Path | None, out: Path, overwrite: bool) -> None:
    for record in import_models(smpl, skel, out, overwrite=overwrite):
        click.echo(f"{record.kind} {record.gender}, version {record.version}: {record.source}")
        click.echo(f"  source sha256 {record.source_sha256}")
        click.echo(f"  {record.asset}")
        for note in record.notes:
            click.echo(f"  note: {note}")


@models_group.command("open-body")
@click.option("--out", type=FOLDER, required=True, help="Folder for the files.")
@click.option("--official", is_flag=True, help="Write files in the official SMPL and SKEL v1.1.1 schemas.")
@click.option("--overwrite", is_flag=True, help="Replace files that exist.")
def open_body_command(out: Path, official: bool, overwrite: bool) -> None:
    """Write the open body that skelfit ships; it has SMPL's sizes, and is not SMPL."""
    if official:
        raw = open_body_models()
        kinds = [name.split("_") for name in raw]
        names = [f"SMPL_{g.upper()}.pkl" if kind == "smpl" else f"skel_{g}.pkl" for kind, g in kinds]
        refuse_existing([out / name for name in names], overwrite)
        paths = write_official(raw, out)
    else:
        paths = save_models(open_models(), out, overwrite=overwrite)
    for path in paths:
        click.echo(path)
    if official:
        click.echo(f"next: skelfit models import --smpl {out} --skel {out} --out models")
    else:
        _say_next(out)
