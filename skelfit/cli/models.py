"""`skelfit models`: body-model files to assets."""

from __future__ import annotations

from pathlib import Path

import click

from skelfit.bodies.joint_regressor import import_joints
from skelfit.bodies.keypoint_regressor import import_keypoints
from skelfit.bodies.model_set import KEYPOINTS_NAME, open_models, refuse_existing, save_models
from skelfit.bodies.official_files import import_models
from skelfit.bodies.open_body import open_body_models, write_official
from skelfit.bodies.regressor_files import RegressorRecord
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FILE, FOLDER
from skelfit.cli.shared_options import out_option, overwrite_option


@click.group("models")
def models_group() -> None:
    """Body models: import the official files, or write the open body."""


@models_group.command("import")
@click.option("--smpl", type=FOLDER, help="Folder with SMPL_{NEUTRAL,MALE,FEMALE}.pkl or .npz.")
@click.option("--skel", type=FOLDER, help="Folder with skel_{male,female}.pkl, v1.1.1.")
@click.option(
    "--keypoints", type=FILE, help="Regressor of 44 keypoints, or of the 19 extra: .npy, .npz, .pkl."
)
@click.option(
    "--joints",
    type=FILE,
    multiple=True,
    help="Regressor of 17 or 24 joints, for evaluate: J_regressor_h36m.npy, J_regressor_SMPL_MALE.pkl; repeatable.",
)
@out_option(FOLDER)
@overwrite_option
@pass_console
def import_command(
    console: Console,
    smpl: Path | None,
    skel: Path | None,
    keypoints: Path | None,
    joints: tuple[Path, ...],
    out: Path,
    overwrite: bool,
) -> None:
    """Convert official SMPL and SKEL files, and regressors, to assets that need no unpickling."""
    if smpl is not None or skel is not None or (keypoints is None and not joints):
        _import_bodies(console, smpl, skel, out, overwrite)
    if keypoints is not None:
        _say_regressor(console, "keypoints", import_keypoints(keypoints, out, overwrite=overwrite))
    elif not (out / KEYPOINTS_NAME).exists():
        console.say(
            "no keypoint regressor: labels without 3D keypoints stay without; --keypoints FILE adds one"
        )
    for file in joints:
        _say_regressor(console, "joints", import_joints(file, out, overwrite=overwrite))
    _say_next(console, out)


def _say_regressor(console: Console, kind: str, record: RegressorRecord) -> None:
    console.say(f"{kind}: {record.source}")
    console.say(f"  source sha256 {record.source_sha256}")
    console.say(f"  {record.asset}")
    for note in record.notes:
        console.say(f"  note: {note}")


def _say_next(console: Console, out: Path) -> None:
    console.say(f"next: name them with --models {out}, or once and for all: export SKELFIT_MODELS={out}")


def _import_bodies(
    console: Console, smpl: Path | None, skel: Path | None, out: Path, overwrite: bool
) -> None:
    for record in import_models(smpl, skel, out, overwrite=overwrite):
        console.say(f"{record.kind} {record.gender}, version {record.version}: {record.source}")
        console.say(f"  source sha256 {record.source_sha256}")
        console.say(f"  {record.asset}")
        for note in record.notes:
            console.say(f"  note: {note}")


@models_group.command("open-body")
@out_option(FOLDER)
@click.option("--official", is_flag=True, help="Write files in the official SMPL and SKEL v1.1.1 schemas.")
@overwrite_option
@pass_console
def open_body_command(console: Console, out: Path, official: bool, overwrite: bool) -> None:
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
        console.say(path)
    if official:
        console.say(f"next: skelfit models import --smpl {out} --skel {out} --out models")
    else:
        _say_next(console, out)
