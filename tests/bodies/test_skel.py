"""SKEL's forward model against body-models, a naive bone mesh and autograd; SMPL against smplx."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import smplx
import torch
from body_models.skel import _pose as oracle_pose
from body_models.skel.torch import SKEL as OracleSkel
from torch import Tensor

from skelfit.bodies.dofs import DOF_NAMES, DOFS, NUM_DOFS, NUM_JOINTS, SKEL_PARENTS, dof_limits
from skelfit.bodies.kinematics import (
    minimal_rotation,
)
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel


def random_people(count: int, spread: float = 2.5) -> tuple[Tensor, Tensor]:
    """Poses (count, 46) far beyond the limits, and betas (count, 10)."""
    return (torch.rand(count, NUM_DOFS) - 0.5) * spread, torch.randn(count, 10)


@pytest.mark.parametrize("gender", ["male", "female"])
def test_forward_agrees_with_body_models(models: ModelSet, official: Path, gender: str) -> None:
    oracle: Any = OracleSkel(model_path=official / f"skel_{gender}.pkl", gender=gender)
    model = SkelModel(models.skel_of(gender))
    q, betas = random_people(24)
    body, head = oracle_pose.unpack_pose(oracle._runtime.xp, q)
    vertices = oracle.forward_vertices(body, head, shape=betas)
    transforms = oracle.forward_skeleton(body, head, shape=betas)
    output = model.forward(model.shape(betas), q)
    assert (output.vertices - vertices).norm(dim=-1).max() < 1e-5  # 0.01 mm
    assert (output.joints - transforms[..., :3, 3]).norm(dim=-1).max() < 1e-5
    assert (output.rotations - transforms[..., :3, :3]).abs().max() < 1e-5


@pytest.mark.parametrize("name", DOF_NAMES)
def test_each_dof_alone_agrees_with_body_models(models: ModelSet, oracle_male: Any, name: str) -> None:
    """One DoF at a time: a wrong sign or order cannot hide behind another."""
    model = SkelModel(models.skel_of("male"))
    q = torch.zeros(NUM_DOFS)
    q[DOF_NAMES.index(name)] = 0.7
    body, head = oracle_pose.unpack_pose(oracle_male._runtime.xp, q)
    expected = oracle_male.forward_skeleton(body, head, shape=torch.ones(10))
    posed = model.joints(model.frames(torch.ones(10)), q)
    assert (posed.rot - expected[..., :3, :3]).abs().max() < 1e-5
    assert (posed.pos - expected[..., :3, 3]).abs().max() < 1e-5


@pytest.fixture(scope="module")
def oracle_male(official: Path) -> Any:
    return OracleSkel(model_path=official / "skel_male.pkl", gender="male")


def test_zero_pose_is_the_rest_pose(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("female"))
    shape = model.shape(torch.randn(3, 10))
    output = model.forward(shape, torch.zeros(3, NUM_DOFS))
    assert (output.vertices - shape.v_rest).abs().max() < 2e-6
    assert (output.joints - shape.frames.joints).abs().max() < 2e-6


@pytest.mark.parametrize("batch", [(), (2,), (2, 2, 2)])
def test_any_leading_batch_dimensions(models: ModelSet, batch: tuple[int, ...]) -> None:
    model = SkelModel(models.skel_of("male"))
    q, betas, trans = torch.randn(*batch, NUM_DOFS), torch.randn(*batch, 10), torch.randn(*batch, 3)
    shape = model.shape(betas)
    output = model.forward(shape, q, trans)
    assert output.vertices.shape == (*batch, 6890, 3)
    assert output.joints.shape == (*batch, NUM_JOINTS, 3)
    assert output.rotations.shape == (*batch, NUM_JOINTS, 3, 3)
    assert model.bones(shape, q, trans).shape == (*batch, 24752, 3)
    last = model.forward(
        model.shape(betas.reshape(-1, 10)[-1]), q.reshape(-1, NUM_DOFS)[-1], trans.reshape(-1, 3)[-1]
    )
    assert (output.vertices.reshape(-1, 6890, 3)[-1] - last.vertices).abs().max() < 1e-5


def test_wrong_sizes_are_named(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("male"))
    with pytest.raises(ValueError, match=r"betas: expected shape \(\.\.\., 10\), found \(3, 9\)"):
        model.shape(torch.zeros(3, 9))
    with pytest.raises(ValueError, match=r"q: expected shape \(\.\.\., 46\)"):
        model.joints(model.frames(torch.zeros(10)), torch.zeros(45))


def naive_bones(model: SkelModel, betas: Tensor, q: Tensor) -> np.ndarray:
    """One person's bone mesh (Vs, 3), bone by bone and vertex by vertex sums, in numpy float64."""
    asset = model.asset
    shape = model.shape(betas)
    joints = np.asarray(asset.J_regressor_osim, np.float64) @ shape.v_rest.double().numpy()
    posed = model.joints(shape.frames, q)
    rot, pos = posed.rot.double().numpy(), posed.pos.double().numpy()
    v, v0 = shape.v_rest.double().numpy(), np.asarray(asset.v_template, np.float64)
    apose = asset.apose_rel_transfo[:, :3, 3].astype(np.float64)

    def length_ratio(child: int) -> float:
        return float(
            np.linalg.norm(joints[child] - joints[SKEL_PARENTS[child]]) / np.linalg.norm(apose[child])
        )

    def skin_ratio(a: int, b: int, axis: int) -> float:
        return float((v[a, axis] - v[b, axis]) / (v0[a, axis] - v0[b, axis]))

    scale = np.ones((NUM_JOINTS, 3))
    child = {0: 1, 1: 2, 2: 3, 3: 4, 4: 5, 6: 7, 7: 8, 8: 9, 9: 10, 12: 12, 14: 15, 15: 16, 16: 18, 17: 18}
    child |= {19: 20, 20: 21, 21: 23, 22: 23}
    for joint, c in child.items():
        scale[joint] = length_ratio(c)
    scale[11] = abs(joints[11, 1] - joints[0, 1]) / abs(apose[11, 1])
    scale[13] = skin_ratio(410, 384, 2), skin_ratio(414, 384, 1), skin_ratio(196, 3708, 0)
    for hand in (18, 23):
        scale[hand, :2] = skin_ratio(6179, 6137, 1), skin_ratio(5670, 5906, 0)
    depth = min(skin_ratio(3027, 3495, 2), skin_ratio(3027, 3506, 2))
    scale[11, 0] = scale[12, 0] = depth

    owner = asset.bone_weights_rigid.argmax(1)
    bone_rot = shape.frames.bone_rot.double().numpy()
    out = np.zeros((len(owner), 3))
    for j in range(NUM_JOINTS):
        mine = np.flatnonzero(owner == j)
        rest = (asset.bone_v_template[mine] * scale[j]) @ bone_rot[j].T + joints[j]
        for k in range(NUM_JOINTS):
            out[mine] += asset.bone_weights[mine, k : k + 1] * ((rest - joints[k]) @ rot[k].T + pos[k])
    return out


