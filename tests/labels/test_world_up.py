"""Which axis of a world is up: told by the people in it, and turned where y or z is asked for."""

from __future__ import annotations

from math import pi
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from export_fakes import export
from job_fakes import FakeFitter
from label_files import amass, write
from scipy.spatial.transform import Rotation

from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel, root_joint_tables
from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP
from skelfit.cli import main
from skelfit.config.manifest import LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.exports.exporter import ExportOptions
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.label_store import build_store, read_rows, store_info
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.label_folder import read_folder
from skelfit.labels.readers.registry import read_label_file
from skelfit.labels.world_up import rotate_to_up
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_json, read_samples

FRAMES = 40
LIE = [-1.5, 0, 0]  # rad: who stands, laid on the back


def walk(up: str, frames: int = FRAMES, tilt: Any = (0, 0, 0)) -> dict[str, np.ndarray]:
    """Somebody who turns round once at 30 Hz, swaying, arms and legs in motion; `tilt` (rad) of the whole body."""
    t = np.linspace(0, 1, frames)[:, None]
    sway = np.concatenate([0.1 * np.sin(4 * pi * t), 0.08 * np.sin(2 * pi * t + 1)], 1)
    body = Rotation.from_rotvec(tilt) * Rotation.from_euler("y", 2 * pi * t) * Rotation.from_euler("xz", sway)
    place = np.concatenate([np.sin(2 * pi * t), 0.9 + 0 * t, np.cos(2 * pi * t)], 1)
    if up == "z":
        world = Rotation.from_matrix(Y_UP_FROM_Z_UP.T)
        body, place = world * body, world.apply(place)
    pose = np.zeros((frames, 24, 3))
    pose[:, 0] = body.as_rotvec()
    pose[:, 1:3, 0] = 0.4 * np.concatenate([np.sin(4 * pi * t), -np.sin(4 * pi * t)], 1)
    pose[:, 16:18, 2] = [-1.1, 1.1]
    rate = np.array(30.0)
    return amass(frames, joints=24) | {
        "poses": pose.reshape(frames, 72), "trans": place, "mocap_framerate": rate
    }  # fmt: skip


def batch_of(folder: Path, columns: dict[str, Any], **options: Any) -> LabelBatch:
    return read_label_file(
        write(folder / "x.npz", columns), "amass", ReadSettings(options=ReadOptions(**options))
    )


# By value.


@pytest.mark.parametrize("up", ["y", "z"])
def test_people_tell_what_is_up(tmp_path: Path, up: str) -> None:
    for tilt in ([0, 0, 0], [0.6, 0, 0], [0, 0, -0.6]):
        batch = batch_of(tmp_path, walk(up, tilt=tilt))
        assert batch.about.coordinates == f"world_{up}_up"
        assert f"{up} is up: along it people's trunks are above their limbs" in batch.about.notes
    other = "z" if up == "y" else "y"
    given = batch_of(tmp_path, walk(up), labels_up=other).about
    assert given.coordinates == f"world_{other}_up" and not any("is up" in note for note in given.notes)


def bent(motion: dict[str, np.ndarray], pelvis: float, joints: dict[tuple[int, ...], list[float]]) -> None:
    """Turn the pelvis forward by degrees, and set rotations of other joints in degrees."""
    pose = motion["poses"].reshape(FRAMES, 24, 3)
    pose[:, 0] = (Rotation.from_rotvec(pose[:, 0]) * Rotation.from_euler("x", pelvis, True)).as_rotvec()
    for some, turn in joints.items():
        pose[:, some] = np.radians(turn)


@pytest.mark.parametrize("up", ["y", "z"])
@pytest.mark.parametrize("turning", [True, False])
def test_trunks_are_above_limbs_whatever_the_back_does(tmp_path: Path, up: str, turning: bool) -> None:
    """Bent down over straight legs, on a chair, on hands and knees: the trunk's own direction would not tell."""
    flexions: tuple[tuple[float, dict[tuple[int, ...], list[float]]], ...] = (
        (80, {(1, 2): [-80, 0, 0]}),
        (-10, {(1, 2): [-80, 0, 0], (4, 5): [90, 0, 0]}),
        (86, {(1, 2): [-83, 0, 0], (4, 5): [89, 0, 0], (16,): [0, -90, 0], (17,): [0, 90, 0]}),
    )
    for pelvis, joints in flexions:
        motion = walk(up)
        if not turning:
            motion["poses"][:, :3] = motion["poses"][:1, :3]
        bent(motion, pelvis, joints)
        assert (
            f"{up} is up: along it people's trunks are above their limbs"
            in batch_of(tmp_path, motion).about.notes
        )


