"""The ground of many sequences: totals for the report, and a CSV file with a line for each sequence."""

from __future__ import annotations

import csv
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location
from skelfit.verification.measures.ground_rows import GroundRow
from skelfit.verification.measures.sequence_ground import SUMMARY

GROUND_COLUMNS = (
    "shard", "subset", "label_file", "sequence", "subject", "skel_gender", "coordinates", "frames", "frame_rate",
    "rate_assumed", "status", *SUMMARY,
)  # fmt: skip
SPREADS = ("slip_mm_s", "penetration_mm", "spread_mm", "contact_share_r", "contact_share_l", "flight_share")
WORST = 20  # sequences that are listed


def ground_to_json(rows: Sequence[GroundRow]) -> dict[str, Any]:
    """Counts, distributions over the sequences with a floor, and those whose feet slip most."""
    known = [row for row in rows if row.summary["floor_mm"] is not None]
    slipping = [row for row in known if row.summary["slip_mm_s"] is not None]
    slipping.sort(key=lambda row: (-row.summary["slip_mm_s"], row.shard, str(row.about["sequence"])))
    return {
        "sequences": len(rows),
        "frames": sum(row.frames for row in rows),
        "rates_assumed": sum(row.rate_assumed for row in rows),
        "statuses": dict(sorted(Counter(str(row.summary["status"]) for row in rows).items())),
        **{name: _spread([row.summary[name] for row in known]) for name in SPREADS},
        "worst": [row.to_json() for row in slipping[:WORST]],
    }


def _spread(values: Iterable[float | None]) -> dict[str, float | int | None]:
    """How values over sequences are spread."""
    numbers = np.array([value for value in values if value is not None], np.float64)
    if len(numbers) == 0:
        return {"count": 0, **dict.fromkeys(("mean", "p50", "p95", "max"))}
    p50, p95 = np.percentile(numbers, [50, 95])
    statistics = {"mean": numbers.mean(), "p50": p50, "p95": p95, "max": numbers.max()}
    return {"count": len(numbers), **{name: round(float(value), 4) for name, value in statistics.items()}}


def write_ground(path: Location, rows: Iterable[GroundRow]) -> None:
    """Write a line for each sequence, whole or not at all; cells are empty where not known. Raises OutputError."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        lines = csv.DictWriter(stream, GROUND_COLUMNS, lineterminator="\n")
        lines.writeheader()
        for row in rows:
            content = row.to_json()
            lines.writerow(content | {"rate_assumed": int(row.rate_assumed)})
