"""Frames of sequences as one problem: betas shared, and what ties the frames to each other.

Each frame has been fitted by itself; that is the start. With the betas of a sequence held at their mean, some vertex
passes of all frames follow, and after each some steps of Levenberg and Marquardt over whole sequences, from the moments
of the pass: see `kernels/ties.py` for what is added to the frames' own objectives, and `kernels/tridiagonal.py` for the
solution, whose cost is linear in the frames.

A step is accepted where it does not raise the sum of a sequence. Damping is each frame's own, and rises where the frame
and its ties got worse, so that one bad frame does not make all others go slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fit.batches import Each, side_by_side
from skelfit.fit.measure import Measured
from skelfit.fit.passes import (
    DECREASE,
    VALUE,
    Batch,
    Moments,
    make_rules,
    vertex_pass,
    whole_groups,
)
from skelfit.fit.results import FitResult, map_results
from skelfit.fit.tie_tables import make_tied
from skelfit.fit.tridiagonal import Elimination, make_elimination

if TYPE_CHECKING:
    from skelfit.fit.fitter import PairFitter

Indices = NDArray[np.int64]
_FIELDS = ("q", "betas", "trans", "status", "start")
_GROUPS = 16  # of frames, per call of a kernel: enough work to hand it to a thread


@dataclass(frozen=True)
class People:
    """Where the N frames of some sequences are, on the device."""

    q: Tensor  # (N, 46) rad
    betas: Tensor  # (N, K)
    trans: Tensor  # (N, 3) m
    status: Tensor  # (N, 6)
    start: Tensor  # (N, 46) rad, of the labels in closed form

    def part(self, first: int, stop: int, batch: Batch) -> Batch:
        """The batch of some frames, with the targets of another."""
        q, betas, trans = (x[first:stop] for x in (self.q, self.betas, self.trans))
        return replace(batch, q=q, betas=betas, trans=trans, status=self.status[first:stop])


@dataclass(frozen=True)
class Chains:
    """Which frames are tied to each other, and how much."""

    frames: list[Indices]  # of each sequence, in the order of time
    before: Indices  # (N,) -1: none
    after: Indices
    weight: Tensor  # (N, 2) m^2 / rad^2, of the ties before and after


def make_chains(sequences: Sequence[Indices], time: NDArray[np.float64], weight: float) -> Chains:
    """Chains of sequences' frames; time (N,) s; weight m^2 s^2 / rad^2 over the square of the time between two."""
    before, after = np.full(len(time), -1), np.full(len(time), -1)
    weights = np.zeros((len(time), 2))
    for chain in sequences:
        one, two = chain[:-1], chain[1:]
        before[two], after[one] = one, two
        weights[two, 0] = weights[one, 1] = weight / (time[two] - time[one]) ** 2
    return Chains([c for c in sequences if len(c)], before, after, torch.tensor(weights, dtype=torch.float32))


def fit_sequences(
    pair: PairFitter,
    labels: Sequence[Tensor],
    sequences: Sequence[Indices],
    time: NDArray[np.float64],
) -> FitResult:
    """Fit N frames: labels as `PairFitter.fit` takes them, the frames of each sequence, and their times (N,) s.

    Frames that are not finite are left out of what ties the others.
    """
    config = pair.config.temporal
    assert config is not None
    size = pair.config.batch or pair.backend.people
    with side_by_side(pair.backend) as each:
        firsts = range(0, len(time), size)
        found = each(lambda a: _alone(pair, *(x[a : a + size] for x in labels[:2])), firsts)
        people = People(*(torch.cat([getattr(f.people, name) for f in found]) for name in _FIELDS))
        finite = (people.q.isfinite().all(1) & people.status[:, VALUE].isfinite()).cpu().numpy()
        chains = make_chains([c[finite[c]] for c in sequences], time, config.weight)
        if chains.frames:
            _share_betas(people, chains)
            Together(pair, labels[:2], people, chains, each).run()

        def result(k: int) -> FitResult:
            first, stop = k * size, (k + 1) * size
            pose, betas, transl = (x[first:stop] for x in labels)
            batch = people.part(first, stop, pair.start(pose, betas))
            status = pair.backend.read(batch.status)
            return pair.result(batch, status, found[k].progress, pose, betas, transl)

        return map_results(lambda *x: torch.cat(x), *each(result, range(len(firsts))))


@dataclass(frozen=True)
class _Alone:
    """A batch of frames, each fitted by itself."""

    people: People
    progress: list[Measured]


