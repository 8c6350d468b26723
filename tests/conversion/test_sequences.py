"""Sequences: frame order, rate and subject reach the labels, and angles do not jump between neighbouring frames."""

from __future__ import annotations

from math import pi
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from job_fakes import FakeFitter
from label_files import amass, write
from scipy.spatial.transform import Rotation

from skelfit.api.subsets import file_subset, label_files
from skelfit.bodies import angle_continuity
from skelfit.bodies.angle_continuity import (
    FLIPPABLE_TRIPLES,
    WRAPPING_DOFS,
    canonical_angles,
    make_continuous,
    nearest_angles,
)
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_axes, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.cli import main
from skelfit.config.manifest import LabelSource, ReadOptions
from skelfit.errors import LabelError
from skelfit.fitting.start.warm_start import root_angles
from skelfit.labels.label_store import build_store, read_rows, store_sequences
from skelfit.labels.readers.label_folder import describe_skipped_files, list_label_files
from skelfit.shards.label_vector import unpack
from skelfit.shards.shard_reader import read_json, read_samples
from skelfit.shards.shard_reader import read_rows as read_sidecar

FRAMES = 150
AXES = dof_axes()
FIRSTS, MIDDLES, THIRDS = (list(dofs) for dofs in zip(*FLIPPABLE_TRIPLES, strict=True))
OUTERS = [*FIRSTS, *THIRDS]


def skelfit_(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(a) for a in arguments])


def random_poses(count: int, seed: int = 0) -> np.ndarray:
    """Poses (count,46) rad within the limits, anyhow turned."""
    rng = np.random.default_rng(seed)
    low, high = np.nan_to_num(dof_limits(), neginf=-pi, posinf=pi).T
    return rng.uniform(low, high, (count, NUM_DOFS))


# The description of a pose.


def test_a_description_changes_nobodys_pose(models: ModelSet) -> None:
    """Every joint that may turn round has been turned, and every twin been taken: skin and joints stay."""
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    poses, rng = random_poses(8), np.random.default_rng(1)
    other = poses.copy()
    for a, b, c in FLIPPABLE_TRIPLES:
        other[:4, [a, c]] += pi
        other[:4, b] = pi - other[:4, b]
    dofs = list(WRAPPING_DOFS)
    other[:, dofs] += 2 * pi * rng.integers(-3, 4, (8, len(dofs)))
    shape = model.shape(torch.zeros(10, dtype=torch.float64))
    one, two = (model.forward(shape, torch.tensor(q)) for q in (poses, other))
    torch.testing.assert_close(one.vertices, two.vertices, rtol=0, atol=1e-9)
    torch.testing.assert_close(one.joints, two.joints, rtol=0, atol=1e-9)
    assert len(FLIPPABLE_TRIPLES) == 5 and not {DOF_NAMES[d][:6] for d in WRAPPING_DOFS} & {
        "lumbar",
        "thorax",
        "head_b",
    }
    np.testing.assert_allclose(canonical_angles(other)[:, 3:], poses[:, 3:], atol=1e-9)
    again = model.forward(shape, torch.tensor(canonical_angles(other)))
    torch.testing.assert_close(again.vertices, one.vertices, rtol=0, atol=1e-9)


def test_continuous_takes_the_motion_back_from_any_descriptions() -> None:
    """A motion through poles and many turns, every frame described anyhow: the angles come back, but for a start."""
    rng, t = np.random.default_rng(0), np.linspace(0, 1, 400)[:, None]
    speed = np.zeros(NUM_DOFS)
    speed[list(WRAPPING_DOFS)] = rng.uniform(-20, 20, len(WRAPPING_DOFS))
    motion = random_poses(1) + speed * t
    other = motion.copy()
    for k, (a, b, c) in enumerate(FLIPPABLE_TRIPLES):
        rows = rng.random(len(t)) < 0.1 * (k + 1)
        rows[0] = False
        other[np.flatnonzero(rows)[:, None], [a, c]] += pi
        other[rows, b] = pi - other[rows, b]
    dofs = list(WRAPPING_DOFS)
    turns = rng.integers(-3, 4, (len(t), len(dofs)))
    turns[0] = 0
    other[:, dofs] += 2 * pi * turns
    assert np.abs(np.diff(other, axis=0)).max() > 6
    np.testing.assert_allclose(make_continuous(other), motion, atol=1e-9)