def test_who_lies_tells_nothing(tmp_path: Path) -> None:
    """AMASS's own is taken then, and said; to turn such labels is refused until an option tells."""
    said = "z is taken to be up, as in AMASS: the people do not tell"
    path = write(tmp_path / "x.npz", walk("y", tilt=LIE))
    assert read_label_file(path, "amass").about.coordinates == "world_z_up"
    assert said in read_label_file(path, "amass").about.notes
    build_store(LabelSource("x.npz"), path, tmp_path / "stores")
    with pytest.raises(LabelError) as caught:
        build_store(LabelSource("x.npz", read=ReadOptions(up="y")), path, tmp_path / "stores")
    text = str(caught.value)
    assert (
        f"{path}: expected trunks above limbs along y or z, for --up y, found their mean direction (" in text
    )
    assert text.endswith("say which is up with --labels-up y or z (read.labels_up in a manifest)")
    told = ReadOptions(up="y", labels_up="y")
    about = store_info(build_store(LabelSource("x.npz", read=told), path, tmp_path / "stores")).about
    assert about.coordinates == "world_y_up" and not any("is up" in note for note in about.notes)


def test_who_stands_upside_down_is_told_that_y_points_down(tmp_path: Path) -> None:
    """As in the coordinates of a camera: --labels-up, which knows y and z alone, would be the wrong advice."""
    motion = walk("y")
    turn = Rotation.from_rotvec([pi, 0, 0])
    motion["poses"][:, :3] = (turn * Rotation.from_rotvec(motion["poses"][:, :3])).as_rotvec()
    path = write(tmp_path / "x.npz", motion)
    do = (
        "along y: if they stand, y points down, as in a camera's coordinates, and no option says so: "
        "turn global orientations and 'trans' by 180 degrees about x first"
    )
    said = "z is taken to be up, as in AMASS, but people's trunks are below their limbs"
    assert f"{said} {do}" in read_label_file(path, "amass").about.notes
    with pytest.raises(LabelError) as caught:
        build_store(LabelSource("x.npz", read=ReadOptions(up="y")), path, tmp_path / "stores")
    assert str(caught.value) == (
        f"{path}: expected trunks above limbs along y or z, for --up y, found them below {do}, or drop --up; "
        "if they lie, say which is up with --labels-up y or z (read.labels_up in a manifest)"
    )


def test_files_that_cannot_be_used_stand_in_no_world(tmp_path: Path) -> None:
    folder = tmp_path / "motions"
    write(folder / "b.npz", walk("y", 6))
    (folder / "a.npz").write_bytes(b"cut")
    files = [folder / "a.npz", folder / "b.npz"]
    stub, whole = read_folder(folder, files, ReadSettings())
    assert stub.about.coordinates == "unknown" and whole.about.coordinates == "world_y_up"
    store = build_store(LabelSource("motions"), folder, tmp_path / "stores")
    assert store_info(store).about.coordinates == "world_y_up"
    assert {read_rows(store, k, k + 1).about.coordinates for k in range(2)} == {"world_y_up"}
    # Given by an option, where nothing else tells.
    write(folder / "b.npz", walk("y", 6, tilt=LIE))
    told = LabelSource("motions", read=ReadOptions(labels_up="y"))
    store = build_store(told, folder, tmp_path / "stores")
    assert store_info(store).about.coordinates == "world_y_up"


def test_rows_that_are_damaged_tell_nothing(tmp_path: Path) -> None:
    motion = walk("y")
    motion["poses"][3:8, 5] = np.nan
    batch = batch_of(tmp_path, motion)
    assert batch.about.coordinates == "world_y_up" and sum(map(bool, batch.bad)) == 5
    assert batch.about.telling == len(batch) - 5
    # Nor do they drown what the others tell.
    write(tmp_path / "motions/a.npz", walk("y", 6))
    for name in "bcd":
        lost = walk("y", 6)
        lost["poses"][:] = np.nan
        write(tmp_path / f"motions/{name}.npz", lost)
    source = LabelSource("motions", read=ReadOptions(up="z"))
    store = build_store(source, tmp_path / "motions", tmp_path / "stores")
    assert store_info(store).about.coordinates == "world_y_up"
    assert batch_of(tmp_path, {k: v[:0] if k in ("poses", "trans") else v for k, v in motion.items()}).about


