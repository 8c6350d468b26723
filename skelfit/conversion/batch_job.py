"""A batch of shards on its way through a worker: what is done in each stage. `skelfit.executors` takes it through them.

Reading and writing have threads or processes of their own; fitting has the device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from typing import Any, Protocol

from skelfit.conversion.planned_shard import PlannedShard
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.stopwatch import Stopwatch


class InputOfShard(Protocol):
    """What a shard is made of, read."""

    @property
    def task(self) -> PlannedShard:
        """Which shard that is."""

    @property
    def rows(self) -> Sized:
        """Its rows."""

    @property
    def began(self) -> float:
        """When reading began, s since the epoch."""

    @property
    def seconds(self) -> float:
        """How long reading took."""


class ShardStages(Protocol):
    """The stages of a shard before it is written; what `fit` gives is a `ReadyShard` of `shard_output`."""

    def check(self, run: Any) -> None:
        """Raise ConfigError when this skelfit gives other results than the run."""

    def read(self, task: Any) -> InputOfShard:
        """Read what a shard is made of."""

    def calls(self, shards: Sequence[Any]) -> Iterator[Sequence[Any]]:
        """The shards that are fitted together, in order."""

    def fit(self, shards: Sequence[Any], stopwatch: Stopwatch) -> Sequence[Any]:
        """Fit shards that were read; each is ready to be written then."""


@dataclass(frozen=True)
class BatchJob:
    """Shards to make, and how."""

    batch: ShardBatch
    stages: ShardStages
