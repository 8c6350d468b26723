"""The betas that frames share: against a dense solution, and the naive objective's matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from label_tensors import labels_from
from torch import Tensor

import skelfit.fitting.sequences.sequence_fit
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FirstOrderConfig
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.baseline.first_order import _FirstOrderPair
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.fitting.sequences.shared_betas import (
    BetasSystems,
    betas_systems,
    concatenate,
    eliminate_pose,
    equal_systems,
)
from tools.studies.motions import make_motion

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"
N, POSE, BETAS = 5, 7, 3


def random_forms() -> tuple[Tensor, Tensor]:
    """Matrices (N, n + K, n + K) and minima (N, n + K) of frames' objectives."""
    source = torch.Generator().manual_seed(0)
    slopes = torch.randn(N, 12, POSE + BETAS, generator=source, dtype=torch.float64)
    minima = torch.randn(N, POSE + BETAS, generator=source, dtype=torch.float64)
    return slopes.mT @ slopes, minima


@pytest.mark.parametrize("moved", [0.0, 0.7])
def test_the_sum_over_all_frames_is_least_at_the_shared_betas(moved: float) -> None:
    """For quadratic forms, from any point where they are evaluated."""
    matrix, minima = random_forms()
    at = minima + moved * torch.linspace(-1, 1, POSE + BETAS, dtype=torch.float64)
    gradient = (matrix @ (at - minima)[..., None])[..., 0]
    shared = eliminate_pose(matrix, gradient, at[:, POSE:]).common()

    size = N * POSE + BETAS
    dense, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for i in range(N):
        index = torch.tensor([*range(i * POSE, (i + 1) * POSE), *range(N * POSE, size)])
        dense[index[:, None], index] += matrix[i]
        right[index] += matrix[i] @ minima[i]
    torch.testing.assert_close(shared, torch.linalg.solve(dense, right)[N * POSE :])
    assert (shared - minima[:, POSE:].mean(0)).abs().max() > 0.1


def test_frames_that_are_not_finite_have_no_weight() -> None:
    matrix, minima = random_forms()
    at = minima[:, POSE:]
    good = eliminate_pose(matrix[1:], torch.zeros(N - 1, POSE + BETAS, dtype=torch.float64), at[1:]).common()
    for fault in (torch.nan, torch.inf, 0.0):  # 0: a pose without any curvature
        bad = matrix.clone()
        bad[0, :POSE, :POSE] = fault
        systems = eliminate_pose(bad, torch.zeros(N, POSE + BETAS, dtype=torch.float64), at)
        torch.testing.assert_close(systems.common(), good)
    none = eliminate_pose(matrix * torch.nan, torch.zeros(N, POSE + BETAS, dtype=torch.float64), at)
    assert (none.common() == 0).all()


def test_equal_systems_give_the_mean_and_equal_betas_exactly() -> None:
    betas = torch.randn(37, 10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(equal_systems(betas).common(), betas.double().mean(0))
    same = betas[:1].expand(37, -1)
    assert torch.equal(equal_systems(same).common().float(), betas[0])
    parts = concatenate([equal_systems(betas[:10]), equal_systems(betas[10:])])
    assert torch.equal(parts.common(), equal_systems(betas).common())
    assert torch.equal(parts.take(slice(10, 37)).common(), equal_systems(betas[10:]).common())


def test_systems_are_those_of_the_naive_objective(models: ModelSet) -> None:
    """Two neutral people at their start: the kernels' matrices against autograd's, on the same coarse vertices."""
    fit = load_pipeline(PIPELINE).fit
    fitter = Fitter(models, fit)
    pair = _FirstOrderPair(models, "neutral", "male", fit, fitter.backend)
    pair.first_order = FirstOrderConfig()
    motion = make_motion("squat")
    pose, betas = (torch.from_numpy(x[[0, 40]]) for x in (motion.pose, motion.betas))
    batch = pair.start(pose, betas)
    systems = betas_systems(fitter.backend, pair.schedule, batch)
    stage = pair.schedule.stages[-1]
    goal = pair.goal(replace(stage, fine=stage.coarse), batch).hold()
    at = goal.start
    expected = eliminate_pose(goal.matrix(at).double(), goal.gradient(at).double(), batch.betas.double())
    for one, other in ((systems.matrix, expected.matrix), (systems.right, expected.right)):
        assert (one - other).norm() < 2e-3 * other.norm()  # float32
    assert (systems.common() - expected.common()).abs().max() < 1e-2


def test_shared_betas_fit_a_sequence_better_than_the_mean(
    models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A person sits down: the betas of each single frame compensate for its pose."""
    motion = make_motion("sit")
    labels = labels_from(torch.from_numpy(x[20:60:3]) for x in (motion.pose, motion.betas, motion.transl))
    frames = FrameIndex(np.zeros(len(labels[0]), np.int64), motion.time[20:60:3])
    fitter = Fitter(models, load_pipeline(PIPELINE).fit)
    result = fitter.fit("neutral", *labels, frames)
    assert (result.betas == result.betas[0]).all()

    def mean(backend: object, schedule: object, batch: object) -> BetasSystems:
        return equal_systems(fitter.backend.read(batch.betas))  # type: ignore[attr-defined]

    monkeypatch.setattr(skelfit.fitting.sequences.sequence_fit, "betas_systems", mean)
    other = fitter.fit("neutral", *labels, frames)
    assert result.objective.mean() < other.objective.mean()
    assert result.pve_mm.mean() < other.pve_mm.mean()
