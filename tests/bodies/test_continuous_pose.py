"""Continuous poses: there and back, half turns, the Euler poles, and gradients that stay bounded."""

from __future__ import annotations

from math import pi

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from skelfit.bodies.ball_joints import BALL_JOINTS
from skelfit.bodies.continuous_pose import (
    angles_to_matrices,
    angles_to_pose,
    pose_to_angles,
    pose_to_matrices,
    unit,
)
from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS, dof_index, dof_limits, dofs_of_joint
from skelfit.bodies.kinematics import dof_rotations, make_rig
from skelfit.bodies.model_set import ModelSet

LOW, HIGH = (torch.tensor(np.nan_to_num(side, posinf=3.0, neginf=-3.0)) for side in dof_limits().T)


def random_angles(*batch: int) -> torch.Tensor:
    """Within the limits, and 0.05 rad off them: off the poles, where the angles are not told apart."""
    low, high = LOW + 0.05, HIGH - 0.05
    q = low + (high - low) * torch.rand(*batch, NUM_DOFS, dtype=torch.float64)
    q[..., ROOT_DOFS[1]] /= 2.2  # the middle angle of the pelvis: its triple is the first of the two
    return q


@pytest.mark.parametrize("batch", [(), (2,), (2, 2, 2)])
def test_there_and_back(batch: tuple[int, ...]) -> None:
    q = random_angles(*batch)
    pose = angles_to_pose(q)
    assert pose.shape == (*batch, 24, 6)
    torch.testing.assert_close(pose_to_angles(pose), q, rtol=0, atol=1e-9)


def test_lengths_of_predicted_vectors_do_not_matter() -> None:
    q = random_angles(50)
    pose = angles_to_pose(q)
    longer = pose * 3.0
    hands = [dof_index(f"wrist_{d}_{s}") for s in "rl" for d in ("flexion", "deviation")]
    others = [i for i in range(NUM_DOFS) if i not in hands]
    torch.testing.assert_close(pose_to_angles(longer)[:, others], q[:, others], rtol=0, atol=1e-9)
    torch.testing.assert_close(pose_to_angles(longer)[:, hands], 3 * q[:, hands])


def test_rotations_are_those_of_the_body(models: ModelSet) -> None:
    """Rotations, and a joint's first two rows, against the product of the turns of its DoFs."""
    q = random_angles(20)
    turns = dof_rotations(make_rig(models.skel_of("male")), q)
    pose = angles_to_pose(q)
    for j in range(24):
        expected = torch.eye(3, dtype=q.dtype)
        for i in dofs_of_joint(j):
            expected = turns[:, i] @ expected
        torch.testing.assert_close(angles_to_matrices(q)[:, j], expected)
        torch.testing.assert_close(pose_to_matrices(pose)[:, j], expected)
        if j in BALL_JOINTS:
            torch.testing.assert_close(pose[:, j], torch.cat((expected[:, 0], expected[:, 1]), -1))


# The conventions of HSMR's public code: the order and the signs of a joint's Euler angles, outermost turn first.
CONVENTIONS = {
    "YXZ": {0: (1, 1, 1), 1: (1, 1, 1), 6: (1, -1, -1)},
    "YZX": {11: (1, 1, 1), 12: (1, 1, 1), 13: (1, 1, 1)},
    "XZY": {14: (1, -1, -1), 19: (1, 1, 1)},
    "ZYX": {15: (1, 1, 1), 20: (1, 1, 1)},
}


def test_numbers_mean_what_they_mean_in_published_networks() -> None:
    """Against scipy's Euler angles, in the published conventions: another convention would scramble their weights."""
    q = random_angles(20)
    pose = angles_to_pose(q)
    for convention, joints in CONVENTIONS.items():
        for joint, signs in joints.items():
            angles = (q[:, dofs_of_joint(joint)] * torch.tensor(signs)).numpy()[:, ::-1]
            rows = Rotation.from_euler(convention, angles).as_matrix()[:, :2].reshape(-1, 6)
            np.testing.assert_allclose(pose[:, joint].numpy(), rows, atol=1e-12)
    assert sorted(j for joints in CONVENTIONS.values() for j in joints) == list(BALL_JOINTS)
    for joint in (2, 3, 4, 5, 7, 8, 9, 10, 16, 17, 21, 22):
        (dof,) = dofs_of_joint(joint)
        torch.testing.assert_close(pose[:, joint, 0], torch.cos(q[:, dof]))
        torch.testing.assert_close(pose[:, joint, 1], -torch.sin(q[:, dof]))
    for joint in (18, 23):
        assert torch.equal(pose[:, joint, :2], q[:, dofs_of_joint(joint)])


