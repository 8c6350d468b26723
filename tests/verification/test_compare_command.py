"""`skelfit compare`: planted differences of known size, and what cannot be compared."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from export_fakes import Fields, export, make_fields, make_metas, write_run
from PIL import Image
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import DOF_NAMES, dof_limits
from skelfit.bodies.model_set import ModelSet, open_models
from skelfit.bodies.skel import SkelModel
from skelfit.cli import main
from skelfit.errors import LabelError
from skelfit.verification.comparison import compare_run as run_module
from skelfit.verification.comparison.skel_labels import read_skel_labels

PEOPLE = 20
BAD_PERSON = 13


@pytest.fixture(scope="module")
def fields() -> Fields:
    people = make_fields(PEOPLE)
    people["smpl_pose"] *= 0.2
    return people


@pytest.fixture(scope="module")
def made(fields: Fields, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run in whose first image are three people, and its export beside it."""
    folder = tmp_path_factory.mktemp("compare")
    names = ["a/0.jpg"] * 3 + [f"a/{i}.jpg" for i in range(3, PEOPLE)]
    metas = make_metas(PEOPLE, imgname=names)
    write_run(folder / "run", fields, metas, models_sha256=open_models().sha256)
    export("skel-cf", folder / "run", folder / "same.npz")
    return folder


def read(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return dict(archive)


def write(path: Path, columns: Mapping[str, np.ndarray]) -> Path:
    arrays: dict[str, Any] = dict(columns)
    np.savez(path, **arrays)
    return path


def invoke(made: Path, file: Path, *args: object) -> Result:
    return CliRunner().invoke(main, ["compare", str(made / "run"), str(file), *map(str, args)])


def report(made: Path, file: Path, tmp_path: Path, *args: object) -> Any:
    result = invoke(made, file, "--json", tmp_path / "report.json", *args)
    assert result.exit_code == 0, result.output
    return json.loads((tmp_path / "report.json").read_text())


def test_an_export_does_not_differ_from_its_shards(made: Path, tmp_path: Path) -> None:
    result = invoke(made, made / "same.npz", "--json", tmp_path / "r.json", "--picture", tmp_path / "p.jpg")
    assert result.exit_code == 0, result.output
    compared = json.loads((tmp_path / "r.json").read_text())
    assert compared["compared"] == PEOPLE and compared["shards"]["matched"]["center"] == PEOPLE
    assert sum(compared["shards"]["unmatched"].values()) == compared["file"]["unmatched_rows"] == 0
    for name in ("angles_deg", "turns_deg", "skin_mm", "joints_mm"):
        for key, spread in compared[name].items():
            assert spread["people"] == PEOPLE and spread["max"] == spread["mean"] == 0, (name, key)
    assert all(b["max"] == 0 and b["people"] == PEOPLE for b in compared["betas"]["difference"])
    assert compared["to_label_mm"]["shards"] == compared["to_label_mm"]["file"]
    assert compared["to_label_mm"]["file"]["mean"] > 1
    for shares in (compared["beyond_limits"]["any"], *compared["beyond_limits"]["dofs"].values()):
        assert shares["shards"] == shares["file"]
    assert compared["worst"] == [] and not (tmp_path / "p.jpg").exists()
    assert "next: nothing" in result.output and "  all: no difference" in result.output


def test_planted_differences_are_measured(
    made: Path, fields: Fields, tmp_path: Path, models: ModelSet
) -> None:
    """One knee by 30 degrees, all people by 5 cm, a beta of all people by 1."""
    columns = read(made / "same.npz")
    knee, person = DOF_NAMES.index("knee_angle_r"), 4
    columns["skel_poses"][person, knee] += np.radians(30)
    columns["skel_poses"][7, knee] += 2 * np.pi  # no difference
    columns["skel_trans"][:, 0] += 0.05
    columns["skel_betas"][:, 3] -= 1
    compared = report(made, write(tmp_path / "other.npz", columns), tmp_path)
    angle = compared["angles_deg"]["knee_angle_r"]
    assert angle["max"] == pytest.approx(30, abs=1e-3) and angle["mean"] == pytest.approx(
        30 / PEOPLE, abs=1e-3
    )
    assert angle["bias"] == pytest.approx(30 / PEOPLE, abs=1e-3) and angle["p50"] == 0
    assert compared["turns_deg"]["tibia_r"]["max"] == pytest.approx(30, abs=1e-3)
    assert compared["turns_deg"]["tibia_l"]["max"] == 0 == compared["angles_deg"]["hip_flexion_r"]["max"]
    assert [b["mean"] for b in compared["betas"]["difference"]] == pytest.approx(
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0], abs=1e-5
    )
    worst = {case["key"]: case for case in compared["worst"]}[f"people-0-{person:08d}"]
    assert worst["turned_joint"] == "tibia_r" and worst["turned_deg"] == pytest.approx(30, abs=1e-3)
    skins, joints = [], []
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    for side in (fields, columns):
        betas, q = (
            torch.tensor(side[k][person : person + 1], dtype=torch.float64)
            for k in ("skel_betas", "skel_poses")
        )
        skins.append(
            model.forward(model.shape(betas), q, torch.zeros(1, 3, dtype=torch.float64)).vertices[0].numpy()
        )
        joints.append(model.joints(model.frames(betas), q).pos[0].numpy())
    moved = skins[1] - skins[0] + [0.05, 0, 0]
    rooted = (skins[1] - joints[1][0]) - (skins[0] - joints[0][0])
    aligned = (joints[1] - joints[1][0]) - (joints[0] - joints[0][0])
    expected = [1000 * np.linalg.norm(x, axis=-1).mean() for x in (moved, rooted, aligned)]
    assert worst["skin_mm"]["as_they_stand"] == pytest.approx(expected[0], abs=2e-3)
    assert worst["skin_mm"]["roots_together"] == pytest.approx(expected[1], abs=2e-3)
    assert worst["joints_mm"]["roots_together"] == pytest.approx(expected[2], abs=2e-3)
    assert worst["joints_mm"]["similarity_aligned"] > 1
    assert [case["skin_mm"]["roots_together"] for case in compared["worst"]] == sorted(
        (case["skin_mm"]["roots_together"] for case in compared["worst"]), reverse=True
    )


