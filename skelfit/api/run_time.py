"""Where the time of a run went, and what bound it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from skelfit.conversion.shard_outcome import ShardResult
from skelfit.conversion.stopwatch import PHASES
from skelfit.executors.worker_line import READERS

_MOMENT = 1e-9  # s; nothing is divided by zero


def this_time(results: Sequence[ShardResult], seconds: float) -> dict[str, Any]:
    """What the summary says of the shards done in this run, not of earlier ones: speed, and where the time went."""
    if not results:
        return {"people_per_second": None, "time": None}
    total = {phase: sum(result.seconds[phase] for result in results) for phase in PHASES}
    shares = {phase: round(value / max(sum(total.values()), _MOMENT), 4) for phase, value in total.items()}
    processes: dict[str, list[ShardResult]] = {}
    for result in results:
        processes.setdefault(result.process, []).append(result)
    at_work = writing = _MOMENT  # seconds of workers, and of their writers
    for done in processes.values():
        seconds_of_it = max(r.span[1] for r in done) - min(r.span[0] for r in done)
        at_work += seconds_of_it
        writing += seconds_of_it * done[0].writers
    busy = {
        "fit": (total["preparing"] + total["fit"]) / at_work,
        "reading": total["labels"] / (READERS * at_work),
        "images": total["images"] / writing,
        "writing": total["writing"] / writing,
    }
    return {
        "people_per_second": sum(result.rows_in for result in results) / seconds,
        "time": {
            "seconds": round(seconds, 1),
            "worker_seconds": round(at_work, 1),  # of each process from its first shard to its last
            "fitting": round(total["fit"] / at_work, 4),
            "shares": shares,
            "bound": _bound(busy),
            "busy": {name: round(share, 4) for name, share in busy.items()},
        },
    }


def _bound(busy: Mapping[str, float]) -> str:
    """What the others waited for: the busiest. A writer reads images and writes, and the longer of the two counts."""
    writer = max(("images", "writing"), key=lambda name: busy[name])
    shares = {"fit": busy["fit"], "reading": busy["reading"], writer: busy["images"] + busy["writing"]}
    return max(shares, key=lambda name: shares[name])
