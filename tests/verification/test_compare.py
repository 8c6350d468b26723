"""`skelfit compare`: planted differences of known size, who is who, and what cannot be compared."""

from __future__ import annotations

import json
import pickle
from collections.abc import Mapping, Sequence
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
from skelfit.verification.comparison.matching import MATCHED, UNMATCHED, Seen, match
from skelfit.verification.comparison.skel_labels import SkelLabels, read_skel_labels
from skelfit.verification.comparison.source_frame import SourceFrame

PEOPLE = 20
BAD_PERSON = 13


@pytest.fixture(scope="module")
def fields() -> Fields:
    found = make_fields(PEOPLE)
    found["smpl_pose"] *= 0.2
    return found


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
    np.savez(path, **columns)
    return path


def invoke(made: Path, file: Path, *args: object) -> Result:
    return CliRunner().invoke(main, ["compare", str(made / "run"), str(file), *map(str, args)])


def report(made: Path, file: Path, tmp_path: Path, *args: object) -> Any:
    found = invoke(made, file, "--json", tmp_path / "report.json", *args)
    assert found.exit_code == 0, found.output
    return json.loads((tmp_path / "report.json").read_text())


def test_an_export_is_what_its_shards_hold(made: Path, tmp_path: Path) -> None:
    said = invoke(made, made / "same.npz", "--json", tmp_path / "r.json", "--picture", tmp_path / "p.jpg")
    assert said.exit_code == 0, said.output
    found = json.loads((tmp_path / "r.json").read_text())
    assert found["compared"] == PEOPLE and found["shards"]["matched"]["center"] == PEOPLE
    assert sum(found["shards"]["unmatched"].values()) == found["file"]["unmatched_rows"] == 0
    for name in ("angles_deg", "turns_deg", "skin_mm", "joints_mm"):
        for key, spread in found[name].items():
            assert spread["people"] == PEOPLE and spread["max"] == spread["mean"] == 0, (name, key)
    assert all(b["max"] == 0 and b["people"] == PEOPLE for b in found["betas"]["difference"])
    assert found["to_label_mm"]["shards"] == found["to_label_mm"]["file"]
    assert found["to_label_mm"]["file"]["mean"] > 1
    for shares in (found["beyond_limits"]["any"], *found["beyond_limits"]["dofs"].values()):
        assert shares["shards"] == shares["file"]
    assert found["worst"] == [] and not (tmp_path / "p.jpg").exists()
    assert "next: nothing" in said.output and "  all: no difference" in said.output


def test_planted_differences_are_found_in_their_size(
    made: Path, fields: Fields, tmp_path: Path, models: ModelSet
) -> None:
    """A knee of one person by 30 degrees, everybody 5 cm to the side, a beta of everybody by 1."""
    columns = read(made / "same.npz")
    knee, who = DOF_NAMES.index("knee_angle_r"), 4
    columns["skel_poses"][who, knee] += np.radians(30)
    columns["skel_poses"][7, knee] += 2 * np.pi  # no difference
    columns["skel_trans"][:, 0] += 0.05
    columns["skel_betas"][:, 3] -= 1
    found = report(made, write(tmp_path / "other.npz", columns), tmp_path)
    angle = found["angles_deg"]["knee_angle_r"]
    assert angle["max"] == pytest.approx(30, abs=1e-3) and angle["mean"] == pytest.approx(
        30 / PEOPLE, abs=1e-3
    )
    assert angle["bias"] == pytest.approx(30 / PEOPLE, abs=1e-3) and angle["p50"] == 0
    assert found["turns_deg"]["tibia_r"]["max"] == pytest.approx(30, abs=1e-3)
    assert found["turns_deg"]["tibia_l"]["max"] == 0 == found["angles_deg"]["hip_flexion_r"]["max"]
    assert [b["mean"] for b in found["betas"]["difference"]] == pytest.approx(
        [0, 0, 0, 1, 0, 0, 0, 0, 0, 0], abs=1e-5
    )
    worst = {case["key"]: case for case in found["worst"]}[f"people-0-{who:08d}"]
    assert worst["turned_joint"] == "tibia_r" and worst["turned_deg"] == pytest.approx(30, abs=1e-3)
    skins, joints = [], []
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    for side in (fields, columns):
        betas, q = (
            torch.tensor(side[k][who : who + 1], dtype=torch.float64) for k in ("skel_betas", "skel_poses")
        )
        skins.append(
            model.forward(model.shape(betas), q, torch.zeros(1, 3, dtype=torch.float64)).vertices[0].numpy()
        )
        joints.append(model.joints(model.frames(betas), q).pos[0].numpy())
    moved = skins[1] - skins[0] + [0.05, 0, 0]
    rooted = (skins[1] - joints[1][0]) - (skins[0] - joints[0][0])
    apart = (joints[1] - joints[1][0]) - (joints[0] - joints[0][0])
    expected = [1000 * np.linalg.norm(x, axis=-1).mean() for x in (moved, rooted, apart)]
    assert worst["skin_mm"]["as_they_stand"] == pytest.approx(expected[0], abs=2e-3)
    assert worst["skin_mm"]["roots_together"] == pytest.approx(expected[1], abs=2e-3)
    assert worst["joints_mm"]["roots_together"] == pytest.approx(expected[2], abs=2e-3)
    assert worst["joints_mm"]["similarity_aligned"] > 1
    assert [case["skin_mm"]["roots_together"] for case in found["worst"]] == sorted(
        (case["skin_mm"]["roots_together"] for case in found["worst"]), reverse=True
    )


