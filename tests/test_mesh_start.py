"""Fitting bare meshes: the start, the free root against naive sums, recovery, independence, betas."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import roma
import torch
from torch import Tensor

from skelfit.body.dofs import NUM_DOFS, dof_index, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.config import FitConfig, load_pipeline
from skelfit.fit.free_root import best_translation, centred, free_plan
from skelfit.fit.mesh import MeshFitter
from skelfit.fit.mesh_betas import betas_from_mesh
from skelfit.fit.mesh_start import make_mesh_parts, mesh_start
from skelfit.fit.moments import People, moments, side_by_side
from skelfit.fit.objective import PoseObjective, to_quadratic
from skelfit.fit.warm_start import root_angles

PIPELINE = Path(__file__).parents[1] / "pipelines" / "hmr-skel.yaml"
LIMITS = torch.tensor(dof_limits())


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_pipeline(PIPELINE).fit


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"))


@pytest.fixture(scope="module")
def fitter(model: SkelModel, config: FitConfig) -> MeshFitter:
    return MeshFitter(model, config)


def people(model: SkelModel, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Random poses within the limits, any root: q, betas, trans and their meshes (count, V, 3)."""
    low, high = LIMITS.float().unbind(-1)
    q = low + (high - low) * torch.rand(count, NUM_DOFS)
    betas, trans = torch.randn(count, 10).clamp(-2, 2), 3 * torch.randn(count, 3)
    q[:, :3] = root_angles(model.frames(betas).frame[:, 0], roma.random_rotmat(count))
    return q, betas, trans, model.forward(model.shape(betas), q, trans).vertices


def test_the_start_is_near(model: SkelModel) -> None:
    """Parts laid onto the mesh one by one are 20 mm off on average, and the same whatever the rigid motion."""
    _, betas, _, mesh = people(model, 60)
    start = mesh_start(model, mesh, betas, make_mesh_parts(model))
    skin = model.forward(model.shape(betas), start.q, start.trans).vertices
    pve = (skin - mesh).norm(dim=-1).mean(1)
    assert pve.mean() < 0.03 and pve.max() < 0.06

    turn, shift = roma.random_rotmat(60), torch.randn(60, 1, 3)
    moved = mesh_start(model, mesh @ turn.mT + shift, betas)
    assert (moved.q[:, 3:] - start.q[:, 3:]).abs().max() < 1e-3
    again = model.forward(model.shape(betas), moved.q, moved.trans).vertices
    assert (again - skin @ turn.mT - shift).abs().max() < 1e-4


@pytest.mark.parametrize("stride", [1, 5])
def test_free_root_against_a_naive_sum(models: ModelSet, stride: int) -> None:
    """Value, gradient and translation of the centred moments, all 46 angles active, float64."""
    model = SkelModel(models.skel_of("female"), dtype=torch.float64)
    betas = torch.randn(2, 10, dtype=torch.float64)
    q0 = 0.4 * torch.randn(2, NUM_DOFS, dtype=torch.float64)
    target = model.forward(model.shape(betas), q0 + 0.1).vertices + torch.randn(2, 1, 3, dtype=torch.float64)
    frames = model.frames(betas)
    plan = free_plan(model, stride, (512, 32))
    people = People(betas, frames, target.permute(1, 2, 0).contiguous())
    state = to_quadratic(plan, moments(plan, model, people, q0))
    held = model.shape(betas).v_rest + model.correctives(model.joints(frames, q0).local_rot)

    x = (q0 + 0.05 * torch.randn_like(q0)).requires_grad_()
    transforms = skinning_transforms(model.joints(frames, x), frames.joints)
    blended = torch.einsum("vj,bjrc->bvrc", model.weights, transforms)
    skin = (blended[..., :3] @ held[..., None])[..., 0] + blended[..., 3]
    gap = (target - skin)[:, ::stride]
    best = gap.mean(1)
    value = (gap - best[:, None]).square().sum(2).mean(1)
    (gradient,) = torch.autograd.grad(value.sum(), x)

    found = PoseObjective(plan, model, frames, q0, centred(state), LIMITS, 0.0)(x.detach())
    # The file's weights are float32: they sum to 1 within 1e-7, and so far the two differ.
    torch.testing.assert_close(found.value, value.detach(), rtol=1e-6, atol=0)
    torch.testing.assert_close(found.gradient, gradient, rtol=1e-6, atol=1e-7)
    translation = best_translation(state, side_by_side(transforms.detach()))
    torch.testing.assert_close(translation, best.detach(), rtol=1e-6, atol=1e-7)
    assert torch.linalg.eigvalsh(found.hessian).min() > -1e-12


