"""The closed-form start: root, betas, angles of ball joints and of whole bodies."""

from __future__ import annotations

from math import pi

import pytest
import roma
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import (
    BALL_JOINTS,
    angles_to_rotation,
    ball_joints,
    rotation_to_angles,
)
from skelfit.bodies.dofs import NUM_DOFS, dof_limits, limits_middle
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.start.betas_transfer import beta_map
from skelfit.fitting.start.warm_start import root_angles, root_translation
from tools.studies.ball_steps import apply_step, ball_step
from tools.studies.body_angles import body_angles


def test_root_is_exact_at_the_poles_too(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("male"))
    frames = model.frames(torch.randn(500, 10))
    rot = roma.random_rotmat(500)
    for k, vector in enumerate(pi / 2 * torch.cat((torch.eye(3), -torch.eye(3)))):
        rot[k] = roma.rotvec_to_rotmat(vector) @ roma.rotvec_to_rotmat(torch.tensor([0.0, 0.3 * k, 0.0]))
    q = torch.zeros(500, NUM_DOFS)
    q[:, :3] = root_angles(frames.frame[:, 0], rot)
    assert (model.joints(frames, q).rot[:, 0] - rot).abs().max() < 2e-6


def test_root_translation_moves_the_skin_as_smpl_does(models: ModelSet) -> None:
    """Two different pivots, one rigid motion."""
    smpl, skel = SmplModel(models.smpl_of("male")), SkelModel(models.skel_of("male"))
    betas, transl = torch.randn(20, 10), torch.randn(20, 3)
    rot = roma.random_rotmat(20)
    points = torch.randn(20, 50, 3)
    j_smpl, j_skel = smpl.root_joint(betas), skel.frames(betas).joints[:, 0]
    assert (j_smpl - j_skel).norm(dim=-1).min() > 1e-3  # otherwise the test shows nothing
    trans = root_translation(transl, rot, j_smpl, j_skel)
    as_smpl = (points - j_smpl[:, None]) @ rot.mT + (j_smpl + transl)[:, None]
    as_skel = (points - j_skel[:, None]) @ rot.mT + (j_skel + trans)[:, None]
    assert (as_smpl - as_skel).abs().max() < 2e-6


def test_beta_map(models: ModelSet) -> None:
    """The identity within a gender; across genders the least-squares optimum."""
    smpl, skel = SmplModel(models.smpl_of("female")), SkelModel(models.skel_of("female"))
    offset, matrix = beta_map(smpl, skel)
    assert offset.abs().max() < 1e-4 and (matrix - torch.eye(10)).abs().max() < 1e-4
    smpl = SmplModel(models.smpl_of("neutral"))
    offset, matrix = beta_map(smpl, skel)
    betas = torch.randn(10)
    goal = smpl.v_template + smpl.shapedirs @ betas

    def distance(skel_betas: Tensor) -> Tensor:
        return (skel.shape(skel_betas).v_rest - goal).square().sum()

    best = offset + matrix @ betas
    for k in range(10):
        for sign in (-0.05, 0.05):
            assert distance(best + sign * torch.eye(10)[k]) > distance(best)


def test_warm_start_recovers_rotations_that_skel_can_make(models: ModelSet) -> None:
    """Hips, knees, spine, head and arms of SKEL poses, written as SMPL rotations, come back."""
    model = SkelModel(models.skel_of("male"))
    low, high = torch.tensor(dof_limits()).float().unbind(-1)
    q = 0.7 * (low + (high - low) * torch.rand(200, NUM_DOFS))
    q[:, :3] = 0
    q[:, 20:23] = 0  # thorax shares spine2 and spine3; zero leaves one answer
    frames = model.frames(torch.zeros(200, 10))
    local = model.joints(frames, q).local_rot
    smpl = torch.eye(3).repeat(200, 24, 1, 1)
    smpl[:, [1, 2, 3, 4, 5, 10, 11, 12]] = local[:, [6, 1, 11, 7, 2, 10, 5, 13]]
    start = body_angles(frames.frame, smpl)
    kept = [3, 4, 5, 6, 9, 10, 11, 12, 13, 16, 17, 18, 19, 23, 24, 25]
    assert (start[:, kept] - q[:, kept]).abs().max() < 1e-4


def test_ball_joint_angles_round_trip() -> None:
    ball = ball_joints(BALL_JOINTS, "cpu", torch.float64)
    shape = (300, len(BALL_JOINTS), 3)
    angles = 2 * pi * (torch.rand(shape, dtype=torch.float64) - 0.5)
    angles[:60, :, 1] = pi / 2  # exactly at a pole
    rot = angles_to_rotation(ball, angles)
    recovered = rotation_to_angles(ball, rot, near=torch.zeros(shape, dtype=torch.float64))
    assert (angles_to_rotation(ball, recovered) - rot).abs().max() < 1e-7
    middle = torch.tensor(limits_middle()).float()
    assert middle[29] == pytest.approx(0.75)  # the right shoulder's x reaches beyond half a turn
    assert ((recovered - ball.middle).abs() <= pi + 1e-9).all()


def test_ball_joint_angles_within_limits_are_kept() -> None:
    """Of the two Euler triples of a rotation, the one within the limits is taken, from any start."""
    ball = ball_joints(BALL_JOINTS[1:], "cpu", torch.float64)
    low, high = ball.limits.unbind(-1)
    angles = low + (high - low) * (
        0.02 + 0.96 * torch.rand(400, len(BALL_JOINTS) - 1, 3, dtype=torch.float64)
    )
    recovered = rotation_to_angles(ball, angles_to_rotation(ball, angles), near=torch.randn_like(angles))
    assert (recovered - angles).abs().max() < 1e-6


def test_a_ball_joint_moves_as_a_rotation() -> None:
    ball = ball_joints(BALL_JOINTS, "cpu", torch.float64)
    angles = torch.randn(50, len(BALL_JOINTS), 3, dtype=torch.float64)
    step = ball_step(ball, angles, 0.5 * torch.randn_like(angles))
    share = torch.rand(50, dtype=torch.float64)
    turn = roma.rotvec_to_rotmat(share[:, None, None] * step.rotvec)
    expected = turn @ angles_to_rotation(ball, angles)
    assert (angles_to_rotation(ball, apply_step(ball, step, share)) - expected).abs().max() < 1e-9
