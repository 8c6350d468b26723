"""Fitting bare meshes: the start, recovery, independence, betas, keypoints."""

from __future__ import annotations

from dataclasses import fields, replace

import numpy as np
import pytest
import roma
import torch
from backends import NEAR
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, ROOT_DOFS, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.mesh_fitter import MeshFit, MeshFitter
from skelfit.fitting.mesh_labels import MeshLabelFitter
from skelfit.fitting.start.mesh_parts import PARTS, part_weights
from skelfit.fitting.start.mesh_start import MeshStart, mesh_start, mesh_start_tables
from skelfit.fitting.start.warm_start import root_angles
from skelfit.labels.demo_people import sample_labels
from tools.studies.body_angles import body_angles

LIMITS = torch.tensor(dof_limits())


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


def start_of(backend: Backend, model: SkelModel, mesh: Tensor, betas: Tensor) -> MeshStart:
    tables = mesh_start_tables(model, body_tables(model, backend.device), backend.device, dof_limits())
    return mesh_start(backend, tables, mesh, betas)


def naive_start(model: SkelModel, mesh: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """By torch, in the model's float type: angles (B, 46), the pelvis' rotation, and the mesh without its motion."""
    shape = model.shape(betas)
    rotations, index = [], {joint: k for k, (joint, _, _) in enumerate(PARTS)}
    for rows, weights in part_weights(model):
        w = torch.from_numpy(weights).to(mesh.dtype)
        x, y = shape.v_rest[:, rows], mesh[:, rows]
        x_mean, y_mean = w @ x, w @ y
        spread = (y - y_mean[:, None]).mT @ ((x - x_mean[:, None]) * w[:, None])
        rotations.append(roma.special_procrustes(spread))
        if len(rotations) == 1:
            still = (mesh - y_mean[:, None]) @ rotations[0] + x_mean[:, None]
    local = torch.eye(3, dtype=mesh.dtype).repeat(len(mesh), NUM_JOINTS, 1, 1)
    for joint, before, smpl_joint in PARTS[1:]:
        local[:, smpl_joint] = rotations[index[before]].mT @ rotations[index[joint]]
    return body_angles(shape.frames.frame, local), rotations[0], still


def test_the_start_is_that_in_float64(backend: Backend, models: ModelSet, model: SkelModel) -> None:
    _, betas, _, mesh = people(model, 21)
    start = start_of(backend, model, mesh, betas)
    q, turn, still = naive_start(
        SkelModel(models.skel_of("male"), dtype=torch.float64), mesh.double(), betas.double()
    )
    apart = (backend.read(start.q) - q + torch.pi) % (2 * torch.pi) - torch.pi
    # Parts far longer than thick tell their twist less well; near an Euler pole angles tell less than rotations.
    assert apart.abs().max() < 1e-3 and apart.abs().amax(1).median() < 3e-5
    assert not backend.read(start.q)[:, list(ROOT_DOFS)].any()
    assert (start.turn - turn).abs().max() < 1e-5
    assert (backend.people_of(start.target, 21) - still).abs().max() < 1e-5
    back = still @ start.turn.mT.double() - start.rest[:, None] @ start.turn.mT + start.position[:, None]
    assert (back - mesh).abs().max() < 1e-5


def test_meshes_start_as_they_do_alone(backend: Backend, model: SkelModel) -> None:
    count = backend.lanes + 5
    _, betas, _, mesh = people(model, count)
    base = start_of(backend, model, mesh, betas)
    target = backend.people_of(base.target, count)  # the next start overwrites it
    mesh, betas = mesh.flip(0).clone(), betas.flip(0).clone()
    mesh[2], mesh[3, 100, 1], betas[4, 0] = 0, torch.nan, torch.inf
    other = start_of(backend, model, mesh, betas)
    good = [k for k in range(count) if k not in (2, 3, 4)]
    for name in ("q", "turn", "rest", "position"):
        one, two = (backend.read(getattr(start, name)) for start in (base, other))
        assert torch.equal(two[good], one.flip(0)[good]), name
    assert torch.equal(backend.people_of(other.target, count)[good], target.flip(0)[good])
    assert torch.equal(other.turn[2], torch.eye(3))  # a mesh that is one point has no rotation


def test_the_start_is_near(model: SkelModel) -> None:
    """Parts that are aligned one by one are 20 mm off on average, for any rigid motion of the mesh."""
    _, betas, _, mesh = people(model, 60)
    backend = make_backend("cpu")

    def skin_of(mesh: Tensor) -> tuple[Tensor, Tensor]:
        start = start_of(backend, model, mesh, betas)
        skin = model.forward(model.shape(betas), start.q).vertices
        return (skin - start.rest[:, None]) @ start.turn.mT + start.position[:, None], start.q

    skin, q = skin_of(mesh)
    pve = (skin - mesh).norm(dim=-1).mean(1)
    assert pve.mean() < 0.03 and pve.max() < 0.06

    turn, shift = roma.random_rotmat(60), torch.randn(60, 1, 3)
    again, moved = skin_of(mesh @ turn.mT + shift)
    assert (moved - q).abs().max() < 1e-3
    assert (again - skin @ turn.mT - shift).abs().max() < 1e-4


def test_meshes_made_by_skel_are_fitted(model: SkelModel, fitter: MeshFitter) -> None:
    """120 random poses within the limits, any root: all within 0.1 mm, also by the returned parameters."""
    _, betas, _, mesh = people(model, 120)
    result = fitter.fit(mesh, betas)
    assert result.finite.all()
    assert (result.pve_mm < 0.1).float().mean() >= 0.99 and result.pve_mm.max() < 1
    skin = model.forward(model.shape(result.betas), result.poses, result.trans)
    pve = 1000 * (skin.vertices - mesh).norm(dim=-1).mean(1)
    assert (pve - result.pve_mm).abs().max() < 0.01
    assert (skin.joints - result.joints).abs().max() < 1e-5


def test_a_retry_frees_a_shoulder_at_its_pole(model: SkelModel, config: FitConfig) -> None:
    """Shoulders near the Euler pole: without retries some stay behind the limits' wall, with retries none."""
    q, betas, trans, _ = people(model, 60)
    for side in "rl":
        q[:, dof_index(f"shoulder_{side}_y")] = 1.4
        q[:, dof_index(f"shoulder_{side}_z")] = 1.3
    mesh = model.forward(model.shape(betas), q, trans).vertices
    once = MeshFitter(model, config, retry_above_mm=torch.inf).fit(mesh, betas)
    result = MeshFitter(model, config).fit(mesh, betas)
    assert not once.retries.any() and (once.pve_mm > 0.1).sum() >= 2
    assert (result.pve_mm < 0.1).all()
    assert (result.retries > 0).sum() < 30
    kept = result.retries == 0
    assert (result.poses[kept] == once.poses[kept]).all()


@pytest.mark.parametrize("free_betas", [False, True])
def test_meshes_do_not_influence_each_other(model: SkelModel, config: FitConfig, free_betas: bool) -> None:
    """In another order, in other batches, beside a mesh that is not finite: the same bits."""
    _, betas, _, mesh = people(model, 20)
    base = MeshFitter(model, config).fit(mesh, None if free_betas else betas)
    mesh, betas = mesh.flip(0).clone(), betas.flip(0).clone()
    mesh[3, 100, 1] = torch.nan
    betas[5, 0] = torch.inf
    bad = [3] if free_betas else [3, 5]
    other = MeshFitter(model, replace(config, batch=7)).fit(mesh, None if free_betas else betas)
    good = torch.tensor([k for k in range(20) if k not in bad])
    assert not other.finite[bad].any() and not other.converged[bad].any()
    assert other.finite[good].all()
    for field in fields(MeshFit):
        assert torch.equal(getattr(other, field.name)[good], getattr(base, field.name).flip(0)[good]), (
            field.name
        )


def test_every_backend_fits_meshes(backend: Backend, model: SkelModel, config: FitConfig) -> None:
    """As the first one does, with free betas."""
    _, betas, _, mesh = people(model, 3)
    result = MeshFitter(model, config, backend=backend).fit(mesh)
    first = MeshFitter(model, config).fit(mesh)
    assert result.finite.all() and result.pve_mm.max() < 0.1
    assert (result.betas - first.betas).abs().max() < 10 * NEAR.beta
    assert (result.joints - first.joints).abs().max() < 1e-4


def test_betas_are_fitted_if_not_given(model: SkelModel, fitter: MeshFitter) -> None:
    _, betas, _, mesh = people(model, 30)
    result = fitter.fit(mesh)
    assert result.finite.all() and result.pve_mm.max() < 0.1
    assert (result.betas - betas).abs().amax(1).median() < 0.01


def test_keypoints_are_regressed_from_the_fitted_skin(models: ModelSet, config: FitConfig) -> None:
    """For meshes that SKEL cannot make."""
    pose, betas, transl = (torch.tensor(x) for x in sample_labels(5, 0, 0.0))
    mesh = SmplModel(models.smpl_of("male")).vertices(pose, betas, transl)
    result = MeshLabelFitter(models, config).fit("male", mesh)
    model = SkelModel(models.skel_of("male"))
    skin = model.forward(model.shape(result.betas), result.poses, result.trans)
    points = torch.einsum(
        "kv,nvc->nkc", torch.as_tensor(np.asarray(models.keypoints44)).float(), skin.vertices
    )
    assert result.keypoints3d is not None and (result.keypoints3d - points).abs().max() < 1e-5
    assert (result.joints - skin.joints).abs().max() < 1e-5
    distance = 1000 * (skin.vertices - mesh).norm(dim=-1)
    assert (distance.mean(1) - result.pve_mm).abs().max() < 1e-3
    assert (distance.amax(1) - result.max_vertex_mm).abs().max() < 1e-2


def test_wrong_shapes_and_no_meshes(model: SkelModel, fitter: MeshFitter) -> None:
    with pytest.raises(ValueError, match=r"target: expected shape \(N, 6890, 3\), found \(2, 6889, 3\)"):
        fitter.fit(torch.zeros(2, 6889, 3))
    with pytest.raises(ValueError, match=r"betas: expected shape \(2, 10\), found \(3, 10\)"):
        fitter.fit(torch.zeros(2, 6890, 3), torch.zeros(3, 10))
    result = fitter.fit(torch.zeros(0, 6890, 3))
    assert result.poses.shape == (0, NUM_DOFS) and result.joints.shape == (0, 24, 3)