def test_limits_of_either_side(made: Path, tmp_path: Path) -> None:
    columns = read(made / "same.npz")
    elbow = DOF_NAMES.index("elbow_flexion_l")
    columns["skel_poses"][:5, elbow] = dof_limits()[elbow, 1] + np.radians(12)
    found = report(made, write(tmp_path / "bent.npz", columns), tmp_path)["beyond_limits"]
    assert found["deg"] == [5, 10, 20, 30]
    assert found["dofs"]["elbow_flexion_l"] == {"shards": [0, 0, 0, 0], "file": [0.25, 0.25, 0, 0]}
    assert found["any"]["file"][1] == 0.25 and found["any"]["shards"] == [0, 0, 0, 0]


def test_joints_are_compared_as_rotations(made: Path, fields: Fields, tmp_path: Path) -> None:
    """The other triple of a hip's angles is the same rotation; a turn of the pelvis is one whatever its angles."""
    columns = read(made / "same.npz")
    hip = [DOF_NAMES.index(f"hip_{n}_r") for n in ("flexion", "adduction", "rotation")]
    a, b, c = columns["skel_poses"][:, hip].T
    columns["skel_poses"][:, hip] = np.stack([a + np.pi, np.pi - b, c + np.pi], 1)
    root = columns["skel_poses"][:, :3].astype(np.float64)  # about z, then x, then y
    turned = Rotation.from_euler("zxy", root) * Rotation.from_rotvec([0, 0, 0])
    columns["skel_poses"][:, :3] = (Rotation.from_rotvec([0, 0.5, 0]) * turned).as_euler("zxy")
    found = report(made, write(tmp_path / "twins.npz", columns), tmp_path)
    assert found["turns_deg"]["femur_r"]["max"] < 1e-3 and found["angles_deg"]["hip_flexion_r"]["mean"] > 90
    assert found["turns_deg"]["pelvis"]["p50"] == pytest.approx(np.degrees(0.5), abs=0.02)
    assert (
        found["joints_mm"]["similarity_aligned"]["max"] < 0.01 < found["joints_mm"]["roots_together"]["mean"]
    )