@pytest.mark.parametrize(("guessed", "one_by_one"), [(1024, 32), (7, 3)])
def test_many_frames_are_described_as_one_by_one(
    guessed: int, one_by_one: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(angle_continuity, "_GUESSED", guessed)
    monkeypatch.setattr(angle_continuity, "_ONE_BY_ONE", one_by_one)
    monkeypatch.setattr(angle_continuity, "_interpolate_at_poles", lambda *_: None)
    rng, t = np.random.default_rng(0), np.linspace(0, 1, 150)[:, None]
    smooth = random_poses(1) + rng.uniform(-30, 30, NUM_DOFS) * t
    through_poles = smooth.copy()
    through_poles[40:60, MIDDLES[:3]] = pi / 2
    through_poles[90:91, MIDDLES[3]] = -pi / 2
    described = described_anyhow(smooth, slice(20, 130), rng)
    turned = smooth + 2 * pi * rng.integers(-2, 3, smooth.shape)
    for given in (smooth, described, turned, through_poles, random_poses(150), at_poles(20, 1.0)):
        expected = np.array(given)
        for before, frame in zip(expected[:-1], expected[1:], strict=True):
            frame[:] = nearest_angles(frame, before)
        np.testing.assert_array_equal(make_continuous(given), expected)


def test_one_frame_and_none_and_wrong_shapes() -> None:
    pose = random_poses(1)
    np.testing.assert_array_equal(make_continuous(pose), pose)
    assert make_continuous(pose[:0]).shape == (0, NUM_DOFS)
    with pytest.raises(ValueError, match=r"poses: expected shape \(T, 46\), found \(2, 45\)"):
        make_continuous(np.zeros((2, 45)))


# Poles.


def rotations(poses: np.ndarray) -> list[Rotation]:
    """Of the five joints that have twins, in poses (T,46)."""
    return [
        Rotation.from_rotvec(poses[:, [c]] * AXES[c])
        * Rotation.from_rotvec(poses[:, [b]] * AXES[b])
        * Rotation.from_rotvec(poses[:, [a]] * AXES[a])
        for a, b, c in FLIPPABLE_TRIPLES
    ]


def apart(one: np.ndarray, other: np.ndarray) -> float:
    """The furthest that any of these joints is turned from one description to the other, rad."""
    pairs = zip(rotations(one), rotations(other), strict=True)
    return max(float((a.inv() * b).magnitude().max()) for a, b in pairs)


def at_poles(frames: int, side: float) -> np.ndarray:
    """Poses (T,46) whose five joints are all at a pole, of middle angle side * 90 degrees."""
    poses = random_poses(1).repeat(frames, 0)
    poses[:, MIDDLES] = side * pi / 2
    return poses


def described_anyhow(poses: np.ndarray, frames: slice, rng: np.random.Generator) -> np.ndarray:
    """The same poses; in some frames, all at their poles, each in any of its descriptions."""
    other = poses.copy()
    for k, (a, b, c) in enumerate(FLIPPABLE_TRIPLES):
        d = rng.uniform(-pi, pi, len(other[frames]))
        other[frames, a] += d
        other[frames, c] += np.sign(np.sin(poses[frames, b])) * d + 2 * pi * rng.integers(-1, 2, len(d))
        if k % 2:
            other[frames, a] += pi
            other[frames, b] = pi - other[frames, b]
            other[frames, c] += pi
    return other


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("dtype", [np.float64, np.float32])
def test_straight_through_a_pole(side: float, dtype: type) -> None:
    """A frame right at the pole, whose outer angles may be anything: none of the angles jumps there."""
    t = np.linspace(-1, 1, 41)
    motion = at_poles(41, side)
    motion[:, MIDDLES] += t[:, None]
    motion[:, OUTERS] += 0.3 * t[:, None]
    other: np.ndarray = described_anyhow(motion, slice(20, 21), np.random.default_rng(0)).astype(dtype)
    assert apart(other.astype(float), motion) < 3e-6 and np.abs(np.diff(other, axis=0)).max() > 1
    found = make_continuous(other)
    assert apart(found, other.astype(float)) < 1e-6
    np.testing.assert_allclose(found, motion, rtol=0, atol=1e-6 if dtype == np.float32 else 1e-12)


@pytest.mark.parametrize("side", [1.0, -1.0])
def test_turning_at_a_pole_is_shared_by_both_outer_angles(side: float) -> None:
    """Two whole turns about the pole's axis, and no end to it: each of the outer angles makes one."""
    t = np.linspace(0, 4 * pi, 181)
    motion = at_poles(181, side)
    motion[:, FIRSTS] += t[:, None]
    other = described_anyhow(motion, slice(1, None), np.random.default_rng(1))
    found = make_continuous(other)
    assert apart(found, motion) < 1e-6
    expected = at_poles(181, side)
    expected[:, FIRSTS] += t[:, None] / 2
    expected[:, THIRDS] -= side * t[:, None] / 2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-9)


