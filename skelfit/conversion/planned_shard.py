"""What the making of shards needs to know of a run and of a shard, whatever they are made of.

Shards are made of label rows (`run_plan`), or of finished shards (`skelfit.refining`). All that hands them out, counts
them, writes them and continues them is the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from skelfit.config.manifest import Filters, Origin
from skelfit.shards.shard_files import ShardFiles


class ShardRun(Protocol):
    """What all shards of a run share."""

    @property
    def subset(self) -> str:
        """The name of the subset."""

    @property
    def out(self) -> str:
        """The folder of the shards."""

    @property
    def device(self) -> str:
        """Where to compute: cpu, cuda, or auto, which is a matter of each worker."""

    @property
    def made(self) -> str:
        """What is done with the rows, as a message says it: fitted, refined."""

    @property
    def description(self) -> str:
        """The subset in words."""

    @property
    def origins(self) -> tuple[Origin, ...]:
        """Where the labels come from."""

    @property
    def filters(self) -> Filters:
        """The rules that leave rows out."""

    def identity(self) -> Mapping[str, Any]:
        """What the results depend on, without places."""

    @property
    def identity_sha256(self) -> str:
        """One hash of the identity."""


class PlannedShard(Protocol):
    """Rows [start, stop) of a label file, which become one shard: names and numbers, no arrays."""

    @property
    def run(self) -> Any:
        """The run of the shard, a ShardRun."""

    @property
    def name(self) -> str:
        """The name of the shard."""

    @property
    def start(self) -> int:
        """Its first row."""

    @property
    def stop(self) -> int:
        """One past its last row."""

    @property
    def files(self) -> ShardFiles:
        """Where the shard goes."""


@dataclass(frozen=True)
class RunPlan:
    """A run as it goes on in its folder."""

    run: ShardRun
    tasks: Sequence[PlannedShard]  # all shards, finished or not
    identities: Mapping[str, Mapping[str, Any]]  # in the markers of its folder, by shard
    new_rows: int = 0  # how many rows the last extension added; 0 for a run that was never extended


def rows_of(tasks: Iterable[PlannedShard]) -> int:
    """How many rows some shards have."""
    return sum(task.stop - task.start for task in tasks)
