"""Clinical angles beside the vector formulas of Grood and Suntay, and movements whose angles are known."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from export_fakes import export, make_fields, make_metas, write_run

from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.exports.exporter import ExportOptions
from skelfit.exports.opensim_files.clinical_angles import CLINICAL_NAMES, anatomical_frames, clinical_angles

Array = np.ndarray


@cache
def skel_of(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


class People:
    """N people of one shape, posed."""

    def __init__(self, models: ModelSet, poses: Array) -> None:
        self.skel = skel_of(models)
        betas = torch.tensor(np.random.default_rng(0).normal(size=(1, 10))).expand(len(poses), -1)
        self.frames = self.skel.frames(betas)
        posed = self.skel.joints(self.frames, torch.tensor(poses))
        self.joints = {name: posed.pos[:, j].numpy() for j, name in enumerate(SKEL_JOINT_NAMES)}
        turned = posed.rot @ self.frames.frame
        self.axes = {name: turned[:, j].numpy() for j, name in enumerate(SKEL_JOINT_NAMES)}
        segments = anatomical_frames(self.skel.rig, self.frames)
        values = np.degrees(clinical_angles(turned.numpy(), segments))
        self.angles = dict(zip(CLINICAL_NAMES, values.T, strict=True))


def moved(models: ModelSet, **degrees: float) -> dict[str, float]:
    """How much each clinical angle differs from that of the T-pose."""
    poses = np.zeros((2, 46))
    for name, value in degrees.items():
        poses[1, dof_index(name)] = np.radians(value)
    return {name: float(values[1] - values[0]) for name, values in People(models, poses).angles.items()}


@pytest.mark.parametrize("side", ["r", "l"])
def test_a_movement_has_the_sign_that_its_name_says(models: ModelSet, side: str) -> None:
    sign = 1 if side == "r" else -1
    for movement, degrees, name, expected in (
        ("hip_flexion_{}", 30, "hip_flexion", 30),
        ("hip_adduction_{}", 20, "hip_adduction", 20),
        ("hip_rotation_{}", 20, "hip_internal_rotation", 20),
        ("knee_angle_{}", 40, "knee_flexion", 40),
        ("ankle_angle_{}", 15, "ankle_dorsiflexion", 15),
        ("subtalar_angle_{}", 15, "ankle_inversion", 12),
        ("shoulder_{}_x", 60 * sign, "shoulder_elevation", -60),  # the T-pose's arm goes down
        ("shoulder_{}_y", 30 * sign, "shoulder_internal_rotation", 30),
        ("shoulder_{}_z", 30, "shoulder_plane", 30),
        ("elbow_flexion_{}", 50, "elbow_flexion", 50),
        ("pro_sup_{}", 40, "elbow_pronation", 40),
    ):
        difference = moved(models, **{movement.format(side): degrees})
        assert difference[f"{name}_{side}"] == pytest.approx(expected, abs=1.5), (movement, difference)
        other = "l" if side == "r" else "r"
        assert all(abs(value) < 1e-9 for n, value in difference.items() if n.endswith(f"_{other}"))


def test_the_trunk_has_the_sign_that_its_name_says(models: ModelSet) -> None:
    for movement, name, expected in (
        ("lumbar_extension", "trunk_flexion", -10),
        ("thorax_extension", "trunk_flexion", -10),
        ("lumbar_bending", "trunk_bending_right", 10),
        ("thorax_twist", "trunk_rotation_left", 10),
    ):
        assert moved(models, **{movement: 10})[name] == pytest.approx(expected, abs=0.5)
    turned = moved(models, pelvis_tilt=40, pelvis_list=20, pelvis_rotation=70)
    assert max(map(abs, turned.values())) < 1e-9  # no angle depends on where a person faces


def test_the_t_pose_is_a_t_pose(models: ModelSet) -> None:
    angles = {name: values[0] for name, values in People(models, np.zeros((1, 46))).angles.items()}
    for name in ("trunk_flexion", "trunk_bending_right", "trunk_rotation_left"):
        assert abs(angles[name]) < 1e-9
    for side in "rl":
        assert angles[f"shoulder_elevation_{side}"] == pytest.approx(90, abs=8)
        assert angles[f"shoulder_plane_{side}"] == pytest.approx(0, abs=8)
        assert angles[f"shoulder_internal_rotation_{side}"] == pytest.approx(0, abs=8)  # elbows bend forward
        assert angles[f"elbow_pronation_{side}"] == pytest.approx(90, abs=8)  # palms down, thumbs forward
        assert angles[f"knee_flexion_{side}"] == pytest.approx(0, abs=8)
        assert angles[f"ankle_dorsiflexion_{side}"] == pytest.approx(0, abs=8)


def unit(v: Array) -> Array:
    return v / np.linalg.norm(v, axis=-1, keepdims=True)


def dot(a: Array, b: Array) -> Array:
    return (a * b).sum(-1)


def test_legs_are_as_grood_and_suntay_write_them(models: ModelSet) -> None:
    """Angles between three axes: one of the thigh or pelvis, one of the segment below, and their cross product."""
    low, high = np.clip(dof_limits(), -1, 1).T
    people = People(models, np.random.default_rng(3).uniform(low, high, (40, 46)))
    for side, s in (("r", 1.0), ("l", -1.0)):
        knee_axis = people.axes[f"tibia_{side}"][..., 2]  # to the right; a hinge, so fixed in thigh and shank
        segments = {}
        for name, top, end in (("thigh", "femur", "tibia"), ("shank", "tibia", "talus")):
            long = unit(people.joints[f"{top}_{side}"] - people.joints[f"{end}_{side}"])
            forward = unit(np.cross(long, knee_axis))
            segments[name] = np.stack([forward, long, np.cross(forward, long)], -1)
        segments["pelvis"] = people.axes["pelvis"]
        for upper, lower, bend, tilt, twist in (
            ("pelvis", "thigh", "hip_flexion", "hip_adduction", "hip_internal_rotation"),
            ("thigh", "shank", "knee_flexion", None, None),
        ):
            above, below = segments[upper], segments[lower]
            first, last = above[..., 2], below[..., 1]  # to the right, and along the segment
            floating = unit(np.cross(last, first))
            flexion = np.arctan2(dot(floating, above[..., 1]), dot(floating, above[..., 0]))
            adduction = s * np.arcsin(dot(first, last))
            rotation = s * np.arctan2(dot(floating, below[..., 2]), dot(floating, below[..., 0]))
            bent = np.degrees(-flexion if upper == "thigh" else flexion)
            np.testing.assert_allclose(people.angles[f"{bend}_{side}"], bent, atol=1e-6)
            if tilt and twist:
                np.testing.assert_allclose(people.angles[f"{tilt}_{side}"], np.degrees(adduction), atol=1e-6)
                np.testing.assert_allclose(people.angles[f"{twist}_{side}"], np.degrees(rotation), atol=1e-6)


def test_arms_go_where_their_angles_say(models: ModelSet) -> None:
    """Plane and elevation are the arm's direction from the thorax, as a compass and a plumb line give them."""
    low, high = np.clip(dof_limits(), -1, 1).T
    people = People(models, np.random.default_rng(4).uniform(low, high, (40, 46)))
    rest = people.frames.frame[0, SKEL_JOINT_NAMES.index("thorax")].numpy()
    thorax = people.axes["thorax"] @ rest.T @ np.array([[0.0, 0, -1], [0, 1, 0], [1, 0, 0]])
    for side, outward in (("r", 1.0), ("l", -1.0)):
        arm = unit(people.joints[f"ulna_{side}"] - people.joints[f"humerus_{side}"])
        forward, up, right = np.moveaxis((np.swapaxes(thorax, -1, -2) @ arm[..., None])[..., 0], -1, 0)
        elevation = np.degrees(np.arccos(-up))
        np.testing.assert_allclose(people.angles[f"shoulder_elevation_{side}"], elevation, atol=1e-6)
        plane = np.degrees(np.arctan2(forward, outward * right))
        np.testing.assert_allclose(people.angles[f"shoulder_plane_{side}"], plane, atol=1e-6)


