"""Export of people in motion: GLB read by trimesh and played by the specification, BVH read by bvhio."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import bvhio
import numpy as np
import pytest
import torch
import trimesh
from export_fakes import Fields, export, make_fields, make_metas, write_run
from glb_player import GlbPlayer
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import SKEL_JOINT_NAMES, SKEL_PARENTS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.errors import OutputError
from skelfit.exports.animation_files.bvh_text import euler_angles
from skelfit.exports.exporter import ExportOptions

FRAMES, RATE = [7, 8, 9, 12, 13, 14, 15], 25.0  # two were not fitted
ROWS = len(FRAMES)
TO_VIEWER = np.array([1, -1, -1])  # of the camera frame: x right, y up, z towards the camera


@dataclass(frozen=True)
class Made:
    """A walk of ROWS frames in a camera frame, and 12 people in no sequence."""

    run: Path
    fields: Fields
    models: ModelSet

    def body(self, rows: slice, gender: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Joints (N,24,3), skin (N,V,3) and bones (N,Vs,3) m as the model has them, for viewers."""
        model = SkelModel(self.models.skel_of(gender), dtype=torch.float64)
        parts = (self.fields[f"skel_{part}"][rows].astype(float) for part in ("betas", "poses", "trans"))
        betas, q, trans = (torch.tensor(part) for part in parts)
        shape = model.shape(betas)
        posed = model.forward(shape, q, trans)
        bones = model.bones(shape, q, trans).numpy() * TO_VIEWER
        return posed.joints.numpy() * TO_VIEWER, posed.vertices.numpy() * TO_VIEWER, bones


