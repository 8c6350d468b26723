"""The coupling of lumbar and thorax: its forms, its effect on people, and its study."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation

from skelfit.benchmark.fit_speed import Labels, make_labels
from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_axes, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import FitConfig, SpineConfig, SpineCoupling
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.terms.objective_term import BodyState
from skelfit.fitting.terms.spine_coupling import coupled, spine_couplings
from tools.studies import ambiguities, spine
from tools.studies.reference import Priors, converge
from tools.studies.setup import Setup

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"
FREE = SpineConfig(SpineCoupling(0.0, 1.0), SpineCoupling(0.0, 1.0), SpineCoupling(0.0, 1.0))


def fitted(models: ModelSet, config: FitConfig, labels: Labels) -> FitResult:
    return Fitter(models, config).fit(labels.gender, labels.pose, labels.betas, labels.transl)


def test_a_form_is_the_distance_from_a_share() -> None:
    ties = SpineConfig(SpineCoupling(4e-4, 0.5), SpineCoupling(1e-4, 0.0), SpineCoupling(0.0, 1.0))
    forms = spine_couplings(ties)
    assert forms.shape == (2, NUM_DOFS) and spine_couplings(FREE).shape == (0, NUM_DOFS)
    q = np.zeros(NUM_DOFS)
    q[dof_index("lumbar_bending")], q[dof_index("thorax_bending")] = 0.1, 0.2  # as the share has it
    q[dof_index("thorax_extension")] = 0.3  # of a motion without weight
    assert np.abs(forms @ q).max() < 1e-12
    q[dof_index("lumbar_bending")] += 0.2
    q[dof_index("thorax_bending")] -= 0.1  # across the line (1, 2)
    q[dof_index("lumbar_extension")] = 0.3
    assert (forms @ q) ** 2 == pytest.approx([4e-4 * 0.05, 1e-4 * 0.09])


def test_a_stage_has_only_forms_of_its_own_dofs() -> None:
    forms = spine_couplings(SpineConfig())
    spine_dofs = np.flatnonzero(forms.any(0)).tolist()
    assert len(forms) == 3 and np.array_equal(coupled(forms, spine_dofs), forms)
    assert len(coupled(forms, [i for i in range(NUM_DOFS) if i != spine_dofs[0]])) == 2
    assert len(coupled(forms, list(range(3, 17)))) == 0


def test_equal_signs_are_the_same_way() -> None:
    """Otherwise the coupling would tie a flexion to its opposite."""
    axes = dof_axes()
    for motion in spine.MOTIONS:
        lumbar, thorax = (dof_index(f"{segment}_{motion}") for segment in ("lumbar", "thorax"))
        assert np.array_equal(axes[lumbar], axes[thorax])


def test_lumbar_and_thorax_are_seldom_opposite(models: ModelSet, config: FitConfig) -> None:
    """Without the coupling a fifth or more of extreme people have opposite bendings; the vertex error stays."""
    labels = make_labels(128, "male")["extreme"]
    tied, free = fitted(models, config, labels), fitted(models, replace(config, spine=FREE), labels)
    before, now = spine.opposite(free.poses), spine.opposite(tied.poses)
    assert before["bending"] > 0.2 and now["bending"] < 0.1
    assert now["any"] < 0.85 * before["any"]
    assert 0 < tied.pve_mm.mean() / free.pve_mm.mean() - 1 < 0.01
    assert tied.converged.all()
    low, high = torch.tensor(dof_limits()).unbind(-1)
    beyond = [((r.poses > high + 0.17) | (r.poses < low - 0.17))[:, 3:].double().mean() for r in (free, tied)]
    assert beyond[1] < beyond[0] + 4e-3


def test_the_objective_of_a_person_has_the_coupling(models: ModelSet, config: FitConfig) -> None:
    labels = make_labels(4, "male")["extreme"]
    heavy = replace(
        config, spine=SpineConfig(SpineCoupling(1.0, 0.4), SpineCoupling(0.0, 1.0), SpineCoupling(0.0, 1.0))
    )
    result = fitted(models, heavy, labels)
    off = result.poses[:, dof_index("lumbar_bending")] - 0.4 * result.poses[:, dof_index("thorax_bending")]
    assert off.abs().max() < 2e-3
    (pair,) = Fitter(models, heavy).prepare("male")
    q = result.poses.clone()
    q[:, dof_index("lumbar_bending")] += 0.1
    _, spine_term = pair.pose_terms
    state = BodyState(
        result.poses, result.betas, result.joints, torch.eye(3).expand(4, 3, 3), torch.zeros(4, 3)
    )
    more = spine_term.cost(replace(state, q=q)) - spine_term.cost(state)
    assert more == pytest.approx(((off + 0.1) ** 2 - off**2) / 1.16, rel=1e-3)


def test_the_slow_reference_has_the_coupling(models: ModelSet) -> None:
    model = SkelModel(models.skel_of("male"), dtype=torch.float64)
    q = torch.zeros(1, NUM_DOFS, dtype=torch.float64)
    q[0, dof_index("lumbar_bending")], q[0, dof_index("thorax_bending")] = 0.2, -0.2
    betas = torch.zeros(1, model.num_betas, dtype=torch.float64)
    target = model.forward(model.shape(betas), q).vertices
    forms = torch.tensor(
        spine_couplings(SpineConfig(SpineCoupling(0.1, 1.0), SpineCoupling(0, 1), SpineCoupling(0, 1)))
    )
    limits = torch.tensor(dof_limits())
    free, tied = (
        converge(model, target, q, betas, Priors(limits, 0.0, 1e-9, couplings=f)) for f in (None, forms)
    )
    apart = [
        float(r.q[0, dof_index("lumbar_bending")] - r.q[0, dof_index("thorax_bending")]) for r in (free, tied)
    ]
    assert apart[0] == pytest.approx(0.4, abs=1e-4) and abs(apart[1]) < 0.2
    assert (tied.steps < 150).all()


def test_opposite_is_counted_by_motion() -> None:
    poses = torch.zeros(4, NUM_DOFS)
    ways = torch.deg2rad(torch.tensor([[6.0, -6.0], [6.0, -4.0], [6.0, 6.0], [-20.0, 30.0]]))
    poses[:, [dof_index("lumbar_twist"), dof_index("thorax_twist")]] = ways
    assert spine.opposite(poses) == {"bending": 0, "extension": 0, "twist": 0.5, "any": 0.5}


def test_people_go_smoothly_from_posture_to_posture() -> None:
    pose, betas, transl = spine.postures(2)
    assert pose.shape == (128, 24, 3) and betas.shape == (128, 10) and transl.shape == (128, 3)
    turned = Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(2, 64, 24, 3, 3)
    step = np.linalg.norm(np.diff(turned, axis=1), axis=(-1, -2)).max()
    assert 0.01 < step < 0.35
    assert np.array_equal(betas[:1].repeat(64, 0), betas[:64]) and not np.array_equal(betas[0], betas[64])


@pytest.mark.soak
def test_the_study(models: ModelSet, config: FitConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(spine, "TIMES", (0.0, 1.0))
    setup = Setup(models, load_pipeline(PIPELINE), "cpu", 64, ("male",), None, lambda _: None)
    records = spine.run(setup)
    kinds = ["everyday", "extreme", "motions", "between postures"]
    assert [r["poses"] for r in records[::2]] == kinds and [r["times"] for r in records] == [0, 1] * 4
    for free, tied in zip(records[::2], records[1::2], strict=True):
        assert free["pve_cost"] == 0 and abs(tied["pve_cost"]) < 0.015
        assert tied["opposite"]["any"] <= free["opposite"]["any"] and tied["opposite"]["bending"] < 0.12
        assert free["same_from_another_start"] > 0.9 and tied["spine_moves_deg"] >= 0
    assert len(spine.text(records)) == 2 + len(records)
    assert (
        spine.scaled(config.spine, 0.0).twist.weight == 0 and spine.scaled(config.spine, 1.0) == config.spine
    )


def test_flat_directions_are_named_by_what_moves_most() -> None:
    """One direction in which 10 degrees cost a per cent, of two DoFs together; all others are steep."""
    hessian = torch.eye(43, dtype=torch.float64)
    pair = [DOF_NAMES.index(n) - 3 for n in ("lumbar_twist", "thorax_twist")]
    along = torch.zeros(43, dtype=torch.float64)
    along[pair] = torch.tensor([0.6, -0.8], dtype=torch.float64)
    value = torch.tensor([1e-4, 1e-4], dtype=torch.float64)
    flat = 2 * 0.01 * 1e-4 / (np.radians(10) / 0.8) ** 2
    hessian = torch.stack((hessian, hessian - (1 - flat) * torch.outer(along, along)))
    (direction,) = ambiguities.flat_directions(value, hessian)
    assert direction["between"] == "lumbar_twist with thorax_twist" and direction["cases_per_person"] == 0.5
    assert direction["median_deg"] == pytest.approx(10, rel=1e-6)


def test_ambiguities(models: ModelSet) -> None:
    records = ambiguities.run(
        Setup(models, load_pipeline(PIPELINE), "cpu", 6, ("male",), None, lambda _: None)
    )
    flat = [r for r in records if r["of"] == "flat direction" and r["poses"] == "extreme"]
    assert any("ankle_angle" in r["between"] or "mtp_angle" in r["between"] for r in flat)
    assert all(ambiguities.FLAT_DEG < r["median_deg"] <= r["max_deg"] <= 180 for r in flat)
    assert all(r["max_deg"] > ambiguities.APART_DEG for r in records if r["of"] == "two minima")
    assert ambiguities.text(records)


def test_the_curvature_is_that_at_an_answer(models: ModelSet, config: FitConfig) -> None:
    """The study's objective is the fit's, except for the vertices: its Hessian has hardly a negative direction."""
    setup = Setup(models, load_pipeline(PIPELINE), "cpu", 4, ("male",), None, lambda _: None)
    labels = make_labels(4, "male")["everyday"]
    result = fitted(models, config, labels)
    value, hessian = ambiguities.curvatures(setup, labels, result)
    assert value.numpy() == pytest.approx(result.objective.numpy(), rel=0.1)
    assert (torch.linalg.eigvalsh(hessian) > -1e-4).all() and (hessian - hessian.mT).abs().max() < 1e-9
