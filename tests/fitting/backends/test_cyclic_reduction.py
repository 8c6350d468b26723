"""The solution of chains of frames by cyclic reduction, against dense matrices in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.sequences.elimination_order import levels_of, make_elimination

N = 11  # variables of a made-up frame; not a multiple of four


def at_once(work: Any, groups: int) -> None:
    work(0, groups)


def in_parts(work: Any, groups: int) -> None:
    for k in reversed(range(groups)):
        work(k, k + 1)


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
        coupling[chain[-1]] = np.nan  # the end of the chain: must not be read
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
    actual = np.zeros((count, N, count, N))
    for i, frame in enumerate(chain):
        actual[i, :, i] = matrix[frame]
        if i + 1 < count:
            actual[i, :, i + 1] = coupling[frame]
            actual[i + 1, :, i] = coupling[frame].T
    return actual.reshape(count * N, count * N)


@pytest.mark.parametrize("lengths", [[1], [2], [3], [5], [17], [64], [5, 1, 30, 2, 64, 3, 3]])
def test_solutions_agree_with_dense_matrices(backend: Backend, lengths: list[int]) -> None:
    chains, matrix, coupling, right = problems(lengths)
    actual = solved(backend, chains, matrix, coupling, right)
    for chain in chains:
        expected = np.linalg.solve(dense(chain, matrix, coupling), right[chain].ravel())
        assert abs(actual[chain].ravel() - expected).max() < 5e-5 * abs(expected).max()


def test_a_solution_does_not_depend_on_the_other_chains(backend: Backend) -> None:
    chains, matrix, coupling, right = problems([5, 1, 30, 2, 64, 3, 3])
    together = solved(backend, chains, matrix, coupling, right)
    assert np.array_equal(solved(backend, chains[::-1], matrix, coupling, right, in_parts), together)
    for chain in chains:
        alone = solved(backend, [chain], matrix, coupling, right)[chain]
        assert np.array_equal(alone, together[chain])


def test_a_chain_that_is_not_finite_changes_no_other(backend: Backend) -> None:
    chains, matrix, coupling, right = problems([5, 7, 5])
    clean = solved(backend, chains, matrix, coupling, right)
    matrix[chains[1][2]] = np.nan
    actual = solved(backend, chains, matrix, coupling, right)
    for chain in (chains[0], chains[2]):
        assert np.array_equal(actual[chain], clean[chain])


def test_a_variable_without_curvature_is_damped(backend: Backend) -> None:
    """Its solution is finite, and the other variables are solved."""
    chains, matrix, coupling, right = problems([6])
    before, flat = chains[0][2:4]
    matrix[flat][:, 4] = matrix[flat][4] = coupling[before][:, 4] = coupling[flat][4] = 0
    matrix[flat][4, 4] = -1e-6
    actual = solved(backend, chains, matrix, coupling, right)
    assert np.isfinite(actual).all()
    whole = dense(chains[0], matrix, coupling)
    kept = np.delete(np.arange(6 * N), 3 * N + 4)
    expected = np.linalg.solve(whole[np.ix_(kept, kept)], right[chains[0]].ravel()[kept])
    off = actual[chains[0]].ravel()[kept] - expected
    assert abs(off).max() < 5e-5 * abs(expected).max()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 16, 33])
def test_each_frame_is_eliminated_once_between_its_neighbours(count: int) -> None:
    left = list(range(count))
    for level in levels_of([np.arange(count)]):
        for frame, before, after in zip(level.frames, level.before, level.after, strict=True):
            index = left.index(frame)
            assert before == (left[index - 1] if index else -1)
            assert after == (left[index + 1] if index + 1 < len(left) else -1)
        assert not set(level.before) & set(level.frames) and not set(level.after) & set(level.frames)
        left = [frame for frame in left if frame not in level.frames]
    assert not left
