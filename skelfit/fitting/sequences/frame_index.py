"""Which rows of labels are frames of one person, and when: what the fit of a sequence is told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShapeLabels:
    """Labels of one person that tell their shape: K frames of any of their motions."""

    pose: NDArray[np.floating[Any]]  # (K,24,3) rad, axis-angle
    betas: NDArray[np.floating[Any]]  # (K,10)


@dataclass(frozen=True)
class FrameIndex:
    """Of N rows, the sequence that each is a frame of. The rows of one need not be next to each other.

    A sequence's rows are in the order of time. A frame that is missing leaves a gap: what ties its neighbours to each
    other weakens with the time between them.
    """

    sequence: NDArray[np.int64]  # (N,) number of a row's sequence; -1: a row by itself
    time: NDArray[np.float64]  # (N,) s, finite and rising within a sequence; unread where there is none
    # By number of a sequence: what its person's betas are refined from, where they are; its own frames where it is not
    # named. Sequences of one person share one object.
    shapes: Mapping[int, ShapeLabels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError where a time is not finite, or does not rise."""
        if self.sequence.ndim != 1 or self.sequence.shape != self.time.shape:
            raise ValueError(
                f"frames: expected sequence (N,) and time (N,), found {self.sequence.shape} and {self.time.shape}"
            )
        for rows in self.sequences():
            time = self.time[rows]
            wrong = np.flatnonzero(~np.isfinite(time) | (np.diff(time, prepend=-np.inf) <= 0))
            if len(wrong):
                raise ValueError(
                    f"frames: sequence {self.sequence[rows[0]]}: expected finite times that rise, "
                    f"found {time[wrong[0]]} s in row {rows[wrong[0]]}"
                )

    def take(self, rows: NDArray[np.int64]) -> FrameIndex:
        """The same of some rows (K,), in the order given."""
        return FrameIndex(self.sequence[rows], self.time[rows], self.shapes)

    def sequences(self) -> list[NDArray[np.int64]]:
        """The rows of each sequence, in their order; sequences in the order of their numbers."""
        order = np.argsort(self.sequence, kind="stable")
        framed = order[self.sequence[order] >= 0]
        if len(framed) == 0:
            return []
        return np.split(framed, np.flatnonzero(np.diff(self.sequence[framed])) + 1)


def evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most so many of some rows, evenly spread, the first and the last among them; of one, the first."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
