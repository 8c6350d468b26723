"""The frames of sequences, and the equations that the temporal term makes of them, on the device.

`CoupledFrames` evaluates frames from the moments that `FrameMoments` keeps, solves for the steps of chains of frames,
and takes the steps. Threads share the work, in groups of frames.
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
from skelfit.fitting.passes import PassMoments, StageTables, solver_scratch, whole_groups
from skelfit.fitting.sequences.elimination_order import Elimination, make_elimination
from skelfit.fitting.terms.temporal_smoothness import FrameTies, make_tied

Indices = NDArray[np.int64]
FrameGroups = tuple[Any, Any, Any]  # (G, L) frames, and those before and after them
_GROUPS = 64  # of frames, per call of a kernel on a CPU: enough work for a thread


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


@dataclass(frozen=True)
class FrameChains:
    """Chains of frames that step together, as inputs of the kernels; made by `CoupledFrames.chains`."""

    frames: Indices
    parts: list[FrameGroups]  # each is the work of one thread at a time
    elimination: Elimination


class CoupledFrames:
    """N frames with n variables each: those of a stage of the fit."""

    def __init__(
        self, backend: Backend, tables: StageTables, rules: Any, people: FrameStates, each: Each
    ) -> None:
        """rules: of the stage of these tables; betas are fixed."""
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
        self.ties = FrameTies(none, none, torch.zeros(count, 2))
        self.factors: Any = None
        self.state, self.located = state, backend.array(people.located)

    def label_rotations(self) -> NDArray[np.float32]:
        """The labels' rotations (N, K, 9) of the joints, row by row.

        Without the root: it never turns in the canonical frame, and would only dilute a mean.
        """
        all_parts = self._parts(np.arange(len(self.people.start)))
        # The deviations from angles of zero are the rotations themselves.
        self.sequences.start = self.backend.array(torch.zeros_like(self.people.start))
        rotations = np.asarray(self._deviations(all_parts, self.people.start).numpy())
        return rotations[:, int(0 in self.tables.tree.joints) :]

    def set_ties(self, ties: FrameTies) -> None:
        """Use these ties between frames."""
        self.ties = ties
        self.sequences.start = self.backend.array(self.people.start)
        wp.to_torch(self.sequences.weight).copy_(ties.weight)

    def chains(self, chains: Sequence[Indices]) -> FrameChains:
        """Chains of frames that step together. Neighbours that are in no chain stay where they are."""
        frames = np.concatenate(chains)
        elimination = make_elimination(self.backend, chains)
        if self.factors is None or self.factors.y.shape[0] < elimination.groups:
            self.factors = self.backend.kernels.cyclic_reduction.make_chain_factors(
                elimination.groups, self.n, self.backend.device
            )
        return FrameChains(frames, self._parts(frames), elimination)

    def evaluate(self, moments_of: FrameMoments, chains: FrameChains) -> Tensor:
        """Make the equations of chains from their frames' moments; returns all values (N, 3) m^2, on the host.

        Columns: the frame's own objective, its tie to the frame before, its tie to the frame after.
        """
        size = self._size
        calls = [
            (moments, frames[a : a + size], positions[a : a + size])
            for moments, frames, positions in moments_of.passes(chains.frames)
            for a in range(0, len(frames), size)
        ]
        self.each(lambda i: self._evaluate(*calls[i]), range(len(calls)))
        self._deviate(chains.parts, self.people.q)
        kernel, inputs = self.backend.kernels.temporal_terms.tie, [self.tied, self.sequences, self.system]
        self._share(chains.parts, lambda part: self._launch(kernel, *part, *inputs))
        return self.backend.read(self.sequences.value)

    def step(self, chains: FrameChains, damping: Tensor) -> None:
        """Move chains by a damped step, damping (N,); overwrites the equations."""
        kernel = self.backend.kernels.temporal_terms.damp
        wp.to_torch(self.sequences.damping).copy_(damping)
        self._share(chains.parts, lambda part: self._launch(kernel, part[0], self.sequences, self.system))
        chains.elimination.solve(self.system, self.factors, self._share_groups)
        self._share(chains.parts, lambda part: self._move(part[0]))

    def moved(self, chains: FrameChains) -> Tensor:
        """The largest turn of a joint of each frame since its last vertex pass, (N,) rad, by the chord of the arc.

        Frames that are in no chain have arbitrary values.
        """
        before = self._deviations(chains.parts, self.people.origin)
        after = self._deviations(chains.parts, self.people.q)
        return (0.5 * (after - before).square().sum(2)).sqrt().amax(1)

    @property
    def promise(self) -> Tensor:
        """The decrease that the last step promised of each frame, (N,) m^2, on the host."""
        return self.backend.read(self.sequences.predicted).abs()

    @property
    def _size(self) -> int:
        """Frames per call of a kernel."""
        return self.backend.lanes * _GROUPS if self.backend.workers is None else self.backend.batch_size

    def _parts(self, frames: Indices) -> list[FrameGroups]:
        groups = whole_groups(frames, self.backend.lanes)
        around = [groups, *(x[groups] for x in (self.ties.before, self.ties.after))]
        lists, count = [self.backend.ints(x) for x in around], len(groups)
        size = max(self._size // self.backend.lanes, 1)
        parts = [slice(a, min(a + size, count)) for a in range(0, count, size)]
        return [(lists[0][part], lists[1][part], lists[2][part]) for part in parts]

    def _share(self, parts: list[FrameGroups], work: Callable[[FrameGroups], None]) -> None:
        """Do the work of all parts, in threads."""
        self.each(lambda k: work(parts[k]), range(len(parts)))

    def _share_groups(self, work: Callable[[int, int], None], groups: int) -> None:
        size = max(self._size // self.backend.lanes, 1)
        self.each(lambda a: work(a, min(a + size, groups)), range(0, groups, size))

    def _launch(self, kernel: Any, frames: Any, *inputs: Any) -> None:
        self.backend.launch(kernel, frames.shape[0], [frames, *inputs])

    def _deviate(self, parts: list[FrameGroups], q: Tensor) -> None:
        """Write the deviations of joints at q (N, 46) from the labels'."""
        kernel = self.backend.kernels.temporal_terms.compute_deviations
        inputs = [self.backend.array(q), self.tied, self.sequences]
        self._share(parts, lambda part: self._launch(kernel, part[0], *inputs))

    def _deviations(self, parts: list[FrameGroups], q: Tensor) -> Tensor:
        """The same, (N, K, 9) on the host."""
        self._deviate(parts, q)
        return self.backend.read(self.sequences.deviation)

    def _evaluate(self, moments: PassMoments, frames: Indices, positions: Indices) -> None:
        backend, tables = self.backend, self.tables
        indices = backend.ints(whole_groups(positions, backend.lanes))
        groups = indices.shape[0]
        self._launch(
            backend.kernels.frame_steps.evaluate_frames,
            backend.ints(whole_groups(frames, backend.lanes)),
            indices, backend.slots(groups), self.rules, self.state, self.located, moments.moments, moments.beta_moments,
            tables.variables, tables.body, *solver_scratch(backend, tables, groups, False),
            self.sequences, self.system,
        )  # fmt: skip

    def _move(self, frames: Any) -> None:
        backend, tables, k, groups = self.backend, self.tables, self.backend.kernels, frames.shape[0]
        moving = backend.scratch(
            k.frame_steps.make_frame_scratch, groups, self.n, tables.balls.index.shape[0]
        )
        self._launch(
            k.frame_steps.move_frames, frames, backend.slots(groups), self.rules.max_angle_step, tables.variables,
            tables.balls, self.sequences, self.system, self.state.q, moving,
        )  # fmt: skip
