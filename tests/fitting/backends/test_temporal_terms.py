"""Ties between frames, and steps of tied frames, against dense matrices in float64."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from backends import NEAR, assert_agrees
from kernel_passes import KernelPass, of_floats, symmetric
from numpy.typing import NDArray
from reference_cases import KINDS, make, near
from sequence_reference import SequenceReference
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.sequences.coupled_frames import CoupledFrames, FrameMoments, FrameStates
from skelfit.fitting.terms.temporal_smoothness import make_frame_ties


def one_by_one(function: Any, numbers: Any) -> list[Any]:
    return [function(k) for k in numbers]


class TiedFrames:
    """Five frames in two sequences, of three and of two; one time step is longer."""

    SEQUENCES = (np.array([0, 1, 2]), np.array([3, 4]))
    TIME = np.array([0.0, 0.1, 0.3, 0.0, 0.1])
    WEIGHT = 1e-3

    def __init__(self, backend: Backend, model: SkelModel, kind: str = "pose") -> None:
        base = KINDS[kind](model)
        self.goal = of_floats(base.take(torch.tensor([0, 1, 0, 1, 1])))
        self.x = near(self.goal).float().double()
        start = self.goal.q + 0.5 * torch.randn(self.goal.q.shape, dtype=torch.float64)
        self.start = start.float().double()
        self.people = KernelPass(backend, self.goal)
        batch, count = self.people.batch, len(self.x)
        self.people.move_to(self.x)
        put = backend.upload
        nowhere = put(torch.zeros(count, 0, 3))
        people = FrameStates(
            batch.q, batch.q.clone(), batch.betas, batch.trans, batch.status, put(self.start), nowhere
        )
        ties = make_frame_ties(self.SEQUENCES, self.TIME, np.full(count, self.WEIGHT))
        self.held = FrameMoments(count)
        self.held.add(self.people.moments, self.people.moments.rows)
        self.coupled = CoupledFrames(backend, self.people.tables, self.people.rules(0), people, one_by_one)
        self.coupled.set_ties(ties)
        self.together = self.coupled.chains(self.SEQUENCES)

    def reference(self, rows: NDArray[np.int64]) -> SequenceReference:
        index = torch.from_numpy(rows)
        weight = self.WEIGHT / np.diff(self.TIME[rows]) ** 2
        return SequenceReference(self.goal.take(index), self.start[index], torch.from_numpy(weight))


@pytest.mark.parametrize("kind", ["pose", "free root"])
def test_values_and_equations_agree_with_the_reference(backend: Backend, model: SkelModel, kind: str) -> None:
    """All sequences at once; a longer time step weakens a tie."""
    frames = TiedFrames(backend, model, kind)
    value = frames.coupled.evaluate(frames.held, frames.together).double()
    gradient = backend.read(frames.coupled.sequences.gradient).double()
    matrix = symmetric(backend.read(frames.coupled.system.matrix).double())
    coupling = backend.read(frames.coupled.system.coupling).double()
    for rows in frames.SEQUENCES:
        goal, x = frames.reference(rows), frames.x[rows]
        ties = goal.ties(x).square().sum(1)
        assert (value[rows[:-1], 2] - ties).abs().max() < 1e-5 * ties.max()
        assert (value[rows[1:], 1] - ties).abs().max() < 1e-5 * ties.max()
        assert value[rows[0], 1] == value[rows[-1], 2] == 0
        actual = torch.block_diag(*matrix[rows])
        n = x.shape[1]
        for k, row in enumerate(rows[:-1]):
            here, there = slice(k * n, (k + 1) * n), slice((k + 1) * n, (k + 2) * n)
            actual[here, there], actual[there, here] = coupling[row], coupling[row].T
        whole = value[rows, 0].sum() + value[rows, 2].sum()
        assert ties.sum() > 0.01 * whole
        expected = Evaluation(goal.value(x)[None], goal.gradient(x).view(1, -1), goal.matrix(x)[None])
        assert_agrees(Evaluation(whole[None], gradient[rows].view(1, -1), actual[None]), expected)


@pytest.mark.parametrize("kind", ["pose", "free root"])
def test_a_step_and_its_predicted_decrease_agree_with_the_dense_matrix(
    backend: Backend, model: SkelModel, kind: str
) -> None:
    frames = TiedFrames(backend, model, kind)
    coupled, damping = frames.coupled, torch.tensor([0.3, 0.5, 0.7, 0.4, 0.6])
    coupled.evaluate(frames.held, frames.together)
    coupled.step(frames.together, damping)
    step = backend.read(coupled.system.x).double()
    for rows in frames.SEQUENCES:
        goal, x = frames.reference(rows), frames.x[rows]
        matrix, gradient = goal.matrix(x), goal.gradient(x).flatten()
        added = damping[rows].double().repeat_interleave(x.shape[1]) * matrix.diag()
        expected = -torch.linalg.solve(matrix + torch.diag(added), gradient)
        assert (step[rows].flatten() - expected).abs().max() < NEAR.step * expected.abs().max()
        decrease = -gradient @ expected - 0.5 * expected @ matrix @ expected
        assert abs(coupled.promise[rows].double().sum() - decrease) < 1e-3 * decrease


def test_held_frames_act_on_their_neighbours(backend: Backend, model: SkelModel) -> None:
    """A step of the middle frame of three: its own rows and columns of the dense matrix."""
    frames = TiedFrames(backend, model)
    coupled, middle = frames.coupled, np.array([1])
    coupled.evaluate(frames.held, frames.together)
    coupled.step(coupled.chains([middle]), torch.full((5,), 0.1))
    goal, x = frames.reference(frames.SEQUENCES[0]), frames.x[frames.SEQUENCES[0]]
    n = x.shape[1]
    matrix, gradient = goal.matrix(x)[n : 2 * n, n : 2 * n], goal.gradient(x)[1]
    expected = -torch.linalg.solve(matrix + 0.1 * torch.diag(matrix.diag()), gradient)
    actual = backend.read(coupled.system.x).double()[1]
    assert (actual - expected).abs().max() < NEAR.step * expected.abs().max()
    moved = backend.read(coupled.people.q)[:, frames.goal.dofs].double() - frames.x
    assert moved[1].abs().max() > 1e-3 and moved[[0, 2, 3, 4]].abs().max() == 0


def test_the_gradient_of_ties_agrees_with_finite_differences(model: SkelModel) -> None:
    """Of the reference, at large deviations and large rotations of the label."""
    goal = make(model)
    start = torch.randn(goal.q.shape, dtype=torch.float64)
    tied = SequenceReference(
        replace(goal, q=2 * torch.randn_like(start)), start, torch.tensor([0.7]).double()
    )
    x = tied.frames.start

    def cost(y: Tensor) -> Tensor:
        return tied.ties(y).square().sum()

    gradient = torch.func.grad(cost)(x)
    direction = torch.randn_like(x)
    slope = (cost(x + 1e-6 * direction) - cost(x - 1e-6 * direction)) / 2e-6
    assert abs((gradient * direction).sum() - slope) < 1e-7 * abs(slope)


def test_a_motion_of_the_label_costs_nothing(model: SkelModel) -> None:
    """If each joint of the fit turns as in the label, from any start and by any angle, there is no cost."""
    goal = make(model)
    apart = torch.zeros(1, 46, dtype=torch.float64)
    apart[0, 6] = 0.3  # the knee, whose axis does not move
    start = torch.randn(2, 46, dtype=torch.float64)
    tied = SequenceReference(replace(goal, q=start + apart), start, torch.ones(1).double())
    assert tied.ties(tied.frames.start).abs().max() < 1e-12
