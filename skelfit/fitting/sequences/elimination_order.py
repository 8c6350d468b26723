"""Chains of frames as block tridiagonal systems, solved by cyclic reduction: when each frame is eliminated.

The index of a frame in its chain alone decides that, so its numbers depend neither on other chains nor on the number of
threads. Chains of any lengths are solved in parallel.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.passes import whole_groups

Indices = NDArray[np.int64]
# Calls a function (first, stop) for parts of so many groups, in threads.
Share = Callable[[Callable[[int, int], None], int], None]


@dataclass(frozen=True)
class EliminationLevel:
    """Frames that are eliminated together, and their neighbours at that time; -1: none."""

    frames: Indices
    before: Indices
    after: Indices


def levels_of(chains: Sequence[Indices]) -> list[EliminationLevel]:
    """The levels of some chains; a chain is its frames in order, and not empty."""
    levels: list[list[Indices]] = []
    for chain in chains:
        remaining, level = chain, 0
        while len(remaining):
            if level == len(levels):
                levels.append([])
            eliminated, kept = remaining[1::2], remaining[::2]
            if len(remaining) == 1:
                eliminated, kept = remaining, remaining[:0]
            after = np.full(len(eliminated), -1)
            before = np.concatenate((kept, after))[: len(eliminated)]
            after[: max(len(kept) - 1, 0)] = kept[1:]
            levels[level].append(np.stack((eliminated, before, after)))
            remaining, level = kept, level + 1
    return [EliminationLevel(*np.concatenate(parts, 1)) for parts in levels]


@dataclass(frozen=True)
class Elimination:
    """The elimination of some chains, as input of the kernels."""

    backend: Backend
    levels: tuple[tuple[int, Any, Any, Any], ...]  # index of the first group; frames, before and after (G, L)
    groups: int

    def solve(self, system: Any, factors: Any, share: Share) -> None:
        """Write `system.x`; overwrites the rest of the system. factors: scratch memory for as many groups."""
        k = self.backend.kernels.cyclic_reduction
        for level in self.levels:
            self._launch(k.eliminate, level, level[1:], system, factors, share)
            self._launch(k.update_after, level, level[3:], system, factors, share)
        for level in reversed(self.levels):
            self._launch(k.substitute, level, level[1:], system, factors, share)

    def _launch(
        self, kernel: Any, level: Any, lists: Sequence[Any], system: Any, factors: Any, share: Share
    ) -> None:
        def launch(start: int, stop: int) -> None:
            parts = [x[start:stop] for x in lists]
            self.backend.launch(kernel, stop - start, [level[0] + start, *parts, system, factors])

        share(launch, level[1].shape[0])


def make_elimination(backend: Backend, chains: Sequence[Indices]) -> Elimination:
    """The elimination of some chains."""
    levels, first = [], 0
    for level in levels_of(chains):
        lists = [
            backend.ints(whole_groups(x, backend.lanes)) for x in (level.frames, level.before, level.after)
        ]
        levels.append((first, *lists))
        first += lists[0].shape[0]
    return Elimination(backend, tuple(levels), first)