def test_a_file_that_says_no_more_than_skel_cf_s_does(made: Path, tmp_path: Path) -> None:
    """No places, no genders: what they would tell is left out, and said; the betas are taken as male."""
    columns = {
        k: v for k, v in read(made / "same.npz").items() if k in ("imgname", "center", "scale", "skel_poses")
    }
    columns["skel_betas"] = read(made / "same.npz")["skel_betas"]
    file = write(tmp_path / "theirs.npz", columns)
    found = report(made, file, tmp_path)
    females = sum(i % 3 == 0 for i in range(PEOPLE))
    assert found["file"]["skel_genders"] == {"male": PEOPLE, "female": 0} and not found["file"]["says_gender"]
    assert found["betas"]["people"] == PEOPLE - females
    assert found["skin_mm"]["as_they_stand"]["people"] == 0 == found["joints_mm"]["as_they_stand"]["people"]
    assert found["skin_mm"]["roots_together"]["people"] == PEOPLE
    assert found["skin_mm"]["roots_together"]["max"] > 1 and found["angles_deg"]["knee_angle_l"]["max"] == 0
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
    found = report(tmp_path, file, tmp_path)
    assert (found["shards"]["bad"], found["file"]["bad"], found["compared"]) == (1, 3, PEOPLE - 5)
    assert found["shards"]["unmatched"] == {
        "no_image": 1, "no_frame": 0, "no_person": 0, "no_center": 0, "ambiguous": 0
    }  # fmt: skip
    assert found["shards"]["example"] == "the image 'a/5.jpg'" and found["file"]["unmatched_rows"] == 1
    assert found["skin_mm"]["as_they_stand"]["max"] == 0
    lines = invoke(tmp_path, file).output
    assert "not compared: 1 people whose numbers are none" in lines
    assert "not compared: 3 rows of the file whose numbers are none" in lines


