"""Sequences: the frames of one person as one problem.

The frames share their betas: the mean of the labels', or where SKEL's gender is not the label's what fits some frames
of a sequence best (`common_betas`). With these, each frame is first fitted by itself. Then come steps of Levenberg and
Marquardt over whole sequences, from the moments of the last vertex pass that saw each frame: `kernels/ties.py` says
what is added to the frames' own objectives, and `kernels/tridiagonal.py` how steps are found, at a cost that is linear
in the frames. Frames that have moved far, and those that a step would still help, get another vertex pass and further
steps, with the frames around them.

A step is accepted where it does not raise the sum of its chain of frames. Damping is each frame's own and rises where
the frame and its ties got worse, so that a bad frame does not hold up all others.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.fit_errors import Measured
from skelfit.fitting.fit_result import FitResult, map_results
from skelfit.fitting.parallel_batches import Each, side_by_side
from skelfit.fitting.passes import DECREASE, MOVED, VALUE, Batch, Moments, vertex_pass
from skelfit.fitting.sequences.coupled_frames import Coupled, Held, Indices, People, make_ties
from skelfit.fitting.sequences.frame_index import ShapeLabels, evenly
from skelfit.fitting.sequences.label_jumps import label_jumps
from skelfit.fitting.sequences.shared_betas import Known, alike, know_betas, together

if TYPE_CHECKING:
    from skelfit.config.fit_settings import TemporalConfig
    from skelfit.fitting.fitter import PairFitter


def fit_sequences(
    pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], sequences: Sequence[Indices],
    time: NDArray[np.float64], shapes: Sequence[ShapeLabels | None] = (),
) -> FitResult:  # fmt: skip
    """Fit N frames: labels as `PairFitter.fit` takes them, the frames of each sequence, and their times (N,) s.

    shapes: of each sequence, what its betas are refined from; None: its own frames.
    Frames that are not finite are left out of what ties the others.
    """
    size = pair.config.batch or pair.backend.people
    firsts = range(0, len(time), size)
    with side_by_side(pair.backend) as each:
        betas = shared_betas(pair, config, labels, sequences, shapes or [None] * len(sequences), each)
        alone = each(lambda a: _fit_alone(pair, labels, betas, slice(a, a + size)), firsts)
        people = _together([a.people for a in alone])
        known = people.status[:, VALUE].isfinite() & people.q.isfinite().all(1)
        finite = known.cpu().numpy()
        chains = [kept for frames in sequences if len(kept := frames[finite[frames]])]
        if chains:
            held = Held(len(time))
            for first, one in zip(firsts, alone, strict=True):
                for moments in one.moments:
                    held.hold(moments, first + moments.rows)
            _Steps(pair, config, labels, people, chains, time, held, each).run()

        def result(k: int) -> FitResult:
            rows = slice(firsts[k], firsts[k] + size)
            given = [x[rows] for x in labels]
            batch = pair.start(*given[:2])
            _put(people, rows, batch)
            status = pair.backend.read(batch.status)
            return pair.result(batch, status, alone[k].progress, *given)

        return map_results(lambda *x: torch.cat(x), *each(result, range(len(firsts))))


def shared_betas(
    pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], sequences: Sequence[Indices],
    shapes: Sequence[ShapeLabels | None], each: Each,
) -> Tensor:  # fmt: skip
    """SKEL's betas (N, K) of each frame, alike within a sequence: what its frames have in common.

    Where betas are refined: what its person's labels (shapes) have, else `beta_frames` frames of the sequence, evenly
    spread. Where not, it is the mean.
    """
    size, refined = pair.config.batch or pair.backend.people, pair.schedule.frees_betas
    # Whose labels betas are taken from: a person's, of whom each is asked once, or the sequence's by its number.
    of = [shape if refined and shape is not None else k for k, shape in enumerate(shapes)]
    sources: dict[ShapeLabels | int, tuple[Tensor, Tensor]] = {}
    for frames, whose in zip(sequences, of, strict=True):
        if isinstance(whose, ShapeLabels):
            sources[whose] = torch.tensor(whose.pose).float(), torch.tensor(whose.betas).float()
        else:
            few = evenly(frames, config.beta_frames) if refined else frames
            sources[whose] = labels[0][few], labels[1][few]
    pose, given = (torch.cat(x) for x in zip(*sources.values(), strict=True))

    def known(first: int) -> Known:
        if not refined:
            return alike(pair.transferred(given[first : first + size]))
        batch = pair.start(pose[first : first + size], given[first : first + size])
        pair.run(batch, lambda: None)
        return know_betas(pair.backend, pair.schedule, batch)

    found = together(each(known, range(0, len(pose), size)))
    ends = np.cumsum([0, *(len(x) for x, _ in sources.values())])
    common = {w: found.take(slice(a, b)).common() for w, (a, b) in zip(sources, pairwise(ends), strict=True)}
    betas = torch.zeros(len(labels[0]), found.right.shape[1], dtype=torch.float64)
    for frames, whose in zip(sequences, of, strict=True):
        betas[frames] = common[whose]
    return betas.float()


@dataclass(frozen=True)
class _Alone:
    """A batch of frames, each fitted by itself."""

    people: People
    moments: list[Moments]  # of all of them, then of some
    progress: list[Measured]


def _fit_alone(pair: PairFitter, labels: Sequence[Tensor], betas: Tensor, rows: slice) -> _Alone:
    """Some frames, with these betas (N, K)."""
    batch = pair.start(*(x[rows] for x in labels[:2]))
    batch.betas.copy_(betas[rows])
    start = batch.q.clone()
    moments: list[Moments] = []
    progress: list[Measured] = []
    status = pair.schedule.with_betas_held().run(
        batch, lambda: progress.append(pair.progress_of(batch)), moments.append
    )
    people = People(
        q=batch.q,
        origin=batch.origin,
        betas=batch.betas,
        trans=batch.trans,
        status=status.to(start.device),
        start=start,
        located=wp.to_torch(batch.located),
    )
    return _Alone(people, moments, progress)


def _together(people: Sequence[People]) -> People:
    return People(*(torch.cat(x) for x in zip(*(vars(p).values() for p in people), strict=True)))


def _put(people: People, rows: slice | Tensor, batch: Batch) -> None:
    """Where some frames are, into a batch of theirs."""
    for name in ("q", "origin", "betas", "trans", "status"):
        getattr(batch, name).copy_(getattr(people, name)[rows])


class _Steps:
    """All that is done to sequences together."""

    def __init__(
        self, pair: PairFitter, config: TemporalConfig, labels: Sequence[Tensor], people: People,
        sequences: Sequence[Indices], time: NDArray[np.float64], held: Held, each: Each,
    ) -> None:  # fmt: skip
        self.pair, self.config, self.labels, self.people = pair, config, labels, people
        self.sequences, self.held, self.each = sequences, held, each
        self.time = time
        stage = pair.schedule.stages[-1]
        rules = pair.schedule.rules(stage, 0, False, False)
        self.coupled = Coupled(pair.backend, stage.fine, rules, people, each)
        jumps = label_jumps(self.coupled.label_rotations(), sequences, time)
        weight = config.weight / (1 + (jumps / config.jump) ** 2) ** 2
        self.coupled.tie(make_ties(sequences, time, weight))
        self.damping = torch.full((len(time),), pair.config.solver.damping)

    def run(self) -> None:
        """All passes, the first from the moments that are held."""
        chains, steps = list(self.sequences), self.config.steps
        for left in reversed(range(self.config.passes)):
            self._steps(chains, steps)
            if not left:
                break
            status = self.pair.backend.read(self.people.status)
            moved = (status[:, MOVED] > self.config.moving).numpy()
            going = moved | (status[:, DECREASE] > self.config.gaining * status[:, VALUE]).numpy()
            chains, steps = self._windows(going), self.config.later_steps
            if not chains:
                break
            frames = np.concatenate(chains)
            self._vertex_pass(frames[moved[frames]])

    def _windows(self, going: NDArray[np.bool_]) -> list[Indices]:
        """The frames that go on (N,), with those around them."""
        chains = []
        for frames in self.sequences:
            time = self.time[frames]
            here = time[going[frames]]
            opened = np.searchsorted(time, here - self.config.margin)
            closed = np.searchsorted(time, here + self.config.margin, "right")
            depth = np.zeros(len(frames) + 1, dtype=np.int64)
            np.add.at(depth, opened, 1)
            np.add.at(depth, closed, -1)
            edges = np.flatnonzero(np.diff(np.cumsum(depth) > 0, prepend=False))
            chains += [frames[a:b] for a, b in zip(edges[::2], edges[1::2], strict=True)]
        return chains

    def _vertex_pass(self, frames: Indices) -> None:
        """New moments of some frames, where they are."""
        pair, size, people = self.pair, self.pair.config.batch or self.pair.backend.people, self.people

        def found(first: int) -> Moments:
            rows = torch.from_numpy(frames[first : first + size])
            batch = pair.start(*(x[rows] for x in self.labels[:2]))
            _put(people, rows.to(people.q.device), batch)
            return vertex_pass(pair.backend, self.coupled.tables, batch, np.arange(batch.count), False)

        firsts = range(0, len(frames), size)
        for first, moments in zip(firsts, self.each(found, firsts), strict=True):
            self.held.hold(moments, frames[first + moments.rows])
        index = torch.from_numpy(frames).to(people.q.device)
        people.origin[index] = people.q[index]

    def _steps(self, chains: Sequence[Indices], steps: int) -> None:
        """Some steps of chains."""
        solver, people, coupled = self.pair.config.solver, self.people, self.coupled
        places = people.q, people.trans  # an evaluation moves the translation too, where it is free
        together = coupled.chains(chains)
        index = torch.from_numpy(together.frames)
        value = coupled.evaluate(self.held, together)
        for _ in range(steps):
            before = [x.clone() for x in places]
            coupled.step(together, self.damping)
            tried = coupled.evaluate(self.held, together)
            rose = _shares(tried) > _shares(value)
            factor = torch.where(rose, solver.damping_up, solver.damping_down)
            self.damping[index] = (self.damping * factor).clamp(solver.damping_min, solver.damping_max)[index]
            refused = [c for c in chains if not self._no_worse(c, value, tried)]
            if refused:
                rows = torch.from_numpy(np.concatenate(refused)).to(people.q.device)
                for x, was in zip(places, before, strict=True):
                    x[rows] = was[rows]
                tried = coupled.evaluate(self.held, coupled.chains(refused))  # no other chain may notice
            value = tried
        found = torch.zeros(len(people.q), 3)
        found[:, MOVED] = coupled.moved(together)
        found[:, VALUE], found[:, DECREASE] = _shares(value), coupled.promise
        people.status[index.to(people.q.device), :3] = found[index].to(people.q.device)

    def _no_worse(self, chain: Indices, value: Tensor, tried: Tensor) -> bool:
        """Whether the sum of a chain, with the tie to a frame before it that is held, is no higher than before."""
        one, two = (float(v[chain][:, [0, 2]].double().sum()) + float(v[chain[0], 1]) for v in (value, tried))
        return two <= one + float(self.coupled.rules.noise) * one


def _shares(value: Tensor) -> Tensor:
    """Each frame with half of its ties, (N,) m^2."""
    return value[:, 0] + 0.5 * (value[:, 1] + value[:, 2])
