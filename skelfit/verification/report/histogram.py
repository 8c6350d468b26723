"""Histograms with bins so fine that quantiles need no raw values, and that can be merged.

Sums are kept in whole units, so that a report does not depend on the order of people or their division into shards.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

_UNITS = 10_000  # sums are in ten-thousandths: 0.1 micrometre of a millimetre
_DIGITS = 6  # to which values are rounded: differences of float64 rounding disappear
_LIMIT = 1e6  # larger values are clipped to this: a kilometre, in mm
_BARS = 60
_ROUND_WIDTHS = (1, 2, 2.5, 5)


@dataclass(frozen=True)
class Histogram:
    """Counts of values, in bins of width `step`."""

    step: float
    counts: Counter[int] = field(default_factory=Counter)  # by round(value / step)
    total: int = 0  # of the values, in _UNITS
    low: float = np.inf
    high: float = -np.inf
    unknown: int = 0  # values that are not numbers

    @classmethod
    def of(cls, values: NDArray[np.floating[Any]], step: float = 0.01) -> Histogram:
        """The histogram of an array of any shape; NaN counts as unknown."""
        flat = np.asarray(values, np.float64).ravel()
        known = np.round(np.clip(flat[~np.isnan(flat)], -_LIMIT, _LIMIT), _DIGITS)
        bins, counts = np.unique(np.round(known / step).astype(np.int64), return_counts=True)
        units = int(np.round(known * _UNITS).astype(np.int64).sum())
        ends = (float(known.min()), float(known.max())) if len(known) else (np.inf, -np.inf)
        counter = Counter(dict(zip(bins.tolist(), counts.tolist(), strict=True)))
        return cls(step, counter, units, *ends, len(flat) - len(known))

    @property
    def count(self) -> int:
        """How many numbers were counted."""
        return self.counts.total()

    def merge(self, other: Histogram) -> Histogram:
        """The histogram of both; associative and exact."""
        if self.step != other.step:
            raise ValueError(f"step: expected {self.step}, found {other.step}")
        return Histogram(
            self.step,
            self.counts + other.counts,
            self.total + other.total,
            min(self.low, other.low),
            max(self.high, other.high),
            self.unknown + other.unknown,
        )

    def mean(self) -> float | None:
        """The mean; None without values."""
        return self.total / _UNITS / self.count if self.count else None

    def quantiles(self, *shares: float) -> list[float | None]:
        """The values below which the given shares lie, to half a `step`."""
        if not self.count:
            return [None for _ in shares]
        values = np.array(sorted(self.counts))
        ends = np.cumsum([self.counts[int(v)] for v in values])
        positions = np.searchsorted(ends, np.asarray(shares) * (ends[-1] - 1), side="right")
        return [float(np.clip(v * self.step, self.low, self.high)) for v in values[positions]]

    def to_json(self) -> dict[str, Any]:
        """count, unknown, mean, min, p05, p50, p95, p99, max; `bars`: start, width and counts, the last one open."""
        p05, p50, p95, p99 = self.quantiles(0.05, 0.5, 0.95, 0.99)
        known = self.count > 0
        return {
            "count": self.count,
            "unknown": self.unknown,
            "mean": self.mean(),
            "min": self.low if known else None,
            "p05": p05,
            "p50": p50,
            "p95": p95,
            "p99": p99,
            "max": self.high if known else None,
            "bars": self._bars(),
        }

    def _bars(self) -> dict[str, Any]:
        """About _BARS bars of a round width up to the 99.9th percentile; the last one also counts what is above."""
        if not self.count:
            return {"start": 0.0, "width": 1.0, "counts": []}
        bottom, top = (x or 0.0 for x in self.quantiles(0.001, 0.999))
        least = max((top - bottom) / _BARS, self.step)
        power = 10.0 ** np.floor(np.log10(least))
        width = next(n * power for n in (*_ROUND_WIDTHS, 10) if n * power >= least * (1 - 1e-9))
        start = float(np.floor(bottom / width) * width)
        number = max(int(np.floor((top - start) / width + 1e-9)) + 1, 1)
        values = np.array(list(self.counts.keys())) * self.step
        bars = np.clip(np.floor((values - start) / width + 1e-9), 0, number - 1).astype(np.int64)
        counts = np.bincount(bars, np.array(list(self.counts.values())), number)
        return {"start": start, "width": float(width), "counts": [int(n) for n in counts]}