def test_figures_do_not_depend_on_batches(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    columns = read(made / "same.npz")
    columns["skel_poses"][:, 3:] += np.random.default_rng(0).normal(0, 0.1, (PEOPLE, 43)).astype(np.float32)
    file = write(tmp_path / "other.npz", columns)
    whole = report(made, file, tmp_path)
    monkeypatch.setattr(run_module, "BATCH", 3)
    monkeypatch.setattr(run_module, "_COUNTED", 2)
    assert report(made, file, tmp_path) == whole
    assert len(whole["worst"]) == 12


def test_the_picture_shows_both_sides(made: Path, tmp_path: Path) -> None:
    """Blue and orange bodies, and both in one place: grey where they cover each other."""
    columns = read(made / "same.npz")
    columns["skel_poses"][:3, DOF_NAMES.index("shoulder_r_x")] += 0.5
    said = invoke(made, write(tmp_path / "other.npz", columns), "--picture", tmp_path / "p.jpg")
    assert said.exit_code == 0 and "the 3 people who differ most" in said.output
    with Image.open(tmp_path / "p.jpg") as opened:
        picture = np.asarray(opened.convert("RGB"), np.float64)
    assert picture.shape == (2 * 270, 2 * 3 * 240, 3)
    squares = [picture[30:270, k * 240 : (k + 1) * 240] for k in range(3)]
    covered = [(s.min(-1) < 225).mean() for s in squares]
    assert covered[0] > 0.03 and covered[1] > 0.03 and covered[2] >= 0.98 * max(covered[:2])
    tint = [(s[..., 2] - s[..., 0])[s.min(-1) < 225].mean() for s in squares]
    assert tint[0] > 20 and tint[1] < -20 and tint[1] < tint[2] < tint[0]
    assert (picture[270:, 720:] > 250).all()  # three people leave a place empty


@pytest.mark.parametrize(
    ("change", "args", "said"),
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
    made: Path, tmp_path: Path, change: dict[str, Any], args: tuple[str, ...], said: str
) -> None:
    columns = {k: v for k, v in (read(made / "same.npz") | change).items() if v is not None}
    found = invoke(made, write(tmp_path / "bad.npz", columns), *args)
    assert found.exit_code == 2 and said in found.output and len(found.output.splitlines()) == 1, found.output


class Trap:
    """Whoever unpickles it, touches a file."""

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
    found = invoke(tmp_path, made / "same.npz")
    assert found.exit_code == 2 and "expected the models of the run, 1111" in found.output


def labels_of(
    names: list[str], center: Any = None, row: Any = None, places: list[SourceFrame | None] | None = None
) -> SkelLabels:
    n = len(names)
    zeros = np.zeros((n, 46), np.float32)
    return SkelLabels(
        Path("x.npz"), names, zeros, zeros[:, :10], None,
        None if center is None else np.array(center, np.float32).reshape(-1, 2),
        None if row is None else np.array(row), places or [None] * n, None,
        np.zeros(n, bool), False, np.zeros(n, bool),
    )  # fmt: skip


def matched(people: Sequence[tuple[Any, ...]], labels: SkelLabels) -> list[tuple[int, str]]:
    seen = (Seen(*(*person, SourceFrame(None, "x", person[1]))[:4]) for person in people)
    found = match(seen, labels, 1.0)
    how = (*MATCHED, *UNMATCHED)
    return [(int(row), how[k]) for row, k in zip(found.row, found.how, strict=True)]


A, B, FAR = (10.0, 10.0), (50.0, 10.0), (90.0, 90.0)


def test_people_of_an_image_are_told_by_their_centres() -> None:
    labels = labels_of(["x", "x", "y", "x"], [B, A, A, (10.7, 90)])
    people = [("x", 0, A), ("x", 1, B), ("x", 2, (10, 90)), ("x", 3, FAR), ("y", 4, A), ("z", 5, A)]
    assert matched(people, labels) == [
        (1, "center"), (0, "center"), (3, "near"), (-1, "no_person"), (2, "center"), (-1, "no_image"),
    ]  # fmt: skip


def test_who_could_be_several_is_not_matched() -> None:
    assert matched([("x", 0, A)], labels_of(["x", "x"], [(10.5, 10), (9.5, 10)])) == [(-1, "ambiguous")]
    two = [("x", 0, (10.5, 10)), ("x", 1, (9.5, 10))]
    assert matched(two, labels_of(["x"], [A])) == [(-1, "ambiguous")] * 2
    same = [("x", 3, A), ("x", 5, A)]
    assert matched(same, labels_of(["x"] * 3, [A] * 3)) == [(-1, "ambiguous")] * 2
    assert matched(same, labels_of(["x"] * 2, [A] * 2)) == [(0, "order"), (1, "order")]
    # Rows decide, if both sides have them; with a row that the file lacks, nobody can say.
    assert matched(same, labels_of(["x"] * 3, [A] * 3, [5, 4, 3])) == [(2, "row"), (0, "row")]
    assert matched(same, labels_of(["x"] * 2, [A] * 2, [5, 4])) == [(-1, "ambiguous"), (0, "row")]
    assert (
        matched([("x", 3, A), ("x", 3, A)], labels_of(["x"] * 2, [A] * 2, [3, 4])) == [(-1, "ambiguous")] * 2
    )


def test_files_without_centres() -> None:
    people = [("x", 0, A), ("x", 1, B), ("y", 2, A), ("z", 3, A), ("z", 4, B)]
    labels = labels_of(["y", "x", "z", "x"])
    assert matched(people, labels) == [
        (1, "order"), (3, "order"), (0, "alone"), (-1, "ambiguous"), (-1, "ambiguous"),
    ]  # fmt: skip


def test_images_may_be_named_from_another_folder_on() -> None:
    people = [("train/a/1.jpg", 0, A), ("2.jpg", 1, A), ("b/3.jpg", 2, A), ("4.jpg", 3, A)]
    labels = labels_of(["a/1.jpg", "root/2.jpg", "c/3.jpg", "p/4.jpg", "q/4.jpg"], [A] * 5)
    assert matched(people, labels) == [(0, "center"), (1, "center"), (-1, "no_image"), (-1, "ambiguous")]
    # One name of the file for several images of the shards.
    two = [("p/1.jpg", 0, A), ("q/1.jpg", 1, B)]
    assert matched(two, labels_of(["1.jpg", "1.jpg"], [A, B])) == [(-1, "ambiguous")] * 2


def walk(*frames: int, name: str = "walk", subject: str = "ann") -> list[SourceFrame | None]:
    return [SourceFrame(subject, name, frame) for frame in frames]


def test_frames_without_images_are_matched_by_their_sequence() -> None:
    """Never by their rows: another motion of equal length has the same ones."""
    people = [("", row, (0.0, 0.0), place) for row, place in enumerate(walk(3, 4, 5))]
    own, rows = labels_of([""] * 3, [(0, 0)] * 3, [7, 8, 9], walk(5, 3, 4)), [0, 1, 2]
    assert matched(people, own) == [(1, "frame"), (2, "frame"), (0, "frame")]
    few = labels_of([""] * 2, [(0, 0)] * 2, [0, 2], walk(3, 5))
    assert matched(people, few) == [(0, "frame"), (-1, "no_frame"), (1, "frame")]
    for other in (walk(3, 4, 5, name="run"), walk(3, 4, 5, subject="bob")):
        assert matched(people, labels_of([""] * 3, [(0, 0)] * 3, rows, other)) == [(-1, "no_frame")] * 3
    twice = labels_of([""] * 3, [(0, 0)] * 3, rows, walk(3, 3, 4))
    assert matched(people, twice) == [(-1, "ambiguous"), (2, "frame"), (-1, "no_frame")]
    assert matched([people[0]] * 2, own) == [(-1, "ambiguous")] * 2


def test_meshes_without_images_are_matched_by_file_and_row() -> None:
    people = [("", row, (0.0, 0.0), SourceFrame(None, "scans.npz", row)) for row in (3, 5)]
    places: list[SourceFrame | None] = [
        SourceFrame(None, "scans.npz", 5),
        SourceFrame(None, "other.npz", 3),
        None,
    ]
    labels = labels_of([""] * 3, [(0, 0)] * 3, [5, 3, 3], places)
    assert matched(people, labels) == [(-1, "no_frame"), (0, "frame")]


def test_what_nothing_identifies_is_refused() -> None:
    people = [("", row, (0.0, 0.0), place) for row, place in enumerate(walk(0, 1))]
    labels = labels_of([""] * 2, [(0, 0)] * 2, [0, 1])
    with pytest.raises(LabelError) as caught:
        matched(people, labels)
    assert str(caught.value) == (
        "x.npz: 'sequence': expected what identifies frames without images: sequence, subject and frame, or "
        "label_file and row, found none of these keys, or nothing in them"
    )
    # Those with an image are compared all the same.
    mixed = [*people, ("x", 2, A, SourceFrame(None, "p.npz", 2))]
    assert matched(mixed, labels_of(["", "", "x"], [(0, 0), (0, 0), A])) == [
        (-1, "no_frame"), (-1, "no_frame"), (2, "center"),
    ]  # fmt: skip
    # A name that ends in a slash does not end in the empty name.
    assert matched([("x/", 0, A)], labels_of([""], [A])) == [(-1, "no_image")]


def test_centres_that_are_not_finite_are_named() -> None:
    nan = (np.nan, np.nan)
    people = [("x", 0, A), ("x", 1, B), ("y", 2, nan), ("z", 3, A)]
    labels = labels_of(["x", "x", "y", "z"], [nan, nan, A, FAR])
    assert matched(people, labels) == [(-1, "no_center")] * 3 + [(-1, "no_person")]


def test_many_people_without_images_are_matched_in_no_time() -> None:
    n = 20_000
    people = (Seen("", i, (0.0, 0.0), SourceFrame("s", "x", i)) for i in range(n))
    order = np.random.default_rng(0).permutation(n)
    labels = labels_of([""] * n, [(0, 0)] * n, order, [SourceFrame("s", "x", i) for i in order.tolist()])
    found = match(people, labels, 1.0)
    assert (order[found.row] == np.arange(n)).all() and found.counts(MATCHED)["frame"] == n


# Motion capture, from one end to the other.


def motion(folder: Path, fields: Fields, n: int = 6, **changes: Any) -> Path:
    """A run of a sequence without images, and its export `frames.npz` beside it."""
    about = {"sequence": "walk", "subject": "ann", "frame_rate": 30.0, "coordinates": "world_z_up"} | changes
    columns = {name: [value] * n for name, value in about.items()} | {"frame": [10 + i for i in range(n)]}
    metas = make_metas(n, imgname=[""] * n, **columns)
    some = {name: part[:n] for name, part in fields.items()}
    write_run(folder / "run", some, metas, models_sha256=open_models().sha256)
    export("skel-cf", folder / "run", folder / "frames.npz")
    return folder


def test_exports_say_whose_frames_they_hold(fields: Fields, made: Path, tmp_path: Path) -> None:
    columns = read(motion(tmp_path, fields) / "frames.npz")
    assert columns["frame"].tolist() == list(range(10, 16)) and columns["frame"].dtype == np.int64
    for key, value in (("sequence", "walk"), ("subject", "ann"), ("label_file", "people.npz")):
        assert columns[key].tolist() == [value] * 6
    assert columns["coordinates"].tolist() == ["world_z_up"] * 6
    whole = report(tmp_path, tmp_path / "frames.npz", tmp_path)
    assert whole["compared"] == 6 and whole["shards"]["matched"]["frame"] == 6
    # A part of them, as --keep gives it.
    part = write(tmp_path / "part.npz", {k: v[2:4] for k, v in columns.items()})
    found = report(tmp_path, part, tmp_path)
    assert found["compared"] == 2 and found["shards"]["unmatched"]["no_frame"] == 4
    # Images identify people by themselves.
    assert not {"label_file", "sequence", "subject", "frame"} & read(made / "same.npz").keys()


def test_meshes_are_compared_with_their_own_file(fields: Fields, tmp_path: Path) -> None:
    n = 4
    metas = make_metas(n, imgname=[""] * n)
    some = {name: part[:n] for name, part in fields.items()}
    write_run(tmp_path / "run", some, metas, models_sha256=open_models().sha256)
    export("skel-cf", tmp_path / "run", tmp_path / "meshes.npz")
    columns = read(tmp_path / "meshes.npz")
    assert "sequence" not in columns and columns["label_file"].tolist() == ["people.npz"] * n
    assert report(tmp_path, tmp_path / "meshes.npz", tmp_path)["compared"] == n
    other = write(tmp_path / "other.npz", columns | {"label_file": np.array(["theirs.npz"] * n)})
    assert report(tmp_path, other, tmp_path)["compared"] == 0


def test_another_motion_of_equal_length_is_not_compared(fields: Fields, tmp_path: Path) -> None:
    motion(tmp_path / "a", fields)
    motion(tmp_path / "b", fields, sequence="run")
    said = invoke(tmp_path / "a", tmp_path / "b" / "frames.npz")
    assert said.exit_code == 0 and "compared: 0 people" in said.output
    assert "for example, frame 10 of the sequence 'walk' (subject 'ann')" in said.output
    assert "the file has frame 10 of the sequence 'run' (subject 'ann')" in said.output
    assert "''" not in said.output
    # A file that says no more than rows: SKEL-CF's own, or an export of an older skelfit.
    keys = ("sequence", "subject", "frame", "label_file")
    rows_only = {k: v for k, v in read(tmp_path / "a" / "frames.npz").items() if k not in keys}
    said = invoke(tmp_path / "a", write(tmp_path / "rows.npz", rows_only))
    assert said.exit_code == 2 and "expected what identifies frames without images" in said.output


def test_other_worlds_are_told(fields: Fields, made: Path, tmp_path: Path) -> None:
    motion(tmp_path / "z", fields)
    motion(tmp_path / "y", fields, coordinates="world_y_up")
    other, own = (invoke(tmp_path / "y", tmp_path / name / "frames.npz").output for name in "zy")
    warning = (
        "warning: 6 people stand in other coordinates (world_y_up in the shards, world_z_up in the file)"
    )
    assert warning in other.splitlines() and "convert both with the same --up" in other
    assert "warning" not in own and "note:" not in own
    columns = {k: v for k, v in read(tmp_path / "y" / "frames.npz").items() if k != "coordinates"}
    silent = invoke(tmp_path / "y", write(tmp_path / "silent.npz", columns)).output
    assert "note: the shards stand in world_y_up; the file does not say its coordinates" in silent
    # Of a camera's coordinates, as SKEL-CF's files have them, nothing is said.
    columns = {k: v for k, v in read(made / "same.npz").items() if k != "coordinates"}
    assert "note:" not in invoke(made, write(tmp_path / "camera.npz", columns)).output