@pytest.mark.parametrize("side", [1.0, -1.0])
@pytest.mark.parametrize("start", [0, 30])
def test_a_joint_that_leaves_its_pole_another_way(side: float, start: int) -> None:
    """To the pole, there for 20 frames while it turns about the axis, and off at a right angle to where it came from.

    The bone does not jump, so no angle may: what the first angle must be in the end it takes on on the way.
    """
    t = np.arange(30) / 30
    to, there, off = (at_poles(n, side) for n in (30, 20, 30))
    to[:, MIDDLES] -= side * (1 - t[:, None])
    there[:, FIRSTS] += np.linspace(0, 1, 20)[:, None]
    off[:, FIRSTS] += pi / 2
    off[:, THIRDS] += side * (pi / 2 - 1)
    off[:, MIDDLES] -= side * (t[:, None] + 1 / 30)
    motion = np.concatenate([to, there, off])
    bones = max(float((x[:-1].inv() * x[1:]).magnitude().max()) for x in rotations(motion))
    assert bones < 0.06
    other = described_anyhow(motion, slice(30, 50), np.random.default_rng(2))
    other[60:, MIDDLES] = pi - other[60:, MIDDLES]
    other[60:, OUTERS] += pi
    found = make_continuous(other[start:])
    assert apart(found, motion[start:]) < 1e-6
    assert np.abs(np.diff(found, axis=0)).max() < (0.12 if start == 0 else 0.4)
    np.testing.assert_array_equal(found[0], other[start])


def test_away_from_a_pole_nothing_is_free() -> None:
    """A thousandth of a degree beside it the angles are what they are, however they run."""
    motion = at_poles(2, 1.0)
    motion[:, MIDDLES] -= 1e-5
    motion[1, OUTERS] += 1.0
    np.testing.assert_array_equal(make_continuous(motion), motion)


def test_the_canonical_description_of_a_pole_is_within_the_limits() -> None:
    """Shoulders at 90 degrees, the outer angles moved along the pole's line: no limit is broken by that."""
    motion = at_poles(6, 1.0)
    other = described_anyhow(motion, slice(None), np.random.default_rng(3))
    found = canonical_angles(other)
    assert apart(found, motion) < 1e-6
    low, high = dof_limits().T
    shoulders = [d for triple in FLIPPABLE_TRIPLES[3:] for d in triple]
    beyond = np.maximum(low - found, found - high)[:, shoulders]
    assert beyond.max() < 1e-6


# A fast motion from file to shards.


def fast_motion() -> dict[str, np.ndarray]:
    """2.5 s at 60 Hz: three turns about the vertical, a somersault, and arms that swing through their poles."""
    t = np.linspace(0, 1, FRAMES)
    motion = amass(FRAMES, joints=24)
    pose = np.zeros((FRAMES, 24, 3))
    lie = Rotation.from_euler("x", pi / 2)  # SMPL's y is up in the body, z in the room
    spin, roll = (
        Rotation.from_euler(axis, angle[:, None]) for axis, angle in (("z", 6 * pi * t), ("x", 2 * pi * t))
    )
    pose[:, 0] = (spin * roll * lie).as_rotvec()
    pose[:, 16, 1] = -0.3 + 1.7 * np.sin(2 * pi * t)  # left arm far forward and back
    pose[:, 17, 1] = 0.3 + 1.7 * np.sin(2 * pi * t)
    pose[:, 16, 2] = 0.6 * np.sin(4 * pi * t)
    pose[:, 1, 0] = -0.8 - 0.8 * np.sin(4 * pi * t)
    pose[:, 4, 0] = 0.9 + 0.7 * np.sin(4 * pi * t)
    motion["poses"] = pose.reshape(FRAMES, 72)
    motion["mocap_framerate"] = np.array(60.0)
    return motion


