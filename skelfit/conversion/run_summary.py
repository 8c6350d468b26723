"""What a finished run says of itself: summary.json."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from itertools import chain
from typing import Any

from skelfit import __version__
from skelfit.conversion.planned_shard import PlannedShard, ShardRun
from skelfit.conversion.run_lock import read_records
from skelfit.conversion.shard_outcome import ShardResult
from skelfit.labels.filters import active_filters
from skelfit.shards.content_seal import sealed
from skelfit.shards.label_vector import schema
from skelfit.shards.row_statistics import Summary
from skelfit.shards.shard_files import (
    SCHEMA_NAME,
    SUMMARY_NAME,
)
from skelfit.shards.shard_reader import read_marker, read_rows
from skelfit.storage.hashed_write import write_json
from skelfit.storage.locations import Location, location_of, side_by_side


def write_summary(
    run: ShardRun, tasks: Sequence[PlannedShard], this_time: Mapping[str, Any]
) -> dict[str, Any]:
    """Write schema.json and, last, summary.json of a run with all shards finished; returns the summary.

    All but `this_time` (people_per_second and the time of each phase) comes from the sidecars, so a continued run
    says the same as one without a break. Raises ShardError, OutputError.
    """
    folder = location_of(run.out)
    sidecars = side_by_side(lambda task: list(read_rows(task.files.sidecar)), tasks, folder)
    summary = Summary.of_rows(chain.from_iterable(sidecars))
    content = {
        "subset": run.subset,
        "description": run.description,
        "origins": [asdict(origin) for origin in run.origins],
        **summary.to_json(),
        "rejected": dict(sorted(rejected_so_far(tasks).items())),
        "filters": _filter_counts(run, summary),
        **this_time,
        "shards": len(tasks),
        "skelfit": __version__,
        "identity_sha256": run.identity_sha256,
        "identity": run.identity(),
    }
    content = sealed(content)
    write_json(folder / SCHEMA_NAME, schema())
    write_json(folder / SUMMARY_NAME, content)
    return content


def results_of_ranks(folder: Location) -> tuple[list[ShardResult], float]:
    """What the ranks of a run did when they last made shards, and the seconds from the first to the last of it.

    The times are those of their machines' clocks.
    """
    results = []
    for record in read_records(folder):
        with suppress(TypeError):  # of another version of skelfit
            results += [ShardResult(**result) for result in record.results]
    spans = [tuple(result.span) for result in results]
    return results, max((stop for _, stop in spans), default=0.0) - min(
        (start for start, _ in spans), default=0.0
    )


def _filter_counts(run: ShardRun, summary: Summary) -> dict[str, dict[str, float]]:
    """For each active rule, the rows that it left out or changed."""
    counts = {
        rule: {"value": value, "rows": summary.filters[rule]}
        for rule, value in active_filters(run.filters).items()
    }
    if "low_confidence" in counts:
        counts["low_confidence"]["keypoints"] = summary.unseen_keypoints
    return counts


def rejected_so_far(finished: Iterable[PlannedShard]) -> Counter[str]:
    """How many rows of finished shards were kept out of the tars, by status and kind of reason. Raises ShardError."""
    rejected: Counter[str] = Counter()
    for task in finished:
        rejected.update(read_marker(task.files).rejected)
    return rejected