def _alone(pair: PairFitter, pose: Tensor, betas: Tensor) -> _Alone:
    batch = pair.start(pose, betas)
    start = batch.q.clone()
    status, progress = pair.alone(batch)
    people = People(batch.q, batch.betas, batch.trans, status.to(start.device), start)
    return _Alone(people, progress)


def _share_betas(people: People, chains: Chains) -> None:
    """The mean of a sequence's betas for all its frames."""
    betas = people.betas.double().cpu()
    for chain in chains.frames:
        betas[chain] = betas[chain].sum(0) / len(chain)
    people.betas.copy_(betas)


class Together:
    """The sequences of one call, while they are being fitted."""

    def __init__(
        self, pair: PairFitter, labels: Sequence[Tensor], people: People, chains: Chains, each: Each
    ) -> None:
        """labels: pose (N, 24, 3) rad and betas (N, 10) of SMPL, on the host."""
        config = pair.config.temporal
        assert config is not None
        self.pair, self.labels, self.people, self.chains = pair, labels, people, chains
        self.each, self.backend, self.config = each, pair.backend, config
        stage = pair.schedule.stages[-1]
        self.tables = stage.fine
        self.rules = make_rules(self.backend, pair.config, 0, 0.0, stage.config.joint_weight)
        self.rules.limit_weight = stage.limit_weight
        device, k, count = self.backend.device, self.backend.kernels, len(people.q)
        self.n = len(self.tables.tree.dofs)
        self.tied = make_tied(self.tables.tree, device)
        self.system = k.tridiagonal.make_system(count, self.n, device)
        self.state = k.ties.make_sequences(count, self.n, self.tied.first.shape[0] - 1, device)
        self.state.start = self.backend.array(people.start)
        _view(self.state.weight).copy_(chains.weight)
        self.damping = torch.full((count,), pair.config.solver.damping)
        self.elimination: Elimination = make_elimination(self.backend, chains.frames)
        self.factors = k.tridiagonal.make_factors(self.elimination.groups, self.n, device)
        self.everybody = np.concatenate(chains.frames)

    def run(self) -> None:
        """All passes and steps."""
        for k in range(self.config.passes):
            moments = self._vertex_pass()
            self._steps(moments, last=k == self.config.passes - 1)

    def _vertex_pass(self) -> list[tuple[Batch, Moments]]:
        """Of all frames, batch by batch."""
        size = self.pair.config.batch or self.backend.people

        def found(first: int) -> tuple[Batch, Moments]:
            pose, betas = (x[first : first + size] for x in self.labels)
            batch = self.people.part(first, first + size, self.pair.start(pose, betas))
            return batch, vertex_pass(self.backend, self.tables, batch, np.arange(batch.count), False)

        return self.each(found, range(0, len(self.people.q), size))

    def _steps(self, moments: list[tuple[Batch, Moments]], last: bool) -> None:
        solver, q = self.pair.config.solver, self.people.q
        value = self._evaluate(moments)
        for _ in range(self.config.steps):
            before = q.clone()
            self._solve(self.damping)
            self._move()
            tried = self._evaluate(moments)
            rose = tried > value
            factor = torch.where(rose, solver.damping_up, solver.damping_down)
            self.damping = (self.damping * factor).clamp(solver.damping_min, solver.damping_max)
            refused = self._refused(value, tried)
            if len(refused):
                index = torch.from_numpy(refused).to(q.device)
                q[index] = before[index]
                tried = self._evaluate(moments)
            value = tried
        if last:
            self._judge(moments, value)

    def _refused(self, value: Tensor, tried: Tensor) -> Indices:
        """Frames of the sequences whose sum has risen."""
        noise = float(self.rules.noise)
        sums = [
            (c, float(value[c].double().sum()), float(tried[c].double().sum())) for c in self.chains.frames
        ]
        refused = [c for c, one, two in sums if not two <= one + noise * one]
        return np.concatenate(refused) if refused else np.zeros(0, np.int64)

    def _judge(self, moments: list[tuple[Batch, Moments]], value: Tensor) -> None:
        """Value and promised decrease of each frame, where it is."""
        q = self.people.q
        before = q.clone()
        damping = torch.full_like(self.damping, self.pair.config.solver.damping_min)
        self._solve(damping)
        self._move()
        q.copy_(before)
        promise = _view(self.state.promise).abs()
        index = torch.from_numpy(self.everybody).to(q.device)
        self.people.status[index, VALUE] = value.to(q.device)[index]
        self.people.status[index, DECREASE] = promise[index]

    def _evaluate(self, moments: list[tuple[Batch, Moments]]) -> Tensor:
        """Fill in the system but for its ties; returns each frame's value with half of its ties, (N,) on the host."""
        size = self.pair.config.batch or self.backend.people

        def alone(k: int) -> None:
            self._evaluate_batch(*moments[k], k * size)

        self.each(alone, range(len(moments)))
        self._share(self._deviate, self.everybody)
        self._share(self._tie, self.everybody)
        value = self.backend.read(self.state.value)
        tie = value[:, 1]
        total = value[:, 0] + 0.5 * tie
        index = torch.from_numpy(self.chains.before)
        total = total + torch.where(index >= 0, 0.5 * tie[index.clamp(min=0)], 0.0)
        return total

    def _evaluate_batch(self, batch: Batch, found: Moments, first: int) -> None:
        backend, k, tables = self.backend, self.backend.kernels, self.tables
        where = whole_groups(np.arange(batch.count), backend.lanes)
        groups, stop = len(where), first + batch.count
        joints, pairs = len(tables.tree.joints), len(tables.tree.pairs)
        state = k.solve.State()
        state.q, state.betas = backend.array(batch.q), backend.array(batch.betas)
        state.trans = backend.array(batch.trans)
        state.origin, state.status = backend.array(batch.origin), backend.array(batch.status)
        backend.launch(
            k.frame_steps.evaluate_frames,
            groups,
            [
                backend.ints(where), backend.slots(groups), self.rules, state, batch.located, found.moments,
                found.levers, tables.variables, tables.body,
                backend.room(k.place.make_place, groups),
                backend.room(k.quadratic.make_room, groups, joints, pairs, tables.variables.num_cells),
                backend.room(k.betas.make_shaping, 0, joints),
                backend.room(k.objective.make_work, groups, self.n, tables.balls.index.shape[0]),
                backend.room(k.step.make_steps, groups, self.n),
                self.state.value[first:stop], self.state.gradient[first:stop], self.system.matrix[first:stop],
            ],
        )  # fmt: skip

    def _share(self, work: Any, frames: Indices) -> None:
        """Do some work for all frames, in groups of lanes."""
        size = self.backend.lanes * _GROUPS
        parts = range(0, len(frames), size)
        self.each(lambda first: work(whole_groups(frames[first : first + size], self.backend.lanes)), parts)

    def _deviate(self, frames: Indices) -> None:
        backend = self.backend
        inputs = [backend.ints(frames), backend.array(self.people.q), self.tied, self.state]
        backend.launch(backend.kernels.ties.deviate, len(frames), inputs)

    def _tie(self, frames: Indices) -> None:
        backend, chains = self.backend, self.chains
        lists = [backend.ints(x) for x in (frames, chains.before[frames], chains.after[frames])]
        backend.launch(backend.kernels.ties.tie, len(frames), [*lists, self.tied, self.state, self.system])

    def _solve(self, damping: Tensor) -> None:
        """Solve the system, damped."""
        _view(self.state.damping).copy_(damping)
        self._share(self._damp, self.everybody)

        def share(launch: Any, groups: int) -> None:
            parts = range(0, groups, _GROUPS)
            self.each(lambda first: launch(first, min(first + _GROUPS, groups)), parts)

        self.elimination.solve(self.system, self.factors, share)

    def _damp(self, frames: Indices) -> None:
        backend = self.backend
        inputs = [backend.ints(frames), self.state, self.system]
        backend.launch(backend.kernels.ties.damp, len(frames), inputs)

    def _move(self) -> None:
        self._share(self._move_few, self.everybody)

    def _move_few(self, frames: Indices) -> None:
        backend, tables, k = self.backend, self.tables, self.backend.kernels
        groups, balls = len(frames), tables.balls.index.shape[0]
        moving = backend.room(k.frame_steps.make_moving, groups, self.n, balls)
        backend.launch(
            k.frame_steps.move_frames,
            groups,
            [
                backend.ints(frames), backend.slots(groups), self.rules.max_angle_step, tables.variables, tables.balls,
                self.state, self.system, backend.array(self.people.q), moving,
            ],
        )  # fmt: skip


def _view(array: Any) -> Tensor:
    """An array of the device as a tensor; not a copy."""
    return wp.to_torch(array)