def test_a_fast_motion_has_no_jumps(
    tmp_path: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("SKELFIT_MODELS", raising=False)
    motion = fast_motion()
    write(Path("amass/KIT/3/flip_poses.npz"), motion)
    arguments = ["--out", "out", "--shard-size", 40, "--workers", 0]
    result = skelfit_("convert", "--labels", "amass/KIT/3/flip_poses.npz", *arguments)
    assert result.exit_code == 0, result.output
    assert (
        f"{FRAMES} rows of amass labels (told by its keys 'poses', 'betas', 'trans')\n"
        "  coordinates of the labels: world" in result.output
    )
    (tar,) = Path("out").glob("*.tar")  # no sequence is cut
    samples = list(read_samples(tar))
    assert len(samples) >= 0.95 * FRAMES
    metas = [meta for _, _, meta in samples]
    assert [meta["frame"] for meta in metas] == [meta["row"] for meta in metas]
    assert {
        (m["sequence"], m["subject"], m["frame_rate"], m["angles"], m["coordinates"], m["camera"])
        for m in metas
    } == {("flip_poses", "3", 60.0, "continuous", "world_z_up", False)}
    label = unpack(np.array([label for _, label, _ in samples]))
    poses = label["skel_poses"].astype(float)
    steps = np.abs(np.diff(poses, axis=0))
    frames = np.diff([meta["frame"] for meta in metas])
    assert steps.max() < 0.9 * pi
    assert steps[frames == 1][:, :3].max() < 0.6  # the pelvis turns by under 25 degrees a frame
    alone = canonical_angles(poses)
    jumps = np.abs(np.diff(alone, axis=0))
    assert (jumps[:, :3] > 3).any(), "a motion that shows nothing: its canonical angles do not jump either"
    # The pose is the same, whichever way it is described.
    model = SkelModel(models.skel_of("female"), dtype=torch.float64)
    shape = model.shape(torch.tensor(label["skel_betas"][0]).double())
    one, two = (model.forward(shape, torch.tensor(q[::10])) for q in (poses, alone))
    torch.testing.assert_close(one.vertices, two.vertices, rtol=0, atol=1e-6)
    rows = list(read_sidecar(tar.with_name(tar.stem + ".rows.jsonl")))
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert {(row["sequence"], row["subject"], row["frame_rate"]) for row in rows} == {
        ("flip_poses", "3", 60.0)
    }


# Folders of sequences.


def make_folder(folder: Path) -> Path:
    """Four sequences of three subjects, a file that is no sequence, one that is damaged, and a subject's betas."""
    for name, frames in (("a/one", 5), ("a/two", 30), ("b/one", 7), ("top", 4)):
        write(folder / f"{name}.npz", amass(frames))
    write(folder / "a/shape.npz", {"betas": np.zeros(16), "gender": np.array("male")})
    write(folder / "b/other.npz", {"pose": np.zeros((3, 72))})
    (folder / "b" / "cut.npz").write_bytes((folder / "b" / "one.npz").read_bytes()[:300])
    (folder / "b" / "notes.txt").write_text("no labels")
    return folder


def test_a_folder_of_sequences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    make_folder(Path("amass"))
    result = skelfit_("convert", "--labels", "amass", "--out", "out", "--shard-size", 20, "--workers", 0)
    assert result.exit_code == 0, result.output
    assert "'betas': using 10 of 16 columns (4 of 6 files)" in result.output
    # Two of the six files are no sequences.
    assert "amass: 4 sequences; frames are fitted as one problem" in result.output
    assert "without a frame rate" not in result.output
    for name in ("opensim", "glb"):
        assert f"next: skelfit export out --format {name} --out amass-{name}\n" in result.output
    assert "skel-cf" not in result.output
    tars = sorted(Path("out").glob("*.tar"))
    rows = [row for tar in tars for row in read_sidecar(tar.with_name(tar.stem + ".rows.jsonl"))]
    assert [row["row"] for row in rows] == list(range(48)) and len({row["key"] for row in rows}) == 48
    found: dict[str, list[int]] = {}
    for row in rows:
        found.setdefault(row["sequence"], []).append(row["frame"])
    assert {name: len(frames) for name, frames in found.items()} == {
        "a/one": 5, "a/two": 30, "b/cut": 1, "b/one": 7, "b/other": 1, "top": 4,
    }  # fmt: skip
    assert all(frames == list(range(len(frames))) for frames in found.values())
    assert {row["sequence"]: row["subject"] for row in rows} == {
        "a/one": "a", "a/two": "a", "b/cut": "b", "b/one": "b", "b/other": "b", "top": "amass",
    }  # fmt: skip
    bad = {row["sequence"]: row["reason"] for row in rows if row["status"] == "bad_input"}
    assert bad["b/other"] == (
        "bad_file: 'poses': expected numbers of shape (N, 66) or (N, 22, 3) or (N, 72) or (N, 24, 3) or (N, 156)"
        " or (N, 52, 3) or (N, 165) or (N, 55, 3), found no such key; the file has pose"
    )
    assert "found a truncated .npz file" in bad["b/cut"] and len(bad) == 2
    # Whole sequences, as many as have room: 5 frames, 30, then the rest.
    assert [m["start"] for m in (read_json(t.with_name(t.stem + ".done.json")) for t in tars)] == [0, 5, 35]
    summary = read_json(Path("out/summary.json"))
    assert summary["rows_in"] == 48 == sum(summary["statuses"].values())


def test_a_folder_is_one_store_of_which_any_rows_can_be_read(tmp_path: Path) -> None:
    folder = make_folder(tmp_path / "amass")
    store = build_store(LabelSource("amass"), folder, tmp_path / "stores")
    assert [s.start for s in store_sequences(store)] == [0, 5, 35, 36, 43, 44]
    batch = read_rows(store, 33, 46)
    assert batch.row.tolist() == list(range(33, 46))
    frames = {s.name: batch.row[batch.frames_of(s)].tolist() for s in batch.sequences}
    names = {"a/two": [33, 34], "b/cut": [35], "b/one": list(range(36, 43)), "b/other": [43], "top": [44, 45]}
    assert frames == names
    expected = amass(30)["poses"].reshape(30, -1, 3)[28:, :22]
    np.testing.assert_allclose(batch.pose[:2, :22], expected, atol=1e-6)
    assert build_store(LabelSource("amass"), folder, tmp_path / "stores") == store
    (folder / "top.npz").rename(folder / "zop.npz")
    assert build_store(LabelSource("amass"), folder, tmp_path / "stores") != store


def test_folders_that_are_of_no_use(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(LabelError, match=r"expected a folder of amass labels .*, found none in it"):
        build_store(LabelSource("empty"), tmp_path / "empty", tmp_path)
    write(tmp_path / "bad" / "x.npz", {"pose": np.zeros((3, 72))})
    with pytest.raises(
        LabelError, match="expected a sequence in at least one of 1 files, found none; the first"
    ):
        build_store(LabelSource("bad"), tmp_path / "bad", tmp_path / "stores")


def test_what_a_folder_of_sequences_holds_besides_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "subject").mkdir()
    for name in ("LICENSE", "a.c3d", "b.C3D", ".hidden", "subject/shape.npz"):
        (tmp_path / name).touch()
    skipped = "3 files are skipped, not read as amass labels: 2 .c3d, 1 without an ending"
    assert describe_skipped_files(tmp_path) == skipped
    with pytest.raises(LabelError, match=f"expected a folder of amass labels .*, found {skipped}"):
        list_label_files(tmp_path)
    write(tmp_path / "subject" / "walk.npz", amass(3))
    subset = file_subset(tmp_path, None, ReadOptions(), None)
    label_files(subset, tmp_path / ".stores", 10.0, None, print)
    assert capsys.readouterr().out.count(skipped) == 1


def curve(up: str) -> tuple[Rotation, np.ndarray]:
    """The pelvis of a person who walks in a circle, swaying by a few degrees, at 30 Hz; and its continuous poses."""
    t = np.linspace(0, 9, 271)
    sway = np.stack([4 * np.sin(2 * pi * t), 3 * np.sin(4 * pi * t + 1)], 1)
    turned = Rotation.from_euler("y", 40 * t[:, None], True) * Rotation.from_euler("zx", sway, True)
    if up == "z":
        turned = Rotation.from_euler("x", [90], True) * turned
    return turned, t


@pytest.mark.parametrize("up", ["y", "z"])
def test_the_pelvis_near_its_pole(models: ModelSet, up: str) -> None:
    """What docs/labels.md says: with z up, tilt and rotation run away where the pelvis itself hardly turns."""
    turned, t = curve(up)
    frame = SkelModel(models.skel_of("male"), dtype=torch.float64).frames(torch.zeros(10).double()).frame[0]
    poses = random_poses(1).repeat(len(t), 0)
    poses[:, :3] = root_angles(frame.expand(len(t), 3, 3), torch.tensor(turned.as_matrix())).numpy()
    found = make_continuous(poses)
    steps = np.degrees(np.abs(np.diff(found, axis=0))).max(0)
    assert np.degrees((turned[:-1].inv() * turned[1:]).magnitude()).max() < 2.1
    assert (steps[3:] == 0).all()
    tilt, side, rotation = steps[:3]
    assert side < 2.1
    assert tilt < 2.1 and rotation < 2.1 if up == "y" else 15 < tilt < 180 and 15 < rotation < 180
