"""Which rows of labels are frames of one person, and at what times."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class ShapeLabels:
    """Labels of one person from which the shape is fitted: K frames of any motions."""

    pose: NDArray[np.floating[Any]]  # (K,24,3) rad, axis-angle
    betas: NDArray[np.floating[Any]]  # (K,10)


@dataclass(frozen=True)
class FrameIndex:
    """The sequence of each of N rows. The rows of a sequence need not be adjacent.

    They are in the order of time. A missing frame leaves a gap: the tie between its neighbours weakens with the time
    between them.
    """

    sequence: NDArray[np.int64]  # (N,) number of the row's sequence; -1: a single frame
    time: NDArray[np.float64]  # (N,) s, finite and rising within a sequence; not used for single frames
    # Number of a sequence -> the labels for its person's betas, if these are refined. Default: the sequence's frames.
    # Sequences of one person share one object.
    shapes: Mapping[int, ShapeLabels] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Raises ValueError for a time that is not finite or does not rise."""
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
        """The index of some rows (K,), in this order."""
        return FrameIndex(self.sequence[rows], self.time[rows], self.shapes)

    def sequences(self) -> list[NDArray[np.int64]]:
        """The rows of each sequence, in order; sequences in the order of their numbers."""
        order = np.argsort(self.sequence, kind="stable")
        framed = order[self.sequence[order] >= 0]
        if len(framed) == 0:
            return []
        return np.split(framed, np.flatnonzero(np.diff(self.sequence[framed])) + 1)


def evenly(rows: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """At most `count` of some rows, evenly spread from the first to the last; for a count of 1, the first."""
    return rows[np.unique(np.linspace(0, len(rows) - 1, count).round().astype(int))]
