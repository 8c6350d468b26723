"""The study of sequences: its measures on motions whose answers are known, and a short run of it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from scipy.spatial.transform import Rotation

import tools.studies.__main__
import tools.studies.sequences as study
from skelfit.bodies.dofs import NUM_DOFS, dof_index
from skelfit.bodies.model_set import ModelSet
from skelfit.verification.measures.joint_turns import LABEL_BODY, fit_rotations, label_rotations
from tools.studies.__main__ import study_command
from tools.studies.motion_measures import (
    jitter_deg,
    lag_frames,
    largest_step_deg,
    opposite_share,
    speeds,
)
from tools.studies.motions import Motion, make_motion


def turning(angles_deg: np.ndarray) -> np.ndarray:
    """Rotations (F,24,4) of joints that all turn about one axis of the body, which the joint before has tilted."""
    tilt = Rotation.from_euler("xy", [70, 40], degrees=True)
    turn = Rotation.from_rotvec(np.radians(angles_deg)[:, None] * [0, 0, 1.0])
    return np.repeat((tilt * turn).as_quat().astype(np.float32)[:, None], 24, axis=1)


def test_jitter_and_steps_of_known_turns() -> None:
    time = np.arange(20.0)
    assert jitter_deg(turning(3 * time)) == pytest.approx(0, abs=1e-4)  # steady, whatever the speed
    assert jitter_deg(turning(0.5 * 0.8 * time**2)) == pytest.approx(0.8, rel=1e-4)
    assert jitter_deg(turning(np.where(time % 2, 1.0, -1.0))) == pytest.approx(
        4, rel=1e-4
    )  # to and fro by 2 deg
    jump = np.where(time < 7, 0.0, 25.0)
    assert largest_step_deg(turning(jump)) == pytest.approx(25, rel=1e-4)
    assert speeds(turning(3 * time), 0, 60.0) == pytest.approx(180, rel=1e-4)


def test_measures_do_not_depend_on_euler_angles() -> None:
    """A shoulder whose angles jump to their twins, and by whole turns, stands still."""
    poses = torch.zeros(4, NUM_DOFS)
    x, y, z = (dof_index(f"shoulder_r_{axis}") for axis in "xyz")
    poses[:, [x, y, z]] = torch.tensor([0.3, 1.2, -0.4])
    poses[1::2, x] += np.pi
    poses[1::2, y] = np.pi - poses[1::2, y]
    poses[1::2, z] += np.pi
    poses[2, dof_index("knee_angle_r")] += 2 * np.pi
    assert largest_step_deg(fit_rotations(poses.numpy())) < 1e-3
    poses[3, dof_index("elbow_flexion_l")] = np.radians(11)
    assert largest_step_deg(fit_rotations(poses.numpy())) == pytest.approx(11, abs=1e-2)


def test_neither_the_root_nor_hands_of_labels_count() -> None:
    pose, known = np.zeros((3, 24, 3)), np.ones(3, bool)
    pose[1, 0] = 1.0
    assert largest_step_deg(label_rotations(pose, known)) == 0
    pose[1, 22:] = 1.0
    assert jitter_deg(label_rotations(pose, known), LABEL_BODY) == 0
    pose[2, 21, 0] = 0.1
    result = jitter_deg(label_rotations(pose, known), LABEL_BODY)
    assert result == pytest.approx(np.degrees(0.1) / 21, rel=1e-4)


@pytest.mark.parametrize("late", [-2.0, -0.3, 0.0, 0.4, 1.0, 3.6])
def test_a_lag_is_measured_between_frames_too(late: float) -> None:
    time = np.arange(80.0)

    def bump(at: float) -> np.ndarray:
        return 1500 * np.exp(-0.5 * ((time - at) / 4) ** 2) + 20 * np.sin(time / 7)

    assert lag_frames(bump(40 + late), bump(40)) == pytest.approx(late, abs=0.05)


def test_opposite_flexion_needs_both_joints() -> None:
    poses = torch.zeros(5, NUM_DOFS)
    degrees = [
        ("extension", 8, -6),
        ("bending", 8, -4),
        ("twist", -20, 7),
        ("bending", 9, 9),
        ("extension", 0, -30),
    ]
    for pose, (motion, lumbar, thorax) in zip(poses, degrees, strict=True):
        pose[dof_index(f"lumbar_{motion}")] = np.radians(lumbar)
        pose[dof_index(f"thorax_{motion}")] = np.radians(thorax)
    assert opposite_share(poses) == pytest.approx(2 / 5)


def test_missed_goals_are_named() -> None:
    good = {
        "label": {"jitter_deg": 1.0, "largest_step_deg": 10.0},
        "together": {"jitter_deg": 1.29, "largest_step_deg": 14.9, "lag_frames": 0.9},
        "pve_cost": 0.019,
    }
    assert study.missed(good) == []
    bad = {"jitter_deg": 1.31, "largest_step_deg": 15.1, "lag_frames": -1.1}
    assert study.missed(good | {"together": bad, "pve_cost": 0.021}) == [
        "jitter",
        "largest step",
        "PVE",
        "lag",
    ]


def test_the_study(models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of two motions, cut short."""

    def cut(name: str, first: int, stop: int) -> Motion:
        whole = make_motion(name)
        return replace(whole, **{k: getattr(whole, k)[first:stop] for k in ("pose", "betas", "transl")})

    monkeypatch.setattr(tools.studies.__main__, "find_models", lambda _: models)
    monkeypatch.setattr(study, "make_motions", lambda: (cut("kick", 76, 106), cut("arm circles", 60, 90)))
    path = tmp_path / "study.json"
    given = ["sequences", "--device", "cpu", "--people", "24", "--json", str(path)]
    result = CliRunner().invoke(study_command, given)
    assert result.exit_code == 0, result.output
    kick, arms, long = json.loads(path.read_text())["records"]
    assert [r["sequence"] for r in (kick, arms, long)] == ["kick", "arm circles", "long run"]
    for r in (kick, arms):
        assert r["frames"] == 30 and r["gender"] == "male"
        assert r["together"]["jitter_deg"] < r["alone"]["jitter_deg"]
        cost = r["together"]["pve_mm"]["mean"] / r["alone"]["pve_mm"]["mean"] - 1
        assert r["pve_cost"] == pytest.approx(cost) and 1 < r["alone"]["pve_mm"]["mean"] < 10
        assert r["together"]["betas_spread"] < 1e-6
    assert 1450 < kick["label"]["peak_deg_s"] < 1600
    assert abs(kick["together"]["lag_frames"]) < 1 and "lag_frames" not in arms["together"]
    assert arms["together"]["largest_step_deg"] < arms["label"]["largest_step_deg"] + 5
    assert long["frames"] == 24 and long["speed_ratio"] > 0
    assert "kick: tibia_r of the label 15" in result.output