def test_limits_of_either_side(made: Path, tmp_path: Path) -> None:
    columns = read(made / "same.npz")
    elbow = DOF_NAMES.index("elbow_flexion_l")
    columns["skel_poses"][:5, elbow] = dof_limits()[elbow, 1] + np.radians(12)
    beyond = report(made, write(tmp_path / "elbow.npz", columns), tmp_path)["beyond_limits"]
    assert beyond["deg"] == [5, 10, 20, 30]
    assert beyond["dofs"]["elbow_flexion_l"] == {"shards": [0, 0, 0, 0], "file": [0.25, 0.25, 0, 0]}
    assert beyond["any"]["file"][1] == 0.25 and beyond["any"]["shards"] == [0, 0, 0, 0]


def test_joints_are_compared_as_rotations(made: Path, fields: Fields, tmp_path: Path) -> None:
    """The other triple of a hip's angles is the same rotation; a turn of the pelvis is one whatever its angles."""
    columns = read(made / "same.npz")
    hip = [DOF_NAMES.index(f"hip_{n}_r") for n in ("flexion", "adduction", "rotation")]
    a, b, c = columns["skel_poses"][:, hip].T
    columns["skel_poses"][:, hip] = np.stack([a + np.pi, np.pi - b, c + np.pi], 1)
    root = columns["skel_poses"][:, :3].astype(np.float64)  # about z, then x, then y
    turned = Rotation.from_euler("zxy", root) * Rotation.from_rotvec([0, 0, 0])
    columns["skel_poses"][:, :3] = (Rotation.from_rotvec([0, 0.5, 0]) * turned).as_euler("zxy")
    compared = report(made, write(tmp_path / "branches.npz", columns), tmp_path)
    assert (
        compared["turns_deg"]["femur_r"]["max"] < 1e-3
        and compared["angles_deg"]["hip_flexion_r"]["mean"] > 90
    )
    assert compared["turns_deg"]["pelvis"]["p50"] == pytest.approx(np.degrees(0.5), abs=0.02)
    assert (
        compared["joints_mm"]["similarity_aligned"]["max"]
        < 0.01
        < compared["joints_mm"]["roots_together"]["mean"]
    )


