"""The frames of sequences and the equations that ties make of them, on the device.

`Coupled` evaluates frames, from the moments of vertex passes that `Held` knows, solves for the steps of chains of
them, and moves them. Work is shared by threads, in groups of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.parallel_batches import Each
from skelfit.fitting.passes import Moments, Tables, whole_groups
from skelfit.fitting.sequences.elimination_order import Elimination, make_elimination
from skelfit.fitting.sequences.temporal_tables import make_tied

Indices = NDArray[np.int64]
_GROUPS = 64  # of frames, per call of a kernel on a CPU: enough work to hand it to a thread


@dataclass(frozen=True)
class People:
    """Where the N frames are, on the device."""

    q: Tensor  # (N, 46) rad
    origin: Tensor  # (N, 46) rad, q at the last vertex pass
    betas: Tensor  # (N, K)
    trans: Tensor  # (N, 3) m
    status: Tensor  # (N, 6)
    start: Tensor  # (N, 46) rad, of the labels in closed form
    located: Tensor  # (N, R, 3) m


class Held:
    """The moments of N frames: of each, those of the vertex pass that was the last to see it."""

    def __init__(self, count: int) -> None:
        self._moments: dict[int, Moments] = {}
        self._passes = 0
        self._which, self._place = (np.full(count, -1) for _ in range(2))

    def hold(self, moments: Moments, frames: Indices) -> None:
        """Moments of a pass; frames: which each of the people of the pass is, group by group.

        Those of passes that were the last to see no frame any more are dropped.
        """
        self._which[frames], self._place[frames] = self._passes, np.arange(len(frames))
        self._moments[self._passes] = moments
        self._passes += 1
        used = np.unique(self._which).tolist()
        self._moments = {k: found for k, found in self._moments.items() if k in used}

    def passes(self, frames: Indices) -> list[tuple[Moments, Indices, Indices]]:
        """Some frames by the pass that saw them: its moments, the frames, and their places in it."""
        found = []
        for k in np.unique(self._which[frames]):
            few = frames[self._which[frames] == k]
            found.append((self._moments[k], few, self._place[few]))
        return found


@dataclass(frozen=True)
class Ties:
    """What ties each of N frames to those before and after it."""

    before: Indices  # (N,) -1: none
    after: Indices
    weight: Tensor  # (N, 2) m^2 / rad^2


def make_ties(sequences: Sequence[Indices], time: NDArray[np.float64], weight: NDArray[np.float64]) -> Ties:
    """Ties along the frames of sequences; time (N,) s.

    weight (N,) m^2 s^2 / rad^2 of the tie to the frame after, over the square of the time between the two.
    """
    before, after = np.full(len(time), -1), np.full(len(time), -1)
    weights = np.zeros((len(time), 2))
    for frames in sequences:
        one, two = frames[:-1], frames[1:]
        before[two], after[one] = one, two
        weights[two, 0] = weights[one, 1] = weight[one] / (time[two] - time[one]) ** 2
    return Ties(before, after, torch.tensor(weights, dtype=torch.float32))


@dataclass(frozen=True)
class Chains:
    """Frames that move together, as kernels take them; made by `Coupled.chains`."""

    frames: Indices
    parts: list[
        tuple[Any, Any, Any]
    ]  # (G, L) frames, and those before and after them: what a thread does at a time
    elimination: Elimination


class Coupled:
    """N frames with n variables each, those of a fit's stage."""

    def __init__(self, backend: Backend, tables: Tables, rules: Any, people: People, each: Each) -> None:
        """rules: of the stage that the tables are of; betas are held."""
        k, count = backend.kernels, len(people.q)
        self.backend, self.people, self.each = backend, people, each
        self.tables, self.rules = tables, rules
        self.n = len(self.tables.tree.dofs)
        self.tied = make_tied(self.tables.tree, backend.device)
        self.system = k.cyclic_reduction.make_chain_system(count, self.n, backend.device)
        joints = self.tied.first.shape[0] - 1
        self.sequences = k.temporal_terms.make_sequence_terms(count, self.n, joints, backend.device)
        state = k.levenberg_marquardt.FitState()
        state.q, state.betas, state.trans = (backend.array(x) for x in (people.q, people.betas, people.trans))
        state.origin, state.status = state.q, backend.array(people.status)
        none = np.full(count, -1)
        self.ties = Ties(none, none, torch.zeros(count, 2))
        self.factors: Any = None
        self.state, self.located = state, backend.array(people.located)

    def label_rotations(self) -> NDArray[np.float32]:
        """The rotations (N, K, 9) of joints that the labels say, row by row.

        Without the root: in the canonical frame it never turns, and would only dilute a mean.
        """
        everybody = self._parts(np.arange(len(self.people.start)))
        # What deviates from angles of zero are the rotations themselves.
        self.sequences.start = self.backend.array(torch.zeros_like(self.people.start))
        found = np.asarray(self._deviations(everybody, self.people.start).numpy())
        return found[:, int(0 in self.tables.tree.joints) :]

    def tie(self, ties: Ties) -> None:
        """From now on, these are the ties."""
        self.ties = ties
        self.sequences.start = self.backend.array(self.people.start)
        wp.to_torch(self.sequences.weight).copy_(ties.weight)

    def chains(self, chains: Sequence[Indices]) -> Chains:
        """Chains of frames that move together; what is tied to them, and is in none, stays."""
        frames = np.concatenate(chains)
        elimination = make_elimination(self.backend, chains)
        if self.factors is None or self.factors.y.shape[0] < elimination.groups:
            self.factors = self.backend.kernels.cyclic_reduction.make_chain_factors(
                elimination.groups, self.n, self.backend.device
            )
        return Chains(frames, self._parts(frames), elimination)

    def evaluate(self, held: Held, chains: Chains) -> Tensor:
        """Make the equations of chains from their frames' moments; the values (N, 3) m^2 of all, on the host.

        The columns: of the frame alone, of its ties to the frames before and after it.
        """
        size = self._size
        calls = [
            (moments, few[a : a + size], places[a : a + size])
            for moments, few, places in held.passes(chains.frames)
            for a in range(0, len(few), size)
        ]
        self.each(lambda i: self._evaluate(*calls[i]), range(len(calls)))
        self._deviate(chains.parts, self.people.q)
        kernel, inputs = self.backend.kernels.temporal_terms.tie, [self.tied, self.sequences, self.system]
        self._share(chains.parts, lambda part: self._launch(kernel, *part, *inputs))
        return self.backend.read(self.sequences.value)

    def step(self, chains: Chains, damping: Tensor) -> None:
        """Move chains by a damped step, damping (N,); the equations are used up."""
        kernel = self.backend.kernels.temporal_terms.damp
        wp.to_torch(self.sequences.damping).copy_(damping)
        self._share(chains.parts, lambda part: self._launch(kernel, part[0], self.sequences, self.system))
        chains.elimination.solve(self.system, self.factors, self._share_groups)
        self._share(chains.parts, lambda part: self._move(part[0]))

    def moved(self, chains: Chains) -> Tensor:
        """How far the joint of each frame has turned that has since the last vertex pass turned most, (N,) rad.

        Of frames that are in no chain, anything; by the chord, which is shorter than the arc.
        """
        before = self._deviations(chains.parts, self.people.origin)
        after = self._deviations(chains.parts, self.people.q)
        return (0.5 * (after - before).square().sum(2)).sqrt().amax(1)

    @property
    def promise(self) -> Tensor:
        """What the last step promised of each frame, (N,) m^2, on the host."""
        return self.backend.read(self.sequences.predicted).abs()

    @property
    def _size(self) -> int:
        """Frames per call of a kernel."""
        return self.backend.lanes * _GROUPS if self.backend.workers is None else self.backend.people

    def _parts(self, frames: Indices) -> list[tuple[Any, Any, Any]]:
        groups = whole_groups(frames, self.backend.lanes)
        around = [groups, *(x[groups] for x in (self.ties.before, self.ties.after))]
        lists, count = [self.backend.ints(x) for x in around], len(groups)
        size = max(self._size // self.backend.lanes, 1)
        parts = [slice(a, min(a + size, count)) for a in range(0, count, size)]
        return [(lists[0][part], lists[1][part], lists[2][part]) for part in parts]

    def _share(self, parts: list[tuple[Any, Any, Any]], work: Callable[[tuple[Any, Any, Any]], None]) -> None:
        """Some work for all parts, in threads, until it is done."""
        self.each(lambda k: work(parts[k]), range(len(parts)))

    def _share_groups(self, work: Callable[[int, int], None], groups: int) -> None:
        size = max(self._size // self.backend.lanes, 1)
        self.each(lambda a: work(a, min(a + size, groups)), range(0, groups, size))

    def _launch(self, kernel: Any, frames: Any, *inputs: Any) -> None:
        self.backend.launch(kernel, frames.shape[0], [frames, *inputs])

    def _deviate(self, parts: list[tuple[Any, Any, Any]], q: Tensor) -> None:
        """How joints deviate at q (N, 46) from the labels'."""
        kernel, inputs = (
            self.backend.kernels.temporal_terms.compute_deviations,
            [self.backend.array(q), self.tied, self.sequences],
        )
        self._share(parts, lambda part: self._launch(kernel, part[0], *inputs))

    def _deviations(self, parts: list[tuple[Any, Any, Any]], q: Tensor) -> Tensor:
        """The same, (N, K, 9) on the host."""
        self._deviate(parts, q)
        return self.backend.read(self.sequences.deviation)

    def _evaluate(self, found: Moments, frames: Indices, places: Indices) -> None:
        backend, k, tables = self.backend, self.backend.kernels, self.tables
        where = backend.ints(whole_groups(places, backend.lanes))
        groups = where.shape[0]
        joints, pairs = len(tables.tree.joints), len(tables.tree.pairs)
        self._launch(
            k.frame_steps.evaluate_frames,
            backend.ints(whole_groups(frames, backend.lanes)),
            where, backend.slots(groups), self.rules, self.state, self.located, found.moments, found.beta_moments,
            tables.variables, tables.body, backend.room(k.joint_frames.make_joint_frames, groups),
            backend.room(k.quadratic.make_quadratic_form, groups, joints, pairs, tables.variables.num_cells),
            backend.room(k.betas_terms.make_beta_terms, 0, joints),
            backend.room(k.objective.make_variable_scratch, groups, self.n, tables.balls.index.shape[0]),
            backend.room(k.damped_step.make_newton_scratch, groups, self.n),
            self.sequences, self.system,
        )  # fmt: skip

    def _move(self, frames: Any) -> None:
        backend, tables, k, groups = self.backend, self.tables, self.backend.kernels, frames.shape[0]
        moving = backend.room(k.frame_steps.make_frame_scratch, groups, self.n, tables.balls.index.shape[0])
        self._launch(
            k.frame_steps.move_frames, frames, backend.slots(groups), self.rules.max_angle_step, tables.variables,
            tables.balls, self.sequences, self.system, self.state.q, moving,
        )  # fmt: skip