def test_a_folder_has_one_world_which_all_its_frames_tell(tmp_path: Path) -> None:
    """One who lies along the other axis, first in the folder, does not decide; what each file looks like is said."""
    write(tmp_path / "motions/a.npz", walk("z", 10, tilt=LIE))
    for name in "bcd":
        write(tmp_path / f"motions/{name}.npz", walk("z", 30))
    (tmp_path / "motions/0.npz").write_bytes(b"cut")
    assert batch_of(tmp_path, walk("z", 10, tilt=LIE)).about.coordinates == "world_y_up"
    store = build_store(LabelSource("motions"), tmp_path / "motions", tmp_path / "stores")
    about = store_info(store).about
    assert about.coordinates == "world_z_up"
    assert {note for note in about.notes if "is up" in note} == {
        "z is up: along it people's trunks are above their limbs (3 of 5 files)",
        "y is up: along it people's trunks are above their limbs (1 of 5 files)",
    }
    with pytest.raises(LabelError) as caught:
        build_store(
            LabelSource("motions", read=ReadOptions(up="y")), tmp_path / "motions", tmp_path / "stores"
        )
    assert str(caught.value) == (
        f"{tmp_path / 'motions'}: expected files with the same axis up, for --up y, found y in 1 of them "
        "(the first: a) and z in 3 (the first: b); convert these apart, "
        "or say which is up with --labels-up y or z (read.labels_up in a manifest)"
    )
    told = ReadOptions(up="y", labels_up="z")
    store = build_store(LabelSource("motions", read=told), tmp_path / "motions", tmp_path / "stores")
    assert store_info(store).about.coordinates == "world_z_up"


# The turn.


def skins(models: ModelSet, batch: LabelBatch) -> np.ndarray:
    """SMPL's vertices (N,6890,3) m."""
    smpl = SmplModel(models.smpl_of("female"), dtype=torch.float64)
    part = [torch.tensor(x, dtype=torch.float64) for x in (batch.pose, batch.betas, batch.transl)]
    return smpl.vertices(*part).numpy()


def roots(gender: str, betas: np.ndarray) -> np.ndarray:
    at_rest, moved = root_joint_tables(open_models().smpl_of(gender))
    return at_rest + betas @ moved.T


def test_a_turn_moves_the_whole_body_rigidly(tmp_path: Path, models: ModelSet) -> None:
    motion = walk("z", 8)
    motion["betas"] = np.random.default_rng(0).normal(0, 1.5, (8, 10))
    batch = batch_of(tmp_path, motion)
    batch.keypoints3d[:, :5] = [1, 2, 3, 1]
    batch.bad[2] = "bad"
    rotated = rotate_to_up(batch, "y", roots)
    assert rotated.about.coordinates == "world_y_up" and rotate_to_up(rotated, "y", roots) is rotated
    good = [i for i in range(8) if i != 2]
    expected = skins(models, batch) @ Y_UP_FROM_Z_UP.T
    np.testing.assert_allclose(skins(models, rotated)[good], expected[good], rtol=0, atol=1e-6)
    assert (rotated.pose[2] == batch.pose[2]).all() and (rotated.transl[2] == batch.transl[2]).all()
    assert (rotated.pose[:, 1:] == batch.pose[:, 1:]).all() and (
        rotated.keypoints3d[:, 0] == [1, 3, -2, 1]
    ).all()
    height = skins(models, rotated)[good][..., 1]
    assert np.ptp(height, axis=1).min() > 1.4 and np.ptp(height, axis=1).max() < 2.0
    back = rotate_to_up(rotated, "z", roots)
    assert back.about == batch.about
    np.testing.assert_allclose(back.transl, batch.transl, atol=1e-6)
    away = Rotation.from_rotvec(back.pose[:, 0]) * Rotation.from_rotvec(batch.pose[:, 0]).inv()
    assert away.magnitude().max() < 1e-6


