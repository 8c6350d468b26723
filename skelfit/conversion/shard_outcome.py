"""What became of a shard: a result, or a failure."""

from __future__ import annotations

import os
import platform
import traceback
from collections.abc import Mapping
from dataclasses import dataclass

from skelfit.errors import SkelfitError
from skelfit.shards.shard_schema import ShardMarker


@dataclass(frozen=True)
class ShardResult:
    """A shard that is finished."""

    name: str
    rows_in: int
    rows_out: int
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]  # as in the marker
    seconds: Mapping[str, float]  # of each phase of the stopwatch; of a fit with others, its share by rows
    process: str  # host and process id of the worker
    writers: int  # how many shards this worker writes at a time
    span: tuple[float, float]  # from when to when, in seconds by the clock of that host

    @classmethod
    def of(
        cls, marker: ShardMarker, seconds: Mapping[str, float], writers: int, span: tuple[float, float]
    ) -> ShardResult:
        """The result of this process that a marker tells of."""
        return cls(
            name=marker.name,
            rows_in=marker.rows_in,
            rows_out=marker.rows_out,
            statuses=marker.statuses,
            rejected=marker.rejected,
            seconds=seconds,
            process=f"{platform.node()} {os.getpid()}",
            writers=writers,
            span=span,
        )


@dataclass(frozen=True)
class ShardFailure:
    """A shard that was not finished, and why. `trace` is empty for errors that a user can fix."""

    name: str
    error: str
    trace: str = ""


ShardOutcome = ShardResult | ShardFailure


def failure_of(name: str, error: BaseException) -> ShardFailure:
    """The failure that an error means for a shard."""
    if isinstance(error, SkelfitError):
        return ShardFailure(name, str(error))
    trace = "".join(traceback.format_exception(error))
    return ShardFailure(name, f"{type(error).__name__}: {error}", trace)
