"""The frames of sequences that are fitted: equations from the moments that `FrameMoments` keeps, and moves."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.parallel_batches import Each
from skelfit.fitting.passes import PassMoments, StageTables, solver_scratch, whole_groups
from skelfit.fitting.sequences.tied_frames import FrameChains, Indices, TiedFrames


@dataclass(frozen=True)
class FrameStates:
    """The states of N frames, on the device."""

    q: Tensor  # (N, 46) rad
    origin: Tensor  # (N, 46) rad, q at the last vertex pass
    betas: Tensor  # (N, K)
    trans: Tensor  # (N, 3) m
    status: Tensor  # (N, 6)
    start: Tensor  # (N, 46) rad, the closed-form start from the labels
    located: Tensor  # (N, R, 3) m


class FrameMoments:
    """The moments of N frames, each from its last vertex pass."""

    def __init__(self, count: int) -> None:
        self._moments: dict[int, PassMoments] = {}
        self._passes = 0
        self._pass_of, self._position = (np.full(count, -1) for _ in range(2))

    def add(self, moments: PassMoments, frames: Indices) -> None:
        """Add the moments of a pass of these frames, group by group. Passes that no frame needs are dropped."""
        self._pass_of[frames], self._position[frames] = self._passes, np.arange(len(frames))
        self._moments[self._passes] = moments
        self._passes += 1
        used = np.unique(self._pass_of).tolist()
        self._moments = {k: kept for k, kept in self._moments.items() if k in used}

    def passes(self, frames: Indices) -> list[tuple[PassMoments, Indices, Indices]]:
        """Some frames by their last pass: its moments, the frames, and their positions in it."""
        parts = []
        for k in np.unique(self._pass_of[frames]):
            seen = frames[self._pass_of[frames] == k]
            parts.append((self._moments[k], seen, self._position[seen]))
        return parts


class CoupledFrames(TiedFrames):
    """N frames with n variables each: those of a stage of the fit."""

    def __init__(
        self, backend: Backend, tables: StageTables, rules: Any, people: FrameStates, each: Each
    ) -> None:
        """rules: of the stage of these tables; betas are fixed."""
        super().__init__(backend, tables.tree, len(tables.tree.dofs), people.q, people.start, each)
        self.people, self.tables, self.rules = people, tables, rules
        state = backend.kernels.levenberg_marquardt.FitState()
        state.q, state.betas, state.trans = (backend.array(x) for x in (people.q, people.betas, people.trans))
        state.origin, state.status = state.q, backend.array(people.status)
        self.state, self.located = state, backend.array(people.located)

    def evaluate(self, moments_of: FrameMoments, chains: FrameChains) -> Tensor:
        """Make the equations of chains from their frames' moments; returns values as `tie` does, in m^2."""
        size = self.size
        calls = [
            (moments, frames[a : a + size], positions[a : a + size])
            for moments, frames, positions in moments_of.passes(chains.frames)
            for a in range(0, len(frames), size)
        ]
        self.each(lambda i: self._evaluate(*calls[i]), range(len(calls)))
        return self.tie(chains)

    def moved(self, chains: FrameChains) -> Tensor:
        """The largest turn of a joint of each frame since its last vertex pass, (N,) rad, by the chord of the arc.

        Frames that are in no chain have arbitrary values.
        """
        before = self.deviations(chains.parts, self.people.origin)
        after = self.deviations(chains.parts, self.people.q)
        return (0.5 * (after - before).square().sum(2)).sqrt().amax(1)

    def _evaluate(self, moments: PassMoments, frames: Indices, positions: Indices) -> None:
        backend, tables = self.backend, self.tables
        indices = backend.ints(whole_groups(positions, backend.lanes))
        groups = indices.shape[0]
        self.launch(
            backend.kernels.frame_steps.evaluate_frames,
            backend.ints(whole_groups(frames, backend.lanes)),
            indices, backend.slots(groups), self.rules, self.state, self.located, moments.moments, moments.beta_moments,
            tables.variables, tables.body, *solver_scratch(backend, tables, groups, False),
            self.sequences, self.system,
        )  # fmt: skip

    def move(self, frames: Any) -> None:
        """Move groups of frames (G, L) along the solution, and write what it promises."""
        backend, tables, k, groups = self.backend, self.tables, self.backend.kernels, frames.shape[0]
        moving = backend.scratch(
            k.frame_steps.make_frame_scratch, groups, self.n, tables.balls.index.shape[0]
        )
        self.launch(
            k.frame_steps.move_frames, frames, backend.slots(groups), self.rules.max_angle_step, tables.variables,
            tables.balls, self.sequences, self.system, self.state.q, moving,
        )  # fmt: skip
