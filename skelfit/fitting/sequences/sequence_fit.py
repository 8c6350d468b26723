"""Sequences: the frames of one person as one problem.

1. The frames share their betas: the mean of the labels', or, where SKEL's gender is not the label's, the best ones for
   some frames (`shared_betas`). With these, each frame is fitted by itself.
2. Levenberg-Marquardt steps over whole sequences, from the moments of each frame's last vertex pass.
   `terms/temporal_smoothness.py` says what the objective adds between frames. `kernels/cyclic_reduction.py` solves for
   the steps, at a cost that is linear in the frames.
3. Frames that moved far, or that one more step would help, get another vertex pass and more steps, with the frames
   around them.

`chain_steps` says which steps are accepted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.fit_errors import PendingErrors
from skelfit.fitting.fit_result import FitResult, map_results
from skelfit.fitting.parallel_batches import Each, side_by_side
from skelfit.fitting.passes import DECREASE, MOVED, VALUE, FitBatch, PassMoments, vertex_pass
from skelfit.fitting.sequences.chain_steps import shares, step_chains
from skelfit.fitting.sequences.coupled_frames import CoupledFrames, FrameMoments, FrameStates
from skelfit.fitting.sequences.frame_index import ShapeLabels, evenly
from skelfit.fitting.sequences.shared_betas import BetasSystems, betas_systems, concatenate, equal_systems
from skelfit.fitting.sequences.tied_frames import Indices
from skelfit.fitting.terms.label_jumps import label_jumps
from skelfit.fitting.terms.temporal_smoothness import make_frame_ties

if TYPE_CHECKING:
    from skelfit.config.fit_settings import TemporalConfig
    from skelfit.fitting.fitter import PairFitter


def fit_sequences(
    pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], sequences: Sequence[Indices],
    time: NDArray[np.float64], shapes: Sequence[ShapeLabels | None] = (),
) -> FitResult:  # fmt: skip
    """Fit N frames: labels as `PairFitter.fit` takes them, the frames of each sequence, and their times (N,) s.

    shapes: for each sequence, the labels for its refined betas; None: its own frames.
    Frames that are not finite have no ties.
    """
    size = pair.config.batch or pair.backend.batch_size
    firsts = range(0, len(time), size)
    with side_by_side(pair.backend) as each:
        betas = shared_betas(pair, config, labels, sequences, shapes or [None] * len(sequences), each)
        fits = each(lambda a: _fit_independent(pair, labels, betas, slice(a, a + size)), firsts)
        people = _concatenate([fit.people for fit in fits])
        finite = (people.status[:, VALUE].isfinite() & people.q.isfinite().all(1)).cpu().numpy()
        chains = [kept for frames in sequences if len(kept := frames[finite[frames]])]
        if chains:
            moments_of = FrameMoments(len(time))
            for first, fit in zip(firsts, fits, strict=True):
                for moments in fit.moments:
                    moments_of.add(moments, first + moments.rows)
            _SequenceSteps(pair, config, labels, people, chains, time, moments_of, each).run()

        def result(k: int) -> FitResult:
            rows = slice(firsts[k], firsts[k] + size)
            batch_labels = [x[rows] for x in labels]
            batch = pair.start(*batch_labels[:2])
            _copy(people, rows, batch)
            status = pair.backend.read(batch.status)
            return pair.result(batch, status, fits[k].progress, *batch_labels)

        return map_results(lambda *x: torch.cat(x), *each(result, range(len(firsts))))


def shared_betas(
    pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], sequences: Sequence[Indices],
    shapes: Sequence[ShapeLabels | None], each: Each,
) -> Tensor:  # fmt: skip
    """SKEL's betas (N, K) of each frame, equal within a sequence.

    Refined betas are those of the person's labels (shapes), or of `beta_frames` frames of the sequence, evenly spread.
    Betas that are not refined are the mean of the sequence's.
    """
    size, refined = pair.config.batch or pair.backend.batch_size, pair.schedule.frees_betas
    # The source of each sequence's betas: labels of a person, each used once, or the sequence itself, by its number.
    keys = [shape if refined and shape is not None else k for k, shape in enumerate(shapes)]
    sources: dict[ShapeLabels | int, tuple[Tensor, Tensor]] = {}
    for frames, key in zip(sequences, keys, strict=True):
        if isinstance(key, ShapeLabels):
            sources[key] = torch.tensor(key.pose).float(), torch.tensor(key.betas).float()
        else:
            chosen = evenly(frames, config.beta_frames) if refined else frames
            sources[key] = labels[0][chosen], labels[1][chosen]
    pose, smpl_betas = (torch.cat(x) for x in zip(*sources.values(), strict=True))

    def systems_from(first: int) -> BetasSystems:
        rows = slice(first, first + size)
        if not refined:
            return equal_systems(pair.transferred(smpl_betas[rows]))
        batch = pair.start(pose[rows], smpl_betas[rows])
        pair.run(batch, lambda: None)
        return betas_systems(pair.backend, pair.schedule, batch)

    systems = concatenate(each(systems_from, range(0, len(pose), size)))
    ends = np.cumsum([0, *(len(x) for x, _ in sources.values())])
    common = {
        key: systems.take(slice(a, b)).common() for key, (a, b) in zip(sources, pairwise(ends), strict=True)
    }
    betas = torch.zeros(len(labels[0]), systems.right.shape[1], dtype=torch.float64)
    for frames, key in zip(sequences, keys, strict=True):
        betas[frames] = common[key]
    return betas.float()


@dataclass(frozen=True)
class _IndependentFit:
    """A batch of frames that were fitted independently."""

    people: FrameStates
    moments: list[PassMoments]  # of all frames, then of some
    progress: list[PendingErrors]


def _fit_independent(
    pair: PairFitter, labels: Sequence[Tensor], betas: Tensor, rows: slice
) -> _IndependentFit:
    """Fit some frames independently, with betas (N, K)."""
    batch = pair.start(*(x[rows] for x in labels[:2]))
    batch.betas.copy_(betas[rows])
    start = batch.q.clone()
    moments: list[PassMoments] = []
    progress: list[PendingErrors] = []
    status = pair.schedule.with_betas_held().run(
        batch, lambda: progress.append(pair.progress_of(batch)), moments.append
    )
    people = FrameStates(
        q=batch.q,
        origin=batch.origin,
        betas=batch.betas,
        trans=batch.trans,
        status=status.to(start.device),
        start=start,
        located=wp.to_torch(batch.located),
    )
    return _IndependentFit(people, moments, progress)


def _concatenate(people: Sequence[FrameStates]) -> FrameStates:
    return FrameStates(*(torch.cat(x) for x in zip(*(vars(p).values() for p in people), strict=True)))


def _copy(people: FrameStates, rows: slice | Tensor, batch: FitBatch) -> None:
    """Copy the states of some frames into their batch."""
    for name in ("q", "origin", "betas", "trans", "status"):
        getattr(batch, name).copy_(getattr(people, name)[rows])


class _SequenceSteps:
    """The steps over whole sequences."""

    def __init__(
        self, pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], people: FrameStates,
        sequences: Sequence[Indices], time: NDArray[np.float64], moments_of: FrameMoments, each: Each,
    ) -> None:  # fmt: skip
        self.pair, self.config, self.labels, self.people = pair, config, labels, people
        self.sequences, self.moments_of, self.each = sequences, moments_of, each
        self.time = time
        stage = pair.schedule.stages[-1]
        rules = pair.schedule.rules(stage, 0, False, False)
        self.coupled = CoupledFrames(pair.backend, stage.fine, rules, people, each)
        jumps = label_jumps(self.coupled.label_rotations(), sequences, time)
        weight = config.weight / (1 + (jumps / config.jump) ** 2) ** 2
        self.coupled.set_ties(make_frame_ties(sequences, time, weight))
        self.damping = torch.full((len(time),), pair.config.solver.damping)

    def run(self) -> None:
        """All rounds of steps; all but the first follow vertex passes."""
        chains, steps = list(self.sequences), self.config.steps
        for rounds_left in reversed(range(self.config.passes)):
            self._steps(chains, steps)
            if not rounds_left:
                break
            status = self.pair.backend.read(self.people.status)
            moved = (status[:, MOVED] > self.config.moving).numpy()
            active = moved | (status[:, DECREASE] > self.config.gaining * status[:, VALUE]).numpy()
            chains, steps = self._windows(active), self.config.later_steps
            if not chains:
                break
            frames = np.concatenate(chains)
            self._vertex_pass(frames[moved[frames]])

    def _windows(self, active: NDArray[np.bool_]) -> list[Indices]:
        """Chains of the active frames (N,) and the frames around them."""
        chains = []
        for frames in self.sequences:
            time = self.time[frames]
            centres = time[active[frames]]
            depth = np.zeros(len(frames) + 1, dtype=np.int64)
            np.add.at(depth, np.searchsorted(time, centres - self.config.margin), 1)
            np.add.at(depth, np.searchsorted(time, centres + self.config.margin, "right"), -1)
            edges = np.flatnonzero(np.diff(np.cumsum(depth) > 0, prepend=False))
            chains += [frames[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        return chains

    def _vertex_pass(self, frames: Indices) -> None:
        """New moments of some frames where they are."""
        pair, size, people = self.pair, self.pair.config.batch or self.pair.backend.batch_size, self.people

        def pass_from(first: int) -> PassMoments:
            rows = torch.from_numpy(frames[first : first + size])
            batch = pair.start(*(x[rows] for x in self.labels[:2]))
            _copy(people, rows.to(people.q.device), batch)
            return vertex_pass(pair.backend, self.coupled.tables, batch, np.arange(batch.count), False)

        firsts = range(0, len(frames), size)
        for first, moments in zip(firsts, self.each(pass_from, firsts), strict=True):
            self.moments_of.add(moments, frames[first + moments.rows])
        index = torch.from_numpy(frames).to(people.q.device)
        people.origin[index] = people.q[index]

    def _steps(self, chains: Sequence[Indices], steps: int) -> None:
        """Take some steps of chains."""
        people, coupled = self.people, self.coupled
        active, value = step_chains(
            coupled, partial(coupled.evaluate, self.moments_of),
            (people.q, people.trans),  # an evaluation changes a free translation too
            self.damping, chains, steps, self.pair.config.solver, float(coupled.rules.noise),
        )  # fmt: skip
        index = torch.from_numpy(active.frames)
        status = torch.zeros(len(people.q), 3)
        status[:, MOVED] = coupled.moved(active)
        status[:, VALUE], status[:, DECREASE] = shares(value), coupled.promise
        people.status[index.to(people.q.device), :3] = status[index].to(people.q.device)