def test_meshes_made_by_skel_are_met(model: SkelModel, fitter: MeshFitter) -> None:
    """120 random poses within the limits, any root: all within 0.1 mm, and the parameters say so themselves."""
    _, betas, _, mesh = people(model, 120)
    found = fitter.fit(mesh, betas)
    assert found.finite.all()
    assert (found.pve_mm < 0.1).float().mean() >= 0.99 and found.pve_mm.max() < 1
    skin = model.forward(model.shape(found.betas), found.poses, found.trans)
    pve = 1000 * (skin.vertices - mesh).norm(dim=-1).mean(1)
    assert (pve - found.pve_mm).abs().max() < 0.01
    assert (skin.joints - found.joints).abs().max() < 1e-5


def test_a_second_chance_frees_a_shoulder_at_its_pole(model: SkelModel, config: FitConfig) -> None:
    """Shoulders near the Euler pole: without second chances some stay behind the limits' wall, with them none."""
    q, betas, trans, _ = people(model, 60)
    for side in "rl":
        q[:, dof_index(f"shoulder_{side}_y")] = 1.4
        q[:, dof_index(f"shoulder_{side}_z")] = 1.3
    mesh = model.forward(model.shape(betas), q, trans).vertices
    once = MeshFitter(model, config, retry_above_mm=torch.inf).fit(mesh, betas)
    found = MeshFitter(model, config).fit(mesh, betas)
    assert not once.retries.any() and (once.pve_mm > 0.1).sum() >= 2
    assert (found.pve_mm < 0.1).all()
    assert (found.retries > 0).sum() < 30
    kept = found.retries == 0
    assert (found.poses[kept] == once.poses[kept]).all()


@pytest.mark.parametrize("batch", [7, 64])
def test_meshes_do_not_influence_each_other(model: SkelModel, config: FitConfig, batch: int) -> None:
    """In another order, in other batches, beside a mesh that is not finite: the same skin within 0.05 mm."""
    _, betas, _, mesh = people(model, 20)
    base = MeshFitter(model, config).fit(mesh, betas)
    mesh, betas = mesh.flip(0).clone(), betas.flip(0).clone()
    mesh[3, 100, 1] = torch.nan
    betas[5, 0] = torch.inf
    other = MeshFitter(model, replace(config, batch=batch)).fit(mesh, betas)
    good = torch.tensor([k for k in range(20) if k not in (3, 5)])
    assert not other.finite[[3, 5]].any() and not other.converged[[3, 5]].any()
    assert other.finite[good].all()
    assert (other.pve_mm - base.pve_mm.flip(0))[good].abs().max() < 0.05
    assert (other.trans - base.trans.flip(0))[good].abs().max() < 1e-3


def test_betas_of_a_known_pose(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("female"))
    q, betas, trans, mesh = people(model, 10)
    some = torch.arange(0, mesh.shape[1], 8)
    found = torch.zeros_like(betas)
    for _ in range(3):
        found = betas_from_mesh(model, mesh[:, some], q, found, some)
    assert (found - betas).abs().max() < 0.01
    assert trans.abs().max() > 1  # the translation was not told, and not needed


def test_betas_beside_a_pose_that_is_only_near(model: SkelModel) -> None:
    """With the pose free to follow, one step is five times nearer than with the wrong pose held."""
    q, betas, _, mesh = people(model, 10)
    some = torch.arange(0, mesh.shape[1], 8)
    near, zero = q + 0.02 * torch.randn_like(q), torch.zeros_like(betas)
    held = betas_from_mesh(model, mesh[:, some], near, zero, some)
    free = betas_from_mesh(model, mesh[:, some], near, zero, some, hold_pose=False)
    assert (free - betas).square().mean().sqrt() < (held - betas).square().mean().sqrt() / 5


def test_betas_are_sought_when_not_given(model: SkelModel, fitter: MeshFitter) -> None:
    _, betas, _, mesh = people(model, 30)
    found = fitter.fit(mesh)
    assert found.finite.all() and found.pve_mm.max() < 0.1
    assert (found.betas - betas).abs().amax(1).median() < 0.01


def test_wrong_shapes_and_no_meshes(model: SkelModel, fitter: MeshFitter) -> None:
    with pytest.raises(ValueError, match=r"target: expected shape \(N, 6890, 3\), found \(2, 6889, 3\)"):
        fitter.fit(torch.zeros(2, 6889, 3))
    with pytest.raises(ValueError, match=r"betas: expected shape \(2, 10\), found \(3, 10\)"):
        fitter.fit(torch.zeros(2, 6890, 3), torch.zeros(3, 10))
    found = fitter.fit(torch.zeros(0, 6890, 3))
    assert found.poses.shape == (0, NUM_DOFS) and found.joints.shape == (0, 24, 3)