def test_a_file_with_the_keys_of_skel_cf_only(made: Path, tmp_path: Path) -> None:
    """No translations, no genders: what depends on them is left out; the betas are read as male."""
    columns = {
        k: v for k, v in read(made / "same.npz").items() if k in ("imgname", "center", "scale", "skel_poses")
    }
    columns["skel_betas"] = read(made / "same.npz")["skel_betas"]
    file = write(tmp_path / "theirs.npz", columns)
    compared = report(made, file, tmp_path)
    females = sum(i % 3 == 0 for i in range(PEOPLE))
    assert (
        compared["file"]["skel_genders"] == {"male": PEOPLE, "female": 0}
        and not compared["file"]["says_gender"]
    )
    assert compared["betas"]["people"] == PEOPLE - females
    assert (
        compared["skin_mm"]["as_they_stand"]["people"]
        == 0
        == compared["joints_mm"]["as_they_stand"]["people"]
    )
    assert compared["skin_mm"]["roots_together"]["people"] == PEOPLE
    assert (
        compared["skin_mm"]["roots_together"]["max"] > 1
        and compared["angles_deg"]["knee_angle_l"]["max"] == 0
    )
    lines = invoke(made, file).output
    assert "which it does not say; it does not say where people are (no skel_trans)" in lines
    assert "--picture worst.jpg" in lines and "next: skelfit view" in lines
    other = report(made, file, tmp_path, "--gender", "female")
    assert other["file"]["skel_genders"]["female"] == PEOPLE and other["betas"]["people"] == females


def test_bad_rows_are_counted_and_left_out(made: Path, fields: Fields, tmp_path: Path) -> None:
    """On both sides; and the file's rows in another order, with strangers among them."""
    broken = {name: part.copy() for name, part in fields.items()}
    broken["skel_poses"][BAD_PERSON, 5] = np.nan
    names = [f"a/{i}.jpg" for i in range(PEOPLE)]
    write_run(tmp_path / "run", broken, make_metas(PEOPLE, imgname=names), models_sha256=open_models().sha256)
    columns = read(made / "same.npz")
    columns["imgname"] = np.array(names)
    columns["skel_betas"][2, 0] = np.inf
    columns["skel_poses"][3, 0] = np.nan
    columns["skel_gender"][4] = "neutral"
    columns["imgname"][5] = "b/5.jpg"
    order = np.random.default_rng(0).permutation(PEOPLE)
    file = write(tmp_path / "bad.npz", {key: value[order] for key, value in columns.items()})
    compared = report(tmp_path, file, tmp_path)
    assert (compared["shards"]["bad"], compared["file"]["bad"], compared["compared"]) == (1, 3, PEOPLE - 5)
    assert compared["shards"]["unmatched"] == {
        "no_image": 1, "no_frame": 0, "no_person": 0, "no_center": 0, "ambiguous": 0
    }  # fmt: skip
    assert compared["shards"]["example"] == "the image 'a/5.jpg'" and compared["file"]["unmatched_rows"] == 1
    assert compared["skin_mm"]["as_they_stand"]["max"] == 0
    lines = invoke(tmp_path, file).output
    assert "not compared: 1 people with numbers that are not finite" in lines
    assert "not compared: 3 rows of the file with numbers that are not finite" in lines


