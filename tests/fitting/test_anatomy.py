"""The anatomical terms of the fit: shoulder targets, and vertices that count less."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor

from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import FitConfig, VertexWeights
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.skin_tables import stage_skin
from skelfit.fitting.fit_errors import measure
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.passes import batch_of, make_tables
from skelfit.fitting.terms.shoulder_targets import SHOULDERS, make_locator
from skelfit.fitting.terms.vertex_weights import region_shares, vertex_weights

LIMITS = torch.tensor(dof_limits())


def random_poses(count: int, seed: int = 1) -> tuple[Tensor, Tensor]:
    """Angles within the limits, the root at zero, and betas; float64."""
    low, high = LIMITS.unbind(-1)
    share = torch.rand(count, NUM_DOFS, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    q = (low + (high - low) * share).index_fill(1, torch.tensor([0, 1, 2]), 0.0)
    return q, torch.randn(count, 10, dtype=torch.float64)


def test_joints_are_located_on_meshes(model: SkelModel) -> None:
    """On SKEL's own meshes to a few millimetres; the joints move along with a mesh."""
    locator = make_locator(model, LIMITS)
    assert locator.joints == SHOULDERS and torch.equal(make_locator(model, LIMITS).weights, locator.weights)
    assert (locator.weights.sum(1) - 1).abs().max() < 1e-9 and locator.weights.norm(dim=1).max() < 1
    q, betas = random_poses(40)
    posed = model.forward(model.shape(betas), q)
    off = (locator(posed.vertices) - posed.joints[:, list(SHOULDERS)]).norm(dim=-1).mean(0)
    assert (off[[1, 3]] < 0.003).all() and (off[[0, 2]] < 0.006).all()
    shift = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert (locator(posed.vertices + shift) - locator(posed.vertices) - shift).abs().max() < 1e-9


def test_kernels_locate_the_joints_as_the_locator_does(
    backend: Backend, models: ModelSet, config: FitConfig
) -> None:
    pose, betas = 0.3 * torch.randn(backend.lanes + 3, 24, 3), torch.randn(backend.lanes + 3, 10)
    (pair,) = Fitter(models, config, backend=backend).prepare("male")
    assert pair.locator is not None
    located = backend.read(pair.start(pose, betas).located)
    pose[:, 0] = 0  # the frame of the fit
    expected = make_locator(pair.skel, pair.limits)(pair.smpl.vertices(pose, betas))
    assert (located - expected).abs().max() < 2e-6


def test_joints_that_a_stage_does_not_move_have_no_target(model: SkelModel) -> None:
    backend = make_backend("cpu")
    body = body_tables(model, backend.device)
    for part, kept in (("all", 4), ("upper_body", 4), ("lower_body", 0)):
        skin = stage_skin(model, part, "all", 25, backend.block)
        tables = make_tables(backend, body, skin, part, dof_limits(), SHOULDERS, np.zeros((0, NUM_DOFS)))
        assert tables.variables.num_targets == kept
        joints = [tables.tree.joints[k] for k in tables.variables.targets.numpy().reshape(-1, 3)[:, 0]]
        assert joints == list(SHOULDERS)[:kept]


def test_joint_weight_draws_shoulders_to_their_targets(models: ModelSet, config: FitConfig) -> None:
    """More weight, nearer joints, at some cost in PVE; all people still converge."""
    pose, betas = 0.3 * torch.randn(24, 24, 3), torch.randn(24, 10)

    def run(weight: float) -> tuple[float, float]:
        stages = tuple(replace(s, joint_weight=weight) for s in config.stages)
        fitter = Fitter(models, replace(config, stages=stages))
        result = fitter.fit("male", pose, betas, torch.zeros(24, 3))
        assert result.converged.all()
        (pair,) = fitter.prepare("male")
        locator = make_locator(pair.skel, pair.limits)
        targets = locator(pair.smpl.vertices(pose, betas))
        return float((result.joints[:, list(SHOULDERS)] - targets).norm(dim=-1).mean()), float(
            result.pve_mm.mean()
        )

    (far, pve), (near, cost) = run(0.0), run(0.3)
    assert near < 0.7 * far and pve < cost < 1.3 * pve


def test_regions_are_where_their_names_say(models: ModelSet) -> None:
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
    backend = make_backend("cpu")
    plan = stage_skin(model, "all", "all", 1, backend.block, relative=relative)
    om = plan.skin.om.numpy()[: len(plan.vertices)]
    assert om.sum() == pytest.approx(1, abs=1e-5)
    assert np.abs(om - (relative / relative.sum())[plan.vertices]).max() < 1e-9

    pose, betas, transl = 0.2 * torch.randn(16, 24, 3), torch.randn(16, 10), torch.zeros(16, 3)
    pose[:, [7, 8]] = 0.6 * torch.randn(16, 2, 3)
    ankles = [k for k, name in enumerate(DOF_NAMES) if name.startswith(("ankle", "subtalar", "mtp"))]
    by_weight = {}
    for weight in (1.0, 0.0):
        fitter = Fitter(models, replace(config, vertex_weights=VertexWeights(feet=weight)))
        result = fitter.fit("male", pose, betas, transl)
        (pair,) = fitter.prepare("male")
        skin = pair.skel.forward(pair.skel.shape(result.betas), result.poses, result.trans).vertices
        distance = (skin - pair.smpl.vertices(pose, betas)).norm(dim=-1)
        assert (1000 * distance.mean(1) - result.pve_mm).abs().max() < 0.01  # all vertices alike
        by_weight[weight] = distance[:, feet > 0.9].mean(), distance[:, feet == 0].mean(), result.poses
    assert by_weight[0.0][0] > 1.2 * by_weight[1.0][0] and by_weight[0.0][1] <= by_weight[1.0][1]
    assert (by_weight[0.0][2] - by_weight[1.0][2])[:, ankles].abs().max() > 0.01
    rest, betas = torch.zeros(1, 46), torch.zeros(1, 10)
    skin = model.forward(model.shape(betas), rest).vertices
    no_targets = backend.array(torch.zeros(1, 0, 3))
    batch = batch_of(backend, skin, rest, betas, no_targets, config.solver.damping)
    measured = measure(backend, plan, body_tables(model, backend.device), batch)
    assert measured.errors(backend.read(measured.array)).mean < 1e-6
