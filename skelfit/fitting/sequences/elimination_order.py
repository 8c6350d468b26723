"""Chains of frames as block tridiagonal systems, solved by cyclic reduction: which frames are eliminated when.

The place of a frame in its chain alone says when it is eliminated, so that its numbers depend neither on other chains
nor on how many threads there are. Chains of any lengths are solved side by side.
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
# Calls a function with the first and the last but one of some groups, until all have been; in threads.
Share = Callable[[Callable[[int, int], None], int], None]


@dataclass(frozen=True)
class Level:
    """Frames that are eliminated at once, and those before and after them by then; -1: none."""

    frames: Indices
    before: Indices
    after: Indices


def levels_of(chains: Sequence[Indices]) -> list[Level]:
    """The levels of some chains; each is its frames in their order, and not empty."""
    levels: list[list[Indices]] = []
    for chain in chains:
        left, level = chain, 0
        while len(left):
            if level == len(levels):
                levels.append([])
            out, kept = left[1::2], left[::2]
            if len(left) == 1:
                out, kept = left, left[:0]
            after = np.full(len(out), -1)
            before = np.concatenate((kept, after))[: len(out)]
            after[: max(len(kept) - 1, 0)] = kept[1:]
            levels[level].append(np.stack((out, before, after)))
            left, level = kept, level + 1
    return [Level(*np.concatenate(parts, 1)) for parts in levels]


@dataclass(frozen=True)
class Elimination:
    """The order of some chains' elimination, as kernels take it."""

    backend: Backend
    levels: tuple[tuple[int, Any, Any, Any], ...]  # place of the first group; frames, before and after (G, L)
    groups: int

    def solve(self, system: Any, factors: Any, share: Share) -> None:
        """Write `system.x`; the rest of the system is used up. factors: room for as many groups."""
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
            few = [x[start:stop] for x in lists]
            self.backend.launch(kernel, stop - start, [level[0] + start, *few, system, factors])

        share(launch, level[1].shape[0])


def make_elimination(backend: Backend, chains: Sequence[Indices]) -> Elimination:
    """The order of some chains' elimination."""
    levels, first = [], 0
    for level in levels_of(chains):
        lists = [
            backend.ints(whole_groups(x, backend.lanes)) for x in (level.frames, level.before, level.after)
        ]
        levels.append((first, *lists))
        first += lists[0].shape[0]
    return Elimination(backend, tuple(levels), first)
