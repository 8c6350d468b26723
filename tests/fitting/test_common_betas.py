"""What frames have in common of their betas: against a dense solution, and the reference's matrices."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

import skelfit.fitting.sequences.sequence_fit
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FirstOrderConfig
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.baseline.first_order import _FirstOrderPair
from skelfit.fitting.fitter import Fitter
from skelfit.fitting.sequences.frame_index import Frames
from skelfit.fitting.sequences.shared_betas import Known, alike, know_betas, known, together
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
def test_the_sum_of_all_frames_is_least_there(moved: float) -> None:
    """Of quadratic forms, wherever they are evaluated."""
    matrix, minima = random_forms()
    at = minima + moved * torch.linspace(-1, 1, POSE + BETAS, dtype=torch.float64)
    gradient = (matrix @ (at - minima)[..., None])[..., 0]
    found = known(matrix, gradient, at[:, POSE:]).common()

    size = N * POSE + BETAS
    dense, right = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64)
    for i in range(N):
        index = torch.tensor([*range(i * POSE, (i + 1) * POSE), *range(N * POSE, size)])
        dense[index[:, None], index] += matrix[i]
        right[index] += matrix[i] @ minima[i]
    torch.testing.assert_close(found, torch.linalg.solve(dense, right)[N * POSE :])
    assert (found - minima[:, POSE:].mean(0)).abs().max() > 0.1


def test_frames_that_are_not_finite_know_nothing() -> None:
    matrix, minima = random_forms()
    at = minima[:, POSE:]
    good = known(matrix[1:], torch.zeros(N - 1, POSE + BETAS, dtype=torch.float64), at[1:]).common()
    for fault in (torch.nan, torch.inf, 0.0):  # 0: a pose of which nothing is known
        bad = matrix.clone()
        bad[0, :POSE, :POSE] = fault
        found = known(bad, torch.zeros(N, POSE + BETAS, dtype=torch.float64), at)
        torch.testing.assert_close(found.common(), good)
    nobody = known(matrix * torch.nan, torch.zeros(N, POSE + BETAS, dtype=torch.float64), at)
    assert (nobody.common() == 0).all()


def test_of_labels_it_is_the_mean_and_of_equal_ones_exactly_theirs() -> None:
    betas = torch.randn(37, 10, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(alike(betas).common(), betas.double().mean(0))
    same = betas[:1].expand(37, -1)
    assert torch.equal(alike(same).common().float(), betas[0])
    parts = together([alike(betas[:10]), alike(betas[10:])])
    assert torch.equal(parts.common(), alike(betas).common())
    assert torch.equal(parts.take(slice(10, 37)).common(), alike(betas[10:]).common())


def test_it_is_made_of_the_reference_s_matrices(models: ModelSet) -> None:
    """Two neutral people where they start: the kernels' matrices against autograd's, by the same coarse vertices."""
    fit = load_pipeline(PIPELINE).fit
    fitter = Fitter(models, fit)
    pair = _FirstOrderPair(models, "neutral", "male", fit, fitter.backend)
    pair.first_order = FirstOrderConfig()
    motion = make_motion("squat")
    pose, betas = (torch.from_numpy(x[[0, 40]]) for x in (motion.pose, motion.betas))
    batch = pair.start(pose, betas)
    found = know_betas(fitter.backend, pair.schedule, batch)
    stage = pair.schedule.stages[-1]
    goal = pair.goal(replace(stage, fine=stage.coarse), batch).hold()
    at = goal.start
    expected = known(goal.matrix(at).double(), goal.gradient(at).double(), batch.betas.double())
    for one, other in ((found.matrix, expected.matrix), (found.right, expected.right)):
        assert (one - other).norm() < 2e-3 * other.norm()  # float32
    assert (found.common() - expected.common()).abs().max() < 1e-2


def test_a_sequence_of_one_shape_costs_less_than_with_the_mean(
    models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Somebody sits down: betas that each frame has by itself make up for its pose."""
    motion = make_motion("sit")
    labels = [torch.from_numpy(x[20:60:3]) for x in (motion.pose, motion.betas, motion.transl)]
    frames = Frames(np.zeros(len(labels[0]), np.int64), motion.time[20:60:3])
    fitter = Fitter(models, load_pipeline(PIPELINE).fit)
    found = fitter.fit("neutral", *labels, frames)
    assert (found.betas == found.betas[0]).all()

    def mean(backend: object, schedule: object, batch: object) -> Known:
        return alike(fitter.backend.read(batch.betas))  # type: ignore[attr-defined]

    monkeypatch.setattr(skelfit.fitting.sequences.sequence_fit, "know_betas", mean)
    other = fitter.fit("neutral", *labels, frames)
    assert found.objective.mean() < other.objective.mean()
    assert found.pve_mm.mean() < other.pve_mm.mean()