def test_figures_do_not_depend_on_batches(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = read(made / "same.npz")
    columns["skel_poses"][:, 3:] += np.random.default_rng(0).normal(0, 0.1, (PEOPLE, 43)).astype(np.float32)
    file = write(tmp_path / "other.npz", columns)
    whole = report(made, file, tmp_path)
    monkeypatch.setattr(run_module, "BATCH", 3)
    monkeypatch.setattr(run_module, "_BATCHES_PER_UPDATE", 2)
    assert report(made, file, tmp_path) == whole
    assert len(whole["worst"]) == 12


def test_the_picture_shows_both_sides(made: Path, tmp_path: Path) -> None:
    """Blue and orange bodies, and both overlaid: grey where they cover each other."""
    columns = read(made / "same.npz")
    columns["skel_poses"][:3, DOF_NAMES.index("shoulder_r_x")] += 0.5
    result = invoke(made, write(tmp_path / "other.npz", columns), "--picture", tmp_path / "p.jpg")
    assert result.exit_code == 0 and "the 3 people who differ most" in result.output
    with Image.open(tmp_path / "p.jpg") as opened:
        picture = np.asarray(opened.convert("RGB"), np.float64)
    assert picture.shape == (2 * 270, 2 * 3 * 240, 3)
    squares = [picture[30:270, k * 240 : (k + 1) * 240] for k in range(3)]
    covered = [(s.min(-1) < 225).mean() for s in squares]
    assert covered[0] > 0.03 and covered[1] > 0.03 and covered[2] >= 0.98 * max(covered[:2])
    tint = [(s[..., 2] - s[..., 0])[s.min(-1) < 225].mean() for s in squares]
    assert tint[0] > 20 and tint[1] < -20 and tint[1] < tint[2] < tint[0]
    assert (picture[270:, 720:] > 250).all()  # three people leave one tile empty


@pytest.mark.parametrize(
    ("change", "args", "message"),
    [
        ({"skel_poses": None}, (), "'skel_poses': expected numbers of shape (N, 46), found no such key"),
        (
            {"skel_poses": np.zeros((PEOPLE, 72))},
            (),
            "'skel_poses': expected numbers of shape (N, 46), found shape",
        ),
        (
            {"skel_betas": np.zeros((3, 10))},
            (),
            "'skel_betas': expected 20 rows, as many as 'skel_poses' has, found 3",
        ),
        ({"imgname": None}, (), "'imgname': expected text of shape (N), found no such key"),
        (
            {"imgname": np.array([{}] * PEOPLE)},
            (),
            "'imgname': expected text of shape (N), found an object array",
        ),
        (
            {"skel_poses": np.full((PEOPLE, 46), 60.0)},
            (),
            "expected angles in radians, found angles up to 60 in half",
        ),
        ({"skel_poses": np.full((PEOPLE, 46), np.nan)}, (), "expected a row of finite numbers, found none"),
        (
            {},
            ("--gender", "male"),
            "expected no such key, for --gender male, found whose betas each row has; drop --gender",
        ),
        ({}, ("--json", "gone/r.json"), "gone/r.json: cannot be written: no such folder"),
    ],
)
def test_what_cannot_be_compared_is_one_line(
    made: Path, tmp_path: Path, change: dict[str, Any], args: tuple[str, ...], message: str
) -> None:
    columns = {k: v for k, v in (read(made / "same.npz") | change).items() if v is not None}
    result = invoke(made, write(tmp_path / "bad.npz", columns), *args)
    assert result.exit_code == 2 and message in result.output and len(result.output.splitlines()) == 1, (
        result.output
    )


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


def test_nothing_is_unpickled(made: Path, tmp_path: Path) -> None:
    trap = Trap(tmp_path / "sprung")
    (tmp_path / "people.pkl").write_bytes(pickle.dumps(trap))
    with pytest.raises(LabelError, match="expected an .npz file, such as SKEL-CF's"):
        read_skel_labels(tmp_path / "people.pkl", None)
    columns = read(made / "same.npz") | {"skel_betas": np.array([trap] * PEOPLE, object)}
    with pytest.raises(LabelError, match="'skel_betas'.*an object array"):
        read_skel_labels(write(tmp_path / "trap.npz", columns), None)
    assert not (tmp_path / "sprung").exists()


def test_other_models_are_refused(made: Path, tmp_path: Path, fields: Fields) -> None:
    write_run(tmp_path / "run", fields, make_metas(PEOPLE), models_sha256="1" * 64)
    result = invoke(tmp_path, made / "same.npz")
    assert result.exit_code == 2 and "expected the models of the run, 1111" in result.output


# Motion capture, from one end to the other.


def motion(folder: Path, fields: Fields, n: int = 6, **changes: Any) -> Path:
    """A run of a sequence without images, and its export `frames.npz` beside it."""
    about = {"sequence": "walk", "subject": "ann", "frame_rate": 30.0, "coordinates": "world_z_up"} | changes
    columns = {name: [value] * n for name, value in about.items()} | {"frame": [10 + i for i in range(n)]}
    metas = make_metas(n, imgname=[""] * n, **columns)
    first = {name: part[:n] for name, part in fields.items()}
    write_run(folder / "run", first, metas, models_sha256=open_models().sha256)
    export("skel-cf", folder / "run", folder / "frames.npz")
    return folder


def test_exports_hold_what_identifies_frames(fields: Fields, made: Path, tmp_path: Path) -> None:
    columns = read(motion(tmp_path, fields) / "frames.npz")
    assert columns["frame"].tolist() == list(range(10, 16)) and columns["frame"].dtype == np.int64
    for key, value in (("sequence", "walk"), ("subject", "ann"), ("label_file", "people.npz")):
        assert columns[key].tolist() == [value] * 6
    assert columns["coordinates"].tolist() == ["world_z_up"] * 6
    whole = report(tmp_path, tmp_path / "frames.npz", tmp_path)
    assert whole["compared"] == 6 and whole["shards"]["matched"]["frame"] == 6
    # A part of them, as --keep gives it.
    part = write(tmp_path / "part.npz", {k: v[2:4] for k, v in columns.items()})
    compared = report(tmp_path, part, tmp_path)
    assert compared["compared"] == 2 and compared["shards"]["unmatched"]["no_frame"] == 4
    # Images identify people by themselves.
    assert not {"label_file", "sequence", "subject", "frame"} & read(made / "same.npz").keys()


def test_meshes_are_compared_with_their_own_file(fields: Fields, tmp_path: Path) -> None:
    n = 4
    metas = make_metas(n, imgname=[""] * n)
    first = {name: part[:n] for name, part in fields.items()}
    write_run(tmp_path / "run", first, metas, models_sha256=open_models().sha256)
    export("skel-cf", tmp_path / "run", tmp_path / "meshes.npz")
    columns = read(tmp_path / "meshes.npz")
    assert "sequence" not in columns and columns["label_file"].tolist() == ["people.npz"] * n
    assert report(tmp_path, tmp_path / "meshes.npz", tmp_path)["compared"] == n
    other = write(tmp_path / "other.npz", columns | {"label_file": np.array(["theirs.npz"] * n)})
    assert report(tmp_path, other, tmp_path)["compared"] == 0


def test_another_motion_of_equal_length_is_not_compared(fields: Fields, tmp_path: Path) -> None:
    motion(tmp_path / "a", fields)
    motion(tmp_path / "b", fields, sequence="run")
    result = invoke(tmp_path / "a", tmp_path / "b" / "frames.npz")
    assert result.exit_code == 0 and "compared: 0 people" in result.output
    assert "for example, frame 10 of the sequence 'walk' (subject 'ann')" in result.output
    assert "the file has frame 10 of the sequence 'run' (subject 'ann')" in result.output
    assert "''" not in result.output
    # A file that says no more than rows: SKEL-CF's own, or an export of an older skelfit.
    keys = ("sequence", "subject", "frame", "label_file")
    rows_only = {k: v for k, v in read(tmp_path / "a" / "frames.npz").items() if k not in keys}
    result = invoke(tmp_path / "a", write(tmp_path / "rows.npz", rows_only))
    assert result.exit_code == 2 and "expected what identifies frames without images" in result.output


def test_other_coordinates_give_a_warning(fields: Fields, made: Path, tmp_path: Path) -> None:
    motion(tmp_path / "z", fields)
    motion(tmp_path / "y", fields, coordinates="world_y_up")
    other, own = (invoke(tmp_path / "y", tmp_path / name / "frames.npz").output for name in "zy")
    warning = (
        "warning: 6 people stand in other coordinates (world_y_up in the shards, world_z_up in the file)"
    )
    assert warning in other.splitlines() and "convert both with the same --up" in other
    assert "warning" not in own and "note:" not in own
    columns = {k: v for k, v in read(tmp_path / "y" / "frames.npz").items() if k != "coordinates"}
    without_coordinates = invoke(tmp_path / "y", write(tmp_path / "silent.npz", columns)).output
    assert (
        "note: the shards stand in world_y_up; the file does not say its coordinates" in without_coordinates
    )
    # Camera coordinates, as in SKEL-CF's files, need no note.
    columns = {k: v for k, v in read(made / "same.npz").items() if k != "coordinates"}
    assert "note:" not in invoke(made, write(tmp_path / "camera.npz", columns)).output
