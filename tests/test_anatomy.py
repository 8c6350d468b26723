"""What pulls a fit towards anatomy besides the skin: where shoulders are, and vertices that count less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from skelfit.body.dofs import DOF_NAMES, NUM_DOFS, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.config import FitConfig, VertexWeights, load_pipeline
from skelfit.fit.cpu_objective import FusedObjective, make_tree, rest_axes
from skelfit.fit.fitter import Fitter
from skelfit.fit.joint_targets import SHOULDERS, make_goal, make_locator, with_joints
from skelfit.fit.moments import People, errors, moments
from skelfit.fit.objective import PoseObjective, to_quadratic
from skelfit.fit.plans import make_plan
from skelfit.fit.reference import Reference
from skelfit.fit.regions import region_shares, vertex_weights

PIPELINE = Path(__file__).parents[1] / "pipelines" / "hmr-skel.yaml"
LIMITS = torch.tensor(dof_limits())


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_pipeline(PIPELINE).fit


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


def random_poses(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Angles within the limits, the root at zero, and betas; float64."""
    low, high = LIMITS.unbind(-1)
    share = torch.rand(count, NUM_DOFS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = (low + (high - low) * share).index_fill(1, torch.tensor([0, 1, 2]), 0.0)
    return q, torch.randn(count, 10, dtype=torch.float64)


def test_joints_are_found_on_meshes(model: SkelModel) -> None:
    """On SKEL's own meshes to a few millimetres; whoever moves, the joints move along."""
    locator = make_locator(model, LIMITS)
    assert locator.joints == SHOULDERS and torch.equal(make_locator(model, LIMITS).weights, locator.weights)
    assert (locator.weights.sum(1) - 1).abs().max() < 1e-9 and locator.weights.norm(dim=1).max() < 1
    q, betas = random_poses(40)
    found = model.forward(model.shape(betas), q)
    target = found.vertices.permute(1, 2, 0)
    off = (locator(target) - found.joints[:, list(SHOULDERS)]).norm(dim=-1).mean(0)
    assert (off[[1, 3]] < 0.003).all() and (off[[0, 2]] < 0.006).all()
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)[:, None]
    assert (locator(target + shift) - locator(target) - shift.mT).abs().max() < 1e-9


@pytest.mark.parametrize(("dofs", "kept"), [("all", 4), ("upper_body", 4), ("lower_body", 0)])
def test_moments_with_joints_against_autograd(model: SkelModel, dofs: str, kept: int) -> None:
    """Value and gradient of both objectives with joint goals and unequal vertices, against the forward model."""
    q, betas = random_poses(3)
    target = model.forward(model.shape(betas), q + 0.1).vertices.permute(1, 2, 0).contiguous()
    people = People(betas, model.frames(betas), target)
    relative = 0.2 + np.arange(6890) % 5
    plan = make_plan(model, dofs, "all", 7, (512, 32), None, relative)
    goal = make_goal(make_locator(model, LIMITS), plan, target + 0.05, 0.3)
    assert len(goal.joints) == kept
    state = with_joints(moments(plan, model, people, q), plan, people.frames, goal)
    x = q[:, plan.dofs].requires_grad_()
    om, few = torch.cat([b.om for b in plan.blocks]), model.with_vertices(plan.vertices)
    skin = target[plan.vertices].permute(2, 0, 1)
    reference = Reference(few, om, skin, plan.dofs, q, betas, LIMITS, 1e-2)
    naive, plain = (r.value(x) for r in (replace(reference, joints=goal), reference))
    (full,) = torch.autograd.grad(naive.sum(), x, retain_graph=True)
    (without,) = torch.autograd.grad(plain.sum(), x)
    quadratic = PoseObjective(plan, model, people.frames, q, to_quadratic(plan, state), LIMITS, 1e-2)
    axes = rest_axes(model.rig, people.frames)
    fused = FusedObjective(plan, make_tree(plan), people.frames, axes, q, state, LIMITS[plan.dofs], 1e-2)
    bare = PoseObjective(
        plan, model, people.frames, q, to_quadratic(plan, moments(plan, model, people, q)), LIMITS, 1e-2
    )
    assert bool((naive > plain + 1e-4).all()) == (kept > 0)
    for objective in (quadratic, fused):
        found = objective(x.detach())
        torch.testing.assert_close(found.value, naive.detach(), rtol=1e-9, atol=1e-14)
        # Correctives are held in the moments but not by autograd; what the joints add is exact.
        added = found.gradient - bare(x.detach()).gradient
        torch.testing.assert_close(added, full - without, rtol=1e-8, atol=1e-10)
        assert torch.linalg.eigvalsh(found.hessian).min() > -1e-9


