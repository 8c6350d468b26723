"""The frames of sequences and the equations that ties make of them, on the device.

A part is some frames and the moments of a vertex pass of theirs. `Coupled` evaluates frames, solves for the steps of
chains of them, and moves them; work is shared by threads in groups of frames.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fit.backend import Backend
from skelfit.fit.batches import Each
from skelfit.fit.passes import Moments, Tables, make_rules, whole_groups
from skelfit.fit.tie_tables import make_tied
from skelfit.fit.tridiagonal import make_elimination

if TYPE_CHECKING:
    from skelfit.config import FitConfig
    from skelfit.fit.schedule import Stage

Indices = NDArray[np.int64]
_GROUPS = 32  # of frames, per call of a kernel on a CPU: enough work to hand it to a thread


@dataclass(frozen=True)
class People:
    """Where the N frames are, on the device."""

    q: Tensor  # (N, 46) rad
    betas: Tensor  # (N, K)
    trans: Tensor  # (N, 3) m
    status: Tensor  # (N, 6)
    start: Tensor  # (N, 46) rad, of the labels in closed form
    located: Tensor  # (N, R, 3) m


@dataclass(frozen=True)
class Part:
    """Some frames, and what a vertex pass found of them."""

    frames: Indices
    moments: Moments


@dataclass(frozen=True)
class Ties:
    """What ties each of N frames to those before and after it."""

    before: Indices  # (N,) -1: none
    after: Indices
    weight: Tensor  # (N, 2) m^2 / rad^2


def make_ties(sequences: Sequence[Indices], time: NDArray[np.float64], weight: float) -> Ties:
    """Ties along the frames of sequences; time (N,) s; weight m^2 s^2 / rad^2, over the square of the time between."""
    before, after = np.full(len(time), -1), np.full(len(time), -1)
    weights = np.zeros((len(time), 2))
    for frames in sequences:
        one, two = frames[:-1], frames[1:]
        before[two], after[one] = one, two
        weights[two, 0] = weights[one, 1] = weight / (time[two] - time[one]) ** 2
    return Ties(before, after, torch.tensor(weights, dtype=torch.float32))


class Coupled:
    """N frames with n variables each, those of a fit's stage."""

    def __init__(
        self, backend: Backend, config: FitConfig, stage: Stage, people: People, ties: Ties, each: Each
    ) -> None:
        k, count = backend.kernels, len(people.q)
        self.backend, self.people, self.ties, self.each = backend, people, ties, each
        self.tables: Tables = stage.fine
        self.n = len(self.tables.tree.dofs)
        self.rules = make_rules(backend, config, 0, 0.0, stage.config.joint_weight)
        self.rules.limit_weight = stage.limit_weight
        self.tied = make_tied(self.tables.tree, backend.device)
        self.system = k.tridiagonal.make_system(count, self.n, backend.device)
        joints = self.tied.first.shape[0] - 1
        self.sequences = k.ties.make_sequences(count, self.n, joints, backend.device)
        self.sequences.start = backend.array(people.start)
        wp.to_torch(self.sequences.weight).copy_(ties.weight)
        state = k.solve.State()
        state.q, state.betas, state.trans = (backend.array(x) for x in (people.q, people.betas, people.trans))
        state.origin, state.status = state.q, backend.array(people.status)
        self.factors: Any = None
        self.state, self.located = state, backend.array(people.located)

    def evaluate(self, parts: Sequence[Part], frames: Indices) -> Tensor:
        """Make the equations of some frames, those of the parts; the values (N, 3) m^2 of all, on the host.

        The columns: of the frame alone, of its ties to the frames before and after it.
        """
        calls = [(part, a) for part in parts for a in range(0, len(part.frames), self._size)]
        self.each(lambda i: self._evaluate(calls[i][0], calls[i][1]), range(len(calls)))
        ties = self.backend.kernels.ties
        self._share(frames, lambda x: self._launch(ties.deviate, x, self.state.q, self.tied, self.sequences))
        self._share(frames, self._tie)
        return self.backend.read(self.sequences.value)

    def step(self, chains: Sequence[Indices], damping: Tensor) -> None:
        """Move chains of frames by a damped step, damping (N,); the equations are used up."""
        backend, k, frames = self.backend, self.backend.kernels, np.concatenate(chains)
        wp.to_torch(self.sequences.damping).copy_(damping)
        self._share(frames, lambda x: self._launch(k.ties.damp, x, self.sequences, self.system))
        elimination = make_elimination(backend, chains)
        if self.factors is None or self.factors.y.shape[0] < elimination.groups:
            self.factors = k.tridiagonal.make_factors(elimination.groups, self.n, backend.device)
        elimination.solve(self.system, self.factors, self._share_groups)
        self._share(frames, self._move)

    @property
    def promise(self) -> Tensor:
        """What the last step promised of each frame, (N,) m^2, on the host."""
        return self.backend.read(self.sequences.promise).abs()

    @property
    def _size(self) -> int:
        """Frames per call of a kernel."""
        return self.backend.lanes * _GROUPS if self.backend.workers is None else self.backend.people

    def _share(self, frames: Indices, work: Callable[[Indices], None]) -> None:
        """Some work for groups (G, L) of frames, until it is done for all."""
        parts = range(0, len(frames), self._size)
        self.each(lambda a: work(whole_groups(frames[a : a + self._size], self.backend.lanes)), parts)

    def _share_groups(self, work: Callable[[int, int], None], groups: int) -> None:
        size = self._size // self.backend.lanes
        self.each(lambda a: work(a, min(a + size, groups)), range(0, groups, size))

    def _launch(self, kernel: Any, frames: Indices, *inputs: Any) -> None:
        self.backend.launch(kernel, len(frames), [self.backend.ints(frames), *inputs])

    def _evaluate(self, part: Part, first: int) -> None:
        backend, k, tables = self.backend, self.backend.kernels, self.tables
        places = np.arange(first, min(first + self._size, len(part.frames)))
        where = whole_groups(places, backend.lanes)
        groups = len(where)
        joints, pairs = len(tables.tree.joints), len(tables.tree.pairs)
        self._launch(
            k.frame_steps.evaluate_frames,
            part.frames[where],
            backend.ints(where), backend.slots(groups), self.rules, self.state, self.located, part.moments.moments,
            part.moments.levers, tables.variables, tables.body, backend.room(k.place.make_place, groups),
            backend.room(k.quadratic.make_room, groups, joints, pairs, tables.variables.num_cells),
            backend.room(k.betas.make_shaping, 0, joints),
            backend.room(k.objective.make_work, groups, self.n, tables.balls.index.shape[0]),
            backend.room(k.step.make_steps, groups, self.n),
            self.sequences, self.system,
        )  # fmt: skip

    def _tie(self, frames: Indices) -> None:
        lists = [self.backend.ints(x[frames]) for x in (self.ties.before, self.ties.after)]
        self._launch(self.backend.kernels.ties.tie, frames, *lists, self.tied, self.sequences, self.system)

    def _move(self, frames: Indices) -> None:
        backend, tables, k = self.backend, self.tables, self.backend.kernels
        moving = backend.room(k.frame_steps.make_moving, len(frames), self.n, tables.balls.index.shape[0])
        self._launch(
            k.frame_steps.move_frames, frames, backend.slots(len(frames)), self.rules.max_angle_step, tables.variables,
            tables.balls, self.sequences, self.system, self.state.q, moving,
        )  # fmt: skip