@pytest.fixture(scope="module")
def made(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Made:
    fields = make_fields(ROWS + 12)
    low, high = np.clip(dof_limits(), -1, 1).T
    waves = np.sin(np.array(FRAMES)[:, None] / 4 + np.random.default_rng(1).uniform(0, 6, 46))
    fields["skel_poses"][:ROWS] = (low + high) / 2 + 0.49 * (high - low) * waves
    fields["skel_betas"][:ROWS] = fields["skel_betas"][0]
    fields["skel_betas"][1:ROWS:2, 0] += 0.2  # frames may differ in betas
    metas = make_metas(
        ROWS + 12,
        sequence=["walk/1"] * ROWS + [None] * 12,
        frame=[*FRAMES, *[None] * 12],
        fitted_rate=[RATE] * ROWS + [None] * 12,
        skel_gender=["female"] * ROWS + ["male"] * 12,
    )
    folder = tmp_path_factory.mktemp("animation") / "run"
    run = write_run(folder, fields, metas, models_sha256=models.sha256, shard_size=32)
    return Made(run, fields, models)


def test_glb_plays_joints_and_skin(tmp_path: Path, made: Made) -> None:
    options = ExportOptions(made.models, frame_rate=RATE)
    result = export("glb", made.run, tmp_path / "out", options)
    assert result.files[:2] == ("walk_1.glb", "people-0-00000007.glb") and len(result.files) == 11
    assert result.people == ROWS + 10 and "the first 10; others with --limit N" in result.notes[1]
    player = GlbPlayer(tmp_path / "out" / "walk_1.glb")
    joints, skin, _ = made.body(slice(ROWS), "female")
    times = player.times()
    np.testing.assert_allclose(times, (np.array(FRAMES) - FRAMES[0]) / RATE, atol=1e-6)
    away = []
    for row, time in enumerate(times):
        matrices = player.matrices(time)
        for joint, name in enumerate(SKEL_JOINT_NAMES):
            np.testing.assert_allclose(matrices[name][:3, 3], joints[row, joint], atol=1e-5)
        away.append(np.linalg.norm(player.vertices("skin", time) - skin[row], axis=1))
    # Correctives change with the pose and meshes do not: the file and the terminal say by how much.
    said = player.document["scenes"][0]["extras"]["skin_to_skel"]
    assert said["mean_mm"] == pytest.approx(1000 * np.mean(away), abs=1e-3)
    assert said["max_mm"] == pytest.approx(1000 * np.max(away), abs=1e-2)
    assert 0.1 < said["mean_mm"] < 3 and said["max_mm"] < 30
    assert f"{said['max_mm']:.1f} mm at most" in result.notes[2]
    scene = trimesh.load_scene(tmp_path / "out" / "walk_1.glb", process=False)
    for joint, name in enumerate(SKEL_JOINT_NAMES):
        np.testing.assert_allclose(scene.graph[name][0][:3, 3], joints[0, joint], atol=1e-5)
    asset = made.models.skel_of("female")
    for name, faces in (("skin", asset.faces), ("bones", asset.bone_faces)):
        np.testing.assert_array_equal(scene.geometry[name].faces, faces)
    assert (np.einsum("vi,vi->v", scene.geometry["skin"].vertex_normals, _outward(scene)) > 0).mean() > 0.99


def _outward(scene: trimesh.Scene) -> np.ndarray:
    skin = scene.geometry["skin"]
    return np.asarray(trimesh.Trimesh(skin.vertices, skin.faces, process=False).vertex_normals)


def test_a_person_of_one_frame_has_all_correctives_and_bones(tmp_path: Path, made: Made) -> None:
    key = f"people-0-{ROWS:08d}"
    result = export("glb", made.run, tmp_path / "out", ExportOptions(made.models, keys=(key,)))
    assert result.files == (f"{key}.glb",)
    player = GlbPlayer(tmp_path / "out" / f"{key}.glb")
    assert "animations" not in player.document
    joints, skin, bones = made.body(slice(ROWS, ROWS + 1), "male")
    matrices = player.matrices()
    np.testing.assert_allclose([matrices[n][:3, 3] for n in SKEL_JOINT_NAMES], joints[0], atol=1e-5)
    np.testing.assert_allclose(player.vertices("bones"), bones[0], atol=1e-5)
    away = np.linalg.norm(player.vertices("skin") - skin[0], axis=1)
    assert away.mean() < 1e-4 and away.max() < 5e-3  # what a fifth joint of few vertices did
    facts = player.document["scenes"][0]["extras"]
    assert (facts["key"], facts["skel_gender"], facts["coordinates"]) == (key, "male", "camera")


def test_bvh_plays_joints(tmp_path: Path, made: Made) -> None:
    result = export("bvh", made.run, tmp_path / "out", ExportOptions(made.models))
    assert "a sequence has no frame rate in the labels: the fit's is taken" in result.notes[1]
    assert "2 missing frames lie between their neighbours" in " ".join(result.notes)
    joints, skin, _ = made.body(slice(ROWS), "female")
    path = tmp_path / "out" / "walk_1.bvh"
    container = bvhio.readAsBvh(str(path))
    assert container.FrameCount == 9 and container.FrameTime == pytest.approx(1 / RATE)
    root = bvhio.readAsHierarchy(str(path))
    found = np.empty((9, 24, 3))
    tree = {}
    for frame in range(9):
        root.loadPose(frame)
        for joint, _, _ in root.layout():
            found[frame, SKEL_JOINT_NAMES.index(joint.Name)] = np.array(joint.PositionWorld)
            tree[joint.Name] = joint.Parent.Name if joint.Parent else None
    assert tree == {
        name: SKEL_JOINT_NAMES[parent] if parent >= 0 else None
        for name, parent in zip(SKEL_JOINT_NAMES, SKEL_PARENTS, strict=True)
    }
    np.testing.assert_allclose(found[np.array(FRAMES) - 7], joints, atol=2e-5)
    pelvis = np.linspace(joints[2, 0], joints[3, 0], 4)
    np.testing.assert_allclose(found[2:6, 0], pelvis, atol=2e-5)  # the frames that were not fitted
    steps = np.abs(np.diff(found[2:6], axis=0)).max(axis=(1, 2))
    assert steps.max() < 2 * steps.min()
    lines = path.read_text().splitlines()
    assert lines.count("MOTION") == 1 and path.read_text().count("End Site") == 5
    person = bvhio.readAsHierarchy(str(tmp_path / "out" / f"people-0-{ROWS:08d}.bvh"))
    person.loadPose(0)
    alone = made.body(slice(ROWS, ROWS + 1), "male")[0][0]
    for joint, _, _ in person.layout():
        expected = alone[SKEL_JOINT_NAMES.index(joint.Name)]
        np.testing.assert_allclose(np.array(joint.PositionWorld), expected, atol=2e-5)


def test_euler_angles_are_exact_at_poles_and_turn_without_jumps() -> None:
    random = Rotation.random(200, random_state=np.random.default_rng(0)).as_matrix()[:, None]
    poles = Rotation.from_euler("ZXY", [[20, 90, 30], [0, -90, 50], [80, 90 - 1e-7, 10]], degrees=True)
    turns = np.concatenate([random, poles.as_matrix()[:, None]])
    back = Rotation.from_euler("ZXY", euler_angles(turns)[:, 0]).as_matrix()
    np.testing.assert_allclose(back, turns[:, 0], atol=1e-12)
    spin = np.linspace(0, 6 * np.pi, 200)
    for axis in "zy":
        turning = Rotation.from_euler(axis, spin[:, None]) * Rotation.from_euler("xy", [0.3, 0.2])
        angles = euler_angles(turning.as_matrix()[:, None])[:, 0]
        assert np.abs(np.diff(angles, axis=0)).max() < 0.6
        np.testing.assert_allclose(
            Rotation.from_euler("ZXY", angles).as_matrix(), turning.as_matrix(), atol=1e-12
        )


def test_files_of_the_user_are_not_replaced(tmp_path: Path, made: Made) -> None:
    out, options = tmp_path / "out", ExportOptions(made.models, limit=2)
    assert export("bvh", made.run, out, options).people == 2
    with pytest.raises(OutputError, match="holds files already"):
        export("bvh", made.run, out, options)
    assert sorted(path.name for path in out.glob("*.bvh")) == [f"people-0-0000000{i}.bvh" for i in range(2)]