def test_roots_are_those_of_the_model(models: ModelSet) -> None:
    betas = np.random.default_rng(1).normal(0, 2, (5, 10))
    model = SmplModel(models.smpl_of("neutral"), dtype=torch.float64)
    np.testing.assert_allclose(roots("neutral", betas), model.root_joint(torch.tensor(betas)), atol=1e-12)


# The command line.


def convert(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["convert", *map(str, arguments), "--workers", "0"])


def labels_in(folder: Path) -> tuple[dict[str, np.ndarray], list[dict[str, Any]]]:
    (tar,) = folder.glob("*.tar")
    _, labels, metas = zip(*read_samples(tar), strict=True)
    return unpack(np.array(labels)), list(metas)


def test_shards_with_y_up(tmp_path: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same people, turned: no body angle changes, the pelvis leaves its pole, OpenSim's files stay the same."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    write(Path("walk.npz"), walk("z"))
    assert convert("--labels", "walk.npz", "--out", "z").exit_code == 0
    result = convert("--labels", "walk.npz", "--out", "y", "--up", "y")
    assert result.exit_code == 0, result.output
    assert "  coordinates of the labels: world_z_up; y is up in the shards" in result.output.splitlines()
    assert result.output.count("is up in the shards") == 1
    (one, metas), (two, turned_metas) = labels_in(Path("z")), labels_in(Path("y"))
    assert len(metas) == len(turned_metas) == FRAMES
    assert {m["coordinates"] for m in metas} == {"world_z_up"}
    assert {m["coordinates"] for m in turned_metas} == {"world_y_up"}
    body = slice(3, 46)
    assert (one["skel_poses"][:, body] == two["skel_poses"][:, body]).all()
    assert (one["smpl_pose"][:, 1:] == two["smpl_pose"][:, 1:]).all()
    steps = [np.abs(np.diff(x["skel_poses"][:, :3], axis=0)).max() for x in (one, two)]
    assert steps[0] > 0.5 and steps[1] < 0.2, "z up passes the pole, y up does not"
    model = SkelModel(models.skel_of("female"), dtype=torch.float64)
    skin = []
    for x in (one, two):
        betas, q, trans = (torch.tensor(x[f"skel_{n}"]).double() for n in ("betas", "poses", "trans"))
        skin.append(model.forward(model.shape(betas), q, trans).vertices.numpy())
    np.testing.assert_allclose(skin[1], skin[0] @ Y_UP_FROM_Z_UP.T, rtol=0, atol=2e-6)
    points = [x["keypoints3d"][..., :3] for x in (one, two)]
    np.testing.assert_allclose(points[1], points[0] @ Y_UP_FROM_Z_UP.T, rtol=0, atol=2e-6)
    for name in ("y", "z"):
        export("opensim", Path(name), Path(f"mot-{name}"), ExportOptions(models))
    tables = []
    for name in ("y", "z"):
        lines = Path(f"mot-{name}/walk.mot").read_text().splitlines()
        tables.append(np.loadtxt(lines[lines.index("endheader") + 2 :]))
    np.testing.assert_allclose(tables[0], tables[1], rtol=0, atol=1e-4)  # degrees, of numbers kept in float32
    assert read_json(Path("y/summary.json"))["identity"]["labels"][0]["read"]["up"] == "y"
    again = convert("--labels", "walk.npz", "--out", "y")
    assert again.exit_code != 0 and "another configuration" in again.output and "read.up" in again.output


def test_a_manifest_says_what_is_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    write(Path("data/a.npz"), walk("y"))
    Path("m.yaml").write_text("name: m\nlabels:\n  - path: a.npz\n    read: {up: z}\n")
    assert convert("--manifest", "m.yaml", "--out", "out").exit_code == 0
    fields, metas = labels_in(Path("out"))
    assert {m["coordinates"] for m in metas} == {"world_z_up"}
    np.testing.assert_allclose(fields["smpl_trans"][:, 2].mean(), 0.9, atol=0.5)
    result = convert("--manifest", "m.yaml", "--out", "out", "--up", "y")
    assert result.exit_code == 2
    assert "--up: expected none with a manifest, which says how to read its labels" in result.output
