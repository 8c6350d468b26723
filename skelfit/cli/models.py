"""`skelfit models`: body-model files to assets."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from skelfit.bodies.joint_regressor import import_joints
from skelfit.bodies.keypoint_regressor import import_keypoints
from skelfit.bodies.model_set import KEYPOINTS_NAME, find_models, open_models, refuse_existing, save_models
from skelfit.bodies.official_files import import_models
from skelfit.bodies.open_body import open_body_models, write_official
from skelfit.bodies.regressor_files import RegressorRecord
from skelfit.bodies.vertex_maps import build_vertex_map, save_vertex_map
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FILE, FOLDER
from skelfit.cli.shared_options import models_option, out_option, overwrite_option
from skelfit.errors import ModelError
from skelfit.storage.command_lines import next_command
from skelfit.storage.locations import Place
from skelfit.storage.surface_files import read_surface

_WORTH_A_LOOK = 0.02  # m, of the mean distance of two meshes


@click.group("models")
def models_group() -> None:
    """Body models: import the official files, write the open body, or map another body to SMPL."""


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
    folder = shlex.quote(str(out))
    console.say(
        f"next: name them with --models {folder}, or once and for all: export SKELFIT_MODELS={folder}"
    )


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
        console.say(next_command("models", "import", "--smpl", out, "--skel", out, "--out", "models"))
    else:
        _say_next(console, out)


@models_group.command("map")
@click.argument("source", type=FILE)
@click.option("--target", type=FILE, help="SMPL's mesh in the same pose  [default: SMPL's mean body].")
@models_option
@out_option(FILE)
@overwrite_option
@pass_console
def map_command(
    console: Console, source: Path, target: Path | None, models: Place | None, out: Path, overwrite: bool
) -> None:
    """Map a body of another topology to SMPL: SOURCE is its mesh, in the pose of SMPL's.

    The map finds SMPL's vertices on any mesh of that topology. Give it as --vertex-map to skelfit convert.
    """
    refuse_existing([out], overwrite)
    vertices, faces = read_surface(source, ModelError)
    if target is None:
        body = find_models(models).smpl_of("neutral")
        skin, triangles = body.v_template.astype("f8"), body.faces.astype("i8")
    else:
        skin, triangles = read_surface(target, ModelError)
    try:
        vertex_map, report = build_vertex_map(vertices, faces, skin, triangles)
    except ValueError as error:
        raise ModelError(source, None, "a mesh of a body in the pose of SMPL's", str(error)) from None
    save_vertex_map(vertex_map, out)
    x, y, z = report.moved.tolist()
    console.say(
        f"{source}: {len(vertices)} vertices, in {report.unit}, moved by ({x:.3f}, {y:.3f}, {z:.3f}) m"
    )
    console.say(report.line())
    if (near := report.distance.mean()) > _WORTH_A_LOOK:
        console.say(f"warning: {1000 * near:.0f} mm apart on average; are both meshes in the same pose?")
    console.say(out)
    console.say(next_command("convert", "--labels", "MESHES", "--vertex-map", out, "--out", "shards/NAME"))
