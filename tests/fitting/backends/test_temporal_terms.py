"""What ties frames together, and the solution of long chains of them, against dense matrices in float64."""

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

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.sequences.coupled_frames import Coupled, Held, People, make_ties
from skelfit.fitting.sequences.elimination_order import levels_of, make_elimination

N = 11  # variables of a made-up frame; not a multiple of four


def one_by_one(function: Any, numbers: Any) -> list[Any]:
    return [function(k) for k in numbers]


def at_once(work: Any, groups: int) -> None:
    work(0, groups)


def in_parts(work: Any, groups: int) -> None:
    for k in reversed(range(groups)):
        work(k, k + 1)


# Cyclic reduction.


def problems(
    lengths: list[int], seed: int = 0
) -> tuple[list[NDArray[np.int64]], NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Chains of frames in any order, and their matrices, couplings and right sides; positive definite."""
    rng = np.random.default_rng(seed)
    count = sum(lengths)
    chains = np.split(rng.permutation(count), np.cumsum(lengths)[:-1])
    factor = rng.standard_normal((count, N + 5, N)) / np.sqrt(N)
    matrix, coupling = factor.transpose(0, 2, 1) @ factor + 0.05 * np.eye(N), np.zeros((count, N, N))
    for chain in chains:
        for a, b in zip(chain[:-1], chain[1:], strict=True):
            one, two = rng.standard_normal((2, 4, N))
            matrix[a] += one.T @ one
            matrix[b] += two.T @ two
            coupling[a] = -one.T @ two
        coupling[chain[-1]] = np.nan  # nothing comes after it: it is not to be read
    return chains, matrix, coupling, rng.standard_normal((count, N))


def solved(
    backend: Backend,
    chains: list[NDArray[np.int64]],
    matrix: NDArray[Any],
    coupling: NDArray[Any],
    right: NDArray[Any],
    share: Any = at_once,
) -> NDArray[Any]:
    k = backend.kernels.cyclic_reduction
    system = k.make_chain_system(len(right), N, backend.device)
    for name, given in (("matrix", matrix), ("coupling", coupling), ("right", right)):
        getattr(system, name).assign(given.astype(np.float32))
    elimination = make_elimination(backend, chains)
    elimination.solve(system, k.make_chain_factors(elimination.groups, N, backend.device), share)
    return np.array(system.x.numpy())


def dense(chain: NDArray[np.int64], matrix: NDArray[Any], coupling: NDArray[Any]) -> NDArray[Any]:
    count = len(chain)
    found = np.zeros((count, N, count, N))
    for i, frame in enumerate(chain):
        found[i, :, i] = matrix[frame]
        if i + 1 < count:
            found[i, :, i + 1] = coupling[frame]
            found[i + 1, :, i] = coupling[frame].T
    return found.reshape(count * N, count * N)


@pytest.mark.parametrize("lengths", [[1], [2], [3], [5], [17], [64], [5, 1, 30, 2, 64, 3, 3]])
def test_chains_are_solved_as_dense_matrices_are(backend: Backend, lengths: list[int]) -> None:
    chains, matrix, coupling, right = problems(lengths)
    found = solved(backend, chains, matrix, coupling, right)
    for chain in chains:
        expected = np.linalg.solve(dense(chain, matrix, coupling), right[chain].ravel())
        assert abs(found[chain].ravel() - expected).max() < 5e-5 * abs(expected).max()


def test_a_chains_solution_depends_on_no_company_and_no_order(backend: Backend) -> None:
    chains, matrix, coupling, right = problems([5, 1, 30, 2, 64, 3, 3])
    together = solved(backend, chains, matrix, coupling, right)
    assert np.array_equal(solved(backend, chains[::-1], matrix, coupling, right, in_parts), together)
    for chain in chains:
        alone = solved(backend, [chain], matrix, coupling, right)[chain]
        assert np.array_equal(alone, together[chain])


def test_a_chain_that_is_not_finite_spoils_no_other(backend: Backend) -> None:
    chains, matrix, coupling, right = problems([5, 7, 5])
    clean = solved(backend, chains, matrix, coupling, right)
    matrix[chains[1][2]] = np.nan
    found = solved(backend, chains, matrix, coupling, right)
    for chain in (chains[0], chains[2]):
        assert np.array_equal(found[chain], clean[chain])


def test_what_is_not_positive_definite_is_damped(backend: Backend) -> None:
    """A variable without any curvature, but for rounding: the rest is solved, and it is finite."""
    chains, matrix, coupling, right = problems([6])
    before, flat = chains[0][2:4]
    matrix[flat][:, 4] = matrix[flat][4] = coupling[before][:, 4] = coupling[flat][4] = 0
    matrix[flat][4, 4] = -1e-6
    found = solved(backend, chains, matrix, coupling, right)
    assert np.isfinite(found).all()
    whole = dense(chains[0], matrix, coupling)
    kept = np.delete(np.arange(6 * N), 3 * N + 4)
    expected = np.linalg.solve(whole[np.ix_(kept, kept)], right[chains[0]].ravel()[kept])
    off = found[chains[0]].ravel()[kept] - expected
    assert abs(off).max() < 5e-5 * abs(expected).max()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16, 33])
def test_each_frame_is_eliminated_once_and_its_neighbours_are_there(count: int) -> None:
    left = list(range(count))
    for level in levels_of([np.arange(count)]):
        for frame, before, after in zip(level.frames, level.before, level.after, strict=True):
            place = left.index(frame)
            assert before == (left[place - 1] if place else -1)
            assert after == (left[place + 1] if place + 1 < len(left) else -1)
        assert not set(level.before) & set(level.frames) and not set(level.after) & set(level.frames)
        left = [frame for frame in left if frame not in level.frames]
    assert not left


# Ties.


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


class Frames:
    """Five frames of which the first three, and the last two, are a sequence each; two of them lie apart in time."""

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
        self.people.place(self.x)
        put = backend.put
        nowhere = put(torch.zeros(count, 0, 3))
        people = People(
            batch.q, batch.q.clone(), batch.betas, batch.trans, batch.status, put(self.start), nowhere
        )
        ties = make_ties(self.SEQUENCES, self.TIME, np.full(count, self.WEIGHT))
        self.held = Held(count)
        self.held.hold(self.people.found, self.people.found.rows)
        self.coupled = Coupled(backend, self.people.tables, self.people.rules(0), people, one_by_one)
        self.coupled.tie(ties)
        self.together = self.coupled.chains(self.SEQUENCES)

    def reference(self, rows: NDArray[np.int64]) -> SequenceReference:
        index = torch.from_numpy(rows)
        weight = self.WEIGHT / np.diff(self.TIME[rows]) ** 2
        return SequenceReference(self.goal.take(index), self.start[index], torch.from_numpy(weight))


@pytest.mark.parametrize("kind", ["pose", "free root"])
def test_values_and_equations_are_the_references(backend: Backend, model: SkelModel, kind: str) -> None:
    """All sequences at once; the gap in time weakens a tie."""
    frames = Frames(backend, model, kind)
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
        found = torch.block_diag(*matrix[rows])
        n = x.shape[1]
        for k, row in enumerate(rows[:-1]):
            here, there = slice(k * n, (k + 1) * n), slice((k + 1) * n, (k + 2) * n)
            found[here, there], found[there, here] = coupling[row], coupling[row].T
        whole = value[rows, 0].sum() + value[rows, 2].sum()
        assert ties.sum() > 0.01 * whole
        expected = Evaluation(goal.value(x)[None], goal.gradient(x).view(1, -1), goal.matrix(x)[None])
        assert_agrees(Evaluation(whole[None], gradient[rows].view(1, -1), found[None]), expected)


@pytest.mark.parametrize("kind", ["pose", "free root"])
def test_a_step_is_that_of_the_dense_matrix_and_promises_as_much(
    backend: Backend, model: SkelModel, kind: str
) -> None:
    frames = Frames(backend, model, kind)
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
        promise = -gradient @ expected - 0.5 * expected @ matrix @ expected
        assert abs(coupled.promise[rows].double().sum() - promise) < 1e-3 * promise


def test_frames_that_are_held_pull_on_their_neighbours(backend: Backend, model: SkelModel) -> None:
    """A step of the middle one of three: the dense matrix, of its own rows and columns alone."""
    frames = Frames(backend, model)
    coupled, middle = frames.coupled, np.array([1])
    coupled.evaluate(frames.held, frames.together)
    coupled.step(coupled.chains([middle]), torch.full((5,), 0.1))
    goal, x = frames.reference(frames.SEQUENCES[0]), frames.x[frames.SEQUENCES[0]]
    n = x.shape[1]
    matrix, gradient = goal.matrix(x)[n : 2 * n, n : 2 * n], goal.gradient(x)[1]
    expected = -torch.linalg.solve(matrix + 0.1 * torch.diag(matrix.diag()), gradient)
    found = backend.read(coupled.system.x).double()[1]
    assert (found - expected).abs().max() < NEAR.step * expected.abs().max()
    moved = backend.read(coupled.people.q)[:, frames.goal.dofs].double() - frames.x
    assert moved[1].abs().max() > 1e-3 and moved[[0, 2, 3, 4]].abs().max() == 0


def test_the_ties_gradient_is_the_slope_of_their_value(model: SkelModel) -> None:
    """Of the reference, by differences: at large deviations, and where the label itself turns by a lot."""
    goal = make(model)
    start = torch.randn(goal.q.shape, dtype=torch.float64)
    tied = SequenceReference(
        replace(goal, q=2 * torch.randn_like(start)), start, torch.tensor([0.7]).double()
    )
    x = tied.frames.start

    def cost(y: Tensor) -> Tensor:
        return tied.ties(y).square().sum()

    gradient = torch.func.grad(cost)(x)
    way = torch.randn_like(x)
    slope = (cost(x + 1e-6 * way) - cost(x - 1e-6 * way)) / 2e-6
    assert abs((gradient * way).sum() - slope) < 1e-7 * abs(slope)


def test_a_motion_of_the_label_costs_nothing(model: SkelModel) -> None:
    """Where the fit turns each joint as the label does, from anywhere: by half a turn between two frames, say."""
    goal = make(model)
    apart = torch.zeros(1, 46, dtype=torch.float64)
    apart[0, 6] = 0.3  # the knee, whose axis does not move
    start = torch.randn(2, 46, dtype=torch.float64)
    tied = SequenceReference(replace(goal, q=start + apart), start, torch.ones(1).double())
    assert tied.ties(tied.frames.start).abs().max() < 1e-12