def test_joint_weight_draws_shoulders_to_where_the_mesh_has_them(models: ModelSet, config: FitConfig) -> None:
    """More weight, nearer joints, at some cost in PVE; all people still converge."""
    pose, betas = 0.3 * torch.randn(24, 24, 3), torch.randn(24, 10)

    def run(weight: float) -> tuple[float, float]:
        stages = tuple(replace(s, joint_weight=weight) for s in config.stages)
        fitter = Fitter(models, replace(config, stages=stages))
        found = fitter.fit("male", pose, betas, torch.zeros(24, 3))
        assert found.converged.all()
        (pair,) = fitter.prepare("male")
        locator = make_locator(pair.skel, pair.limits)
        place = locator(pair.smpl.vertices(pose, betas).permute(1, 2, 0))
        return float((found.joints[:, list(SHOULDERS)] - place).norm(dim=-1).mean()), float(
            found.pve_mm.mean()
        )

    (far, pve), (near, cost) = run(0.0), run(0.3)
    assert near < 0.7 * far and pve < cost < 1.3 * pve


def test_regions_are_where_they_are_called(models: ModelSet) -> None:
    asset = models.skel_of("female")
    shares = region_shares(asset)
    assert shares.keys() == vars(VertexWeights()).keys()
    v = np.asarray(asset.v_template)
    middle = {name: (share[:, None] * v).sum(0) / share.sum() for name, share in shares.items()}
    for share in shares.values():
        assert share.min() >= 0 and share.max() <= 1 + 1e-6 and 30 < (share > 0.5).sum() < 2500
    height = {name: at[1] for name, at in middle.items()}
    assert height["head"] > height["armpits"] > height["groin"] > height["feet"]
    reach = {name: (share * np.abs(v[:, 0])).sum() / share.sum() for name, share in shares.items()}
    assert reach["hands"] > 2 * reach["armpits"] > 2 * reach["groin"]


def test_vertices_that_count_less(models: ModelSet, config: FitConfig) -> None:
    """Weights enter the stage, not the measured error; a region of weight 0 is fitted worse, the rest better."""
    asset = models.skel_of("male")
    assert (vertex_weights(asset, VertexWeights()) == 1).all()
    relative = vertex_weights(asset, VertexWeights(feet=0.0))
    feet = region_shares(asset)["feet"]
    assert relative[feet > 0.999].max() < 1e-3 and (relative[feet == 0] == 1).all()
    model = SkelModel(asset)
    plan = make_plan(model, "all", "all", 1, (128, 128), None, relative)
    om = torch.cat([b.om for b in plan.blocks])
    assert om.sum() == pytest.approx(1, abs=1e-5)
    assert (om - torch.tensor(relative / relative.sum()).float()[plan.vertices]).abs().max() < 1e-9

    pose, betas, transl = 0.2 * torch.randn(16, 24, 3), torch.randn(16, 10), torch.zeros(16, 3)
    pose[:, [7, 8]] = 0.6 * torch.randn(16, 2, 3)
    ankles = [k for k, name in enumerate(DOF_NAMES) if name.startswith(("ankle", "subtalar", "mtp"))]
    found = {}
    for weight in (1.0, 0.0):
        fitter = Fitter(models, replace(config, vertex_weights=VertexWeights(feet=weight)))
        result = fitter.fit("male", pose, betas, transl)
        (pair,) = fitter.prepare("male")
        skin = pair.skel.forward(pair.skel.shape(result.betas), result.poses, result.trans).vertices
        distance = (skin - pair.smpl.vertices(pose, betas)).norm(dim=-1)
        assert (1000 * distance.mean(1) - result.pve_mm).abs().max() < 0.01  # all vertices alike
        found[weight] = distance[:, feet > 0.9].mean(), distance[:, feet == 0].mean(), result.poses
    assert found[0.0][0] > 1.2 * found[1.0][0] and found[0.0][1] <= found[1.0][1]
    assert (found[0.0][2] - found[1.0][2])[:, ankles].abs().max() > 0.01
    assert errors(plan, model, people_at_rest(model), torch.zeros(1, 46)).pve.item() < 1e-6


def people_at_rest(model: SkelModel) -> People:
    betas = torch.zeros(1, 10)
    frames = model.frames(betas)
    skin = model.forward(model.shape(betas), torch.zeros(1, 46)).vertices
    return People(betas, frames, skin.permute(1, 2, 0).contiguous())