@pytest.mark.parametrize("gender", ["male", "female"])
def test_bone_mesh_against_a_naive_one(models: ModelSet, gender: str) -> None:
    model = SkelModel(models.skel_of(gender))
    for q, betas in zip(*random_people(3, spread=1.5), strict=True):
        bones = model.bones(model.shape(betas), q).double().numpy()
        assert np.abs(bones - naive_bones(model, betas, q)).max() < 1e-5


def test_skin_is_differentiable(models: ModelSet) -> None:
    """gradcheck of skin with respect to pose, betas and translation; a few vertices of every region."""
    model = SkelModel(models.skel_of("female"), dtype=torch.float64)
    chosen = torch.arange(0, 6890, 700)

    def skin(q: Tensor, betas: Tensor, trans: Tensor) -> Tensor:
        return model.forward(model.shape(betas), q, trans).vertices[..., chosen, :]

    q = (0.5 * torch.randn(NUM_DOFS, dtype=torch.float64)).requires_grad_()
    betas = torch.randn(10, dtype=torch.float64, requires_grad=True)
    trans = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(skin, (q, betas, trans), fast_mode=True)
    zero = torch.zeros(NUM_DOFS, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(skin, (zero, betas, trans), fast_mode=True)


def test_minimal_rotation_turns_one_direction_to_the_other() -> None:
    a, b = torch.randn(50, 3, dtype=torch.float64), torch.randn(50, 3, dtype=torch.float64)
    rot = minimal_rotation(a, b)
    turned = (rot @ a[..., None])[..., 0] / a.norm(dim=-1, keepdim=True)
    assert (turned - b / b.norm(dim=-1, keepdim=True)).abs().max() < 1e-12
    assert (rot @ rot.mT - torch.eye(3, dtype=torch.float64)).abs().max() < 1e-12
    axis = torch.linalg.cross(a, b)
    assert ((rot @ axis[..., None])[..., 0] - axis).abs().max() < 1e-12  # no twist besides


def test_dof_table() -> None:
    assert NUM_DOFS == 46 and NUM_JOINTS == 24
    assert [sum(d.joint == j for d in DOFS) for j in range(NUM_JOINTS)] == [
        3, 3, 1, 1, 1, 1, 3, 1, 1, 1, 1, 3, 3, 3, 3, 3, 1, 1, 2, 3, 3, 1, 1, 2,
    ]  # fmt: skip
    assert [d.joint for d in DOFS] == sorted(d.joint for d in DOFS)
    limits = dof_limits()
    assert (limits[:, 0] < limits[:, 1]).all() and np.isfinite(limits[3:]).all()
    assert DOF_NAMES[26:29] == ("scapula_abduction_r", "scapula_elevation_r", "scapula_upward_rot_r")
    assert DOF_NAMES[29:36] == (
        "shoulder_r_x", "shoulder_r_y", "shoulder_r_z", "elbow_flexion_r", "pro_sup_r", "wrist_flexion_r",
        "wrist_deviation_r",
    )  # fmt: skip


@pytest.mark.parametrize("gender", ["neutral", "male", "female"])
def test_smpl_agrees_with_the_smplx_class(models: ModelSet, official: Path, gender: str) -> None:
    """The smplx class on the official file, against our assets: the import lost nothing."""
    oracle = smplx.SMPL(model_path=str(official / f"SMPL_{gender.upper()}.pkl"), batch_size=8)
    model = SmplModel(models.smpl_of(gender))
    pose, betas, transl = torch.randn(8, 24, 3), torch.randn(8, 10), torch.randn(8, 3)
    with torch.no_grad():
        expected = oracle(
            betas=betas, global_orient=pose[:, :1].flatten(1), body_pose=pose[:, 1:].flatten(1), transl=transl
        )
    assert (model.vertices(pose, betas, transl) - expected.vertices).norm(dim=-1).max() < 1e-5
    assert (model.root_joint(betas) + transl - expected.joints[:, 0]).norm(dim=-1).max() < 1e-5