@pytest.mark.parametrize("batch", [(), (2,), (2, 2, 2)])
def test_rotations_of_any_batch_and_any_length(batch: tuple[int, ...]) -> None:
    """Numbers as networks predict them: no orthonormal rows."""
    pose = torch.randn(*batch, 24, 6, dtype=torch.float64)
    rotations = pose_to_matrices(pose)
    assert rotations.shape == (*batch, 24, 3, 3)
    torch.testing.assert_close(rotations, angles_to_matrices(pose_to_angles(pose)))
    torch.testing.assert_close(rotations @ rotations.mT, torch.eye(3, dtype=pose.dtype).expand_as(rotations))
    torch.testing.assert_close(torch.linalg.det(rotations), torch.ones(*batch, 24, dtype=pose.dtype))


def test_gradients_of_rotations_are_right_at_the_poles() -> None:
    q = random_angles(2)
    q[:, [dofs_of_joint(j)[1] for j in BALL_JOINTS]] = pi / 2
    torch.autograd.gradcheck(angles_to_matrices, q.requires_grad_())
    torch.autograd.gradcheck(pose_to_matrices, angles_to_pose(q).detach().requires_grad_())


def test_half_turns_are_no_jump() -> None:
    q = torch.zeros(2, NUM_DOFS, dtype=torch.float64)
    q[0, 0], q[1, 0] = pi - 1e-6, -pi + 1e-6
    q[0, dof_index("ankle_angle_r")], q[1, dof_index("ankle_angle_r")] = pi - 1e-6, -pi + 1e-6
    pose = angles_to_pose(q)
    torch.testing.assert_close(pose[0], pose[1], rtol=0, atol=1e-5)


def test_what_means_nothing_changes_nothing() -> None:
    pose = angles_to_pose(random_angles(5))
    used = (pose != 0).any(0)
    assert int(used.sum()) == 10 * 6 + 12 * 2 + 2 * 2
    torch.testing.assert_close(pose_to_angles(torch.where(used, pose, 7.0)), pose_to_angles(pose))


def test_gradients_are_right_off_the_poles() -> None:
    pose = angles_to_pose(0.8 * random_angles(3)) + 0.05 * torch.randn(3, 24, 6, dtype=torch.float64)
    middles = [dofs_of_joint(j)[1] for j in BALL_JOINTS]
    assert torch.cos(pose_to_angles(pose)[:, middles]).min() > 0.15  # where gradients are not damped
    torch.autograd.gradcheck(pose_to_angles, pose.requires_grad_())
    torch.autograd.gradcheck(angles_to_pose, random_angles(2).requires_grad_())


@pytest.mark.parametrize("off", [0.0, 1e-9, 1e-6, 1e-3, 1e-2])
@pytest.mark.parametrize("sign", [-1, 1])
def test_gradients_stay_bounded_near_the_poles(off: float, sign: int) -> None:
    q = random_angles(20).float()
    q[:, [dofs_of_joint(j)[1] for j in BALL_JOINTS]] = sign * (pi / 2 - off)
    pose = angles_to_pose(q).requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda p: pose_to_angles(p).sum(0), pose)
    assert torch.isfinite(jacobian).all()
    assert jacobian.abs().max() < 15


def test_a_pose_near_a_pole_can_be_learned() -> None:
    """Damped gradients still lead to a rotation that angles hardly tell: a shoulder at its pole."""
    q = random_angles(8).float()
    q[:, [dofs_of_joint(j)[1] for j in BALL_JOINTS]] = pi / 2 - 1e-3
    target = angles_to_pose(q)
    pose = (target + 0.3 * torch.randn_like(target)).requires_grad_()
    optimizer = torch.optim.Adam([pose], lr=0.02)
    for _ in range(300):
        optimizer.zero_grad()
        loss = (angles_to_pose(pose_to_angles(pose)) - target).square().sum()
        loss.backward()
        optimizer.step()
    assert loss.item() < 1e-3


@pytest.mark.parametrize("length", [0.0, 1e-30, 1e-8, 1e-3])
def test_vectors_of_no_length_have_angles_and_bounded_gradients(length: float) -> None:
    pose = (length * torch.randn(4, 24, 6)).requires_grad_()
    q = pose_to_angles(pose)
    q.sum().backward()
    assert torch.isfinite(q).all()
    assert pose.grad is not None and torch.isfinite(pose.grad).all()
    assert pose.grad.abs().max() < 1000


def test_parallel_vectors_have_angles_and_bounded_gradients() -> None:
    pose = torch.ones(1, 24, 6).requires_grad_()
    q = pose_to_angles(pose)
    q.sum().backward()
    assert torch.isfinite(q).all()
    assert pose.grad is not None and pose.grad.abs().max() < 1000


def test_unit_of_nothing_is_the_first_axis() -> None:
    assert unit(torch.zeros(2, 3)).tolist() == [[1.0, 0.0, 0.0]] * 2