def walk(folder: Path, models: ModelSet, frames: int) -> Path:
    """An exported sequence in which the hips swing and the right shoulder turns round and round."""
    fields = make_fields(frames)
    fields["skel_poses"][:] = 0
    time = np.arange(frames) / 50
    fields["skel_poses"][:, dof_index("hip_flexion_r")] = 0.5 * np.sin(6 * time)
    fields["skel_poses"][:, dof_index("shoulder_r_y")] = 7 * time
    metas = make_metas(
        frames,
        sequence=["walk"] * frames,
        frame=[*range(frames)],
        frame_rate=[50.0] * frames,
        coordinates=["world_z_up"] * frames,
    )
    run = write_run(folder / "run", fields, metas, models_sha256=models.sha256, shard_size=frames)
    export("opensim", run, folder / "out", ExportOptions(models))
    return folder / "out"


def test_the_table_and_the_page_of_a_sequence(
    models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skelfit.exports.opensim_files.angle_page.MAX_FRAMES", 40)
    out = walk(tmp_path, models, 60)
    lines = (out / "walk-clinical.sto").read_text().splitlines()
    start = lines.index("endheader") + 1
    assert "nRows=60" in lines and f"nColumns={len(CLINICAL_NAMES) + 1}" in lines and "inDegrees=yes" in lines
    assert lines[start].split("\t") == ["time", *CLINICAL_NAMES]
    numbers = np.array([line.split("\t") for line in lines[start + 1 :]], float)
    table = dict(zip(lines[start].split("\t"), numbers.T, strict=True))
    swing = np.degrees(0.5 * np.sin(6 * table["time"]))
    np.testing.assert_allclose(table["hip_flexion_r"] - table["hip_flexion_l"], swing, atol=0.5)
    turns = np.diff(table["shoulder_internal_rotation_r"])
    np.testing.assert_allclose(turns, np.degrees(7 / 50), atol=2)  # no jump at half a turn

    page = (out / "walk-angles.html").read_text()
    match = re.search(r'<script type="application/json" id="report">(.*?)</script>', page, re.S)
    assert match and not re.search(r"https?://|<link[^>]*href=\"[^d]|<script[^>]*src", page)
    motion = json.loads(match[1])
    assert motion["frames"] == 60 and motion["every"] == 2 and motion["step"] == 0.04
    assert motion["times"] == pytest.approx(table["time"][::2].tolist())
    assert list(motion["clinical"]) == list(CLINICAL_NAMES) and list(motion["skel"]) == list(DOF_NAMES)
    hip = motion["clinical"]["hip_flexion_r"]
    assert hip["values"] == pytest.approx(table["hip_flexion_r"][::2].tolist(), abs=0.006)
    assert (hip["high"], hip["low"]) == pytest.approx(
        (table["hip_flexion_r"].max(), table["hip_flexion_r"].min()), abs=0.006
    )


NODE = """
const fs = require("fs"), vm = require("vm"), page = fs.readFileSync(process.argv[2], "utf8");
const node = () => ({ innerHTML: "", dataset: {}, children: [], append(n) { this.children.push(n); } });
const nodes = { report: { textContent: page.match(/id="report">([^]*?)<\\/script>/)[1] } };
const document = { getElementById: (id) => (nodes[id] ??= node()), createElement: node, body: node() };
vm.runInNewContext(page.match(/<script>([^]*)<\\/script>/)[1], { document });
const sections = nodes.main.children.map((n) => [n.id, n.innerHTML]);
console.log(JSON.stringify({ ready: document.body.dataset.ready, sections }));
"""


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_the_page_draws_all_angles(models: ModelSet, tmp_path: Path) -> None:
    out = walk(tmp_path, models, 20)
    (tmp_path / "run.js").write_text(NODE)
    command = ["node", str(tmp_path / "run.js"), str(out / "walk-angles.html")]
    drawn = json.loads(subprocess.run(command, capture_output=True, check=True, timeout=60).stdout)
    assert drawn["ready"] == "yes"
    sections = dict(drawn["sections"])
    assert list(sections) == ["clinical", "ranges", "skel"]
    # Right and left share a chart: 3 of the trunk and 12; 12 of the body's middle and 17.
    assert sections["clinical"].count("<svg") == 15 and sections["skel"].count("<svg") == 29
    assert sections["ranges"].count("<tr>") == len(CLINICAL_NAMES) + 1
    for html in sections.values():
        assert not re.search("NaN|undefined|No values", html)
    # A line that is not broken: one move of the pen for each angle.
    assert (
        sections["clinical"].count('d="M') == 27 and len(re.findall(r"[LM]-?\d", sections["clinical"])) > 500
    )
    assert all(path.count("M") == 1 for path in re.findall(r'd="(M[^"]*)"', sections["clinical"]))
