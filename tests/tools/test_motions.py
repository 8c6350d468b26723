"""The made-up motions: smooth, of the speeds that they claim, and through the poles that they are for."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from skelfit.bodies.smpl import SMPL_JOINT_NAMES
from tools.studies.motions import NAMES, Motion, make_motion, make_motions, with_noise
from tools.studies.moving_body import moves

_JOINT = {name: k for k, name in enumerate(SMPL_JOINT_NAMES)}


def local(motion: Motion) -> np.ndarray:
    """Rotations (F,24,3,3) of the joints."""
    return Rotation.from_rotvec(motion.pose.reshape(-1, 3)).as_matrix().reshape(-1, 24, 3, 3)


def steps_deg(motion: Motion) -> np.ndarray:
    """Turns (F-1,24,3) deg from frame to frame."""
    result = local(motion)
    turn = np.swapaxes(result[:-1], -1, -2) @ result[1:]
    return np.degrees(Rotation.from_matrix(turn.reshape(-1, 3, 3)).as_rotvec()).reshape(-1, 24, 3)


def test_there_are_twelve_and_they_are_the_same_every_time() -> None:
    motions = make_motions()
    assert [m.name for m in motions] == list(NAMES)
    assert len(motions) == 12
    assert {m.frame_rate for m in motions} == {30, 60, 100, 120}
    for motion, again in zip(motions, make_motions(), strict=True):
        assert 60 <= len(motion) <= 300
        assert motion.pose.shape == (len(motion), 24, 3)
        assert motion.betas.shape == (len(motion), 10)
        assert motion.transl.shape == (len(motion), 3)
        assert np.array_equal(motion.pose, again.pose)
        assert (motion.betas == motion.betas[0]).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n != "stand, noisy"])
def test_bodies_move_smoothly(name: str) -> None:
    """No joint's speed changes by more than a person's does: 40,000 deg/s^2 in the fastest move."""
    motion = make_motion(name)
    faster = np.linalg.norm(np.diff(steps_deg(motion), axis=0), axis=-1) * motion.frame_rate**2
    assert faster.max() < 40_000
    # Band-limited: a frame is where a cubic through its four neighbours has it, but for a little.
    turns = Rotation.from_rotvec(motion.pose.reshape(-1, 3)).as_matrix().reshape(len(motion), -1)
    fourth = np.abs(np.diff(turns, 4, axis=0)).max()
    assert fourth < 0.1


def test_the_speed_of_the_kick() -> None:
    motion = make_motion("kick")
    speed = motion.frame_rate * np.linalg.norm(steps_deg(motion)[:, _JOINT["r_knee"]], axis=-1)
    assert 1450 < speed.max() < 1600


def test_the_joints_of_the_spine_move_together() -> None:
    """In the dance every joint of the spine bends, extends and twists with the two others."""
    turns = Rotation.from_matrix(local(make_motion("dance"))[:, [3, 6, 9]].reshape(-1, 3, 3))
    angles = turns.as_euler("yzx").reshape(-1, 3, 3)
    for axis in range(3):
        together = np.corrcoef(angles[:, :, axis].T)
        assert together.min() > 0.99


def test_the_turn_and_the_crawl_pass_the_poles_of_the_pelvis() -> None:
    """SKEL's pelvis turns about z, x, y: it is at its pole where the body's z points along the world's y."""
    for name in ("walk", "turn", "crawl"):
        forward = local(make_motion(name))[:, 0, :, 2]
        assert np.abs(forward[:, 1]).max() > np.cos(np.radians(6)), name


def test_the_arm_circles_pass_the_pole_of_the_shoulder() -> None:
    """The humerus turns about x, y, z: it is at its pole where the arm points straight ahead."""
    result = local(make_motion("arm circles"))
    arm = (result[:, _JOINT["l_collar"]] @ result[:, _JOINT["l_shoulder"]])[..., 0]
    assert arm[:, 2].max() > np.cos(np.radians(10))


def test_noise_has_the_given_size() -> None:
    motion = make_motion("walk")
    noisy = with_noise(motion, 0.02, 0.01)
    off = (np.swapaxes(local(motion), -1, -2) @ local(noisy)).reshape(-1, 3, 3)
    turned = Rotation.from_matrix(off).as_rotvec().reshape(-1, 24, 3)
    assert turned[:, _JOINT["l_hip"]].std() == pytest.approx(0.02, rel=0.15)
    assert np.abs(turned[:, _JOINT["l_hand"]]).max() < 1e-5
    assert (noisy.transl - motion.transl).std() == pytest.approx(0.01, rel=0.15)
    assert np.array_equal(noisy.betas, motion.betas)


def test_moves_rest_at_their_stops() -> None:
    time = np.linspace(0, 3, 3001)
    curve = moves(time, (0.5, 1.0), (1.0, 3.0), (2.0, -1.0))
    assert curve[0] == 1.0
    assert curve[-1] == -1.0
    assert curve[1000] == pytest.approx(3.0)
    speed = np.gradient(curve, time)
    assert np.abs(speed[[500, 1000, 2000]]).max() < 0.01
    assert speed.max() == pytest.approx(1.875 * 2.0 / 0.5, rel=1e-3)  # of least jerk
