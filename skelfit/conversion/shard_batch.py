"""Batches of shards that are fitted together: what an executor hands out. A shard stays the unit that is written.

A device fits tens of thousands of rows at its full speed, and a shard has a thousand. No result depends on the batch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from skelfit.conversion.planned_shard import PlannedShard, rows_of

GPU_ROWS = 32768
MESH_ROWS = 4096  # of bare meshes, which take 83 KB each
# At least as many batches for each worker: then the last ones end at about the same time.
_BATCHES_PER_WORKER = 4


@dataclass(frozen=True, repr=False)
class ShardBatch:
    """Unfinished shards of one run, one after another. Their rows may be those of several label files."""

    tasks: tuple[Any, ...]  # of type PlannedShard; which one is a matter of the work

    @property
    def run(self) -> Any:
        """The run of all its shards, a ShardRun."""
        return self.tasks[0].run

    @property
    def rows(self) -> int:
        """How many label rows it has."""
        return rows_of(self.tasks)

    @property
    def name(self) -> str:
        """Names it to the user: its first shard, and its last."""
        first, last = self.tasks[0].name, self.tasks[-1].name
        return first if len(self.tasks) == 1 else f"{first}..{last.rpartition('-')[2]}"

    def single_shards(self) -> list[ShardBatch]:
        """A batch for each of its shards."""
        return [ShardBatch((task,)) for task in self.tasks]

    def __repr__(self) -> str:
        # The run once: a key of the batch is made of this.
        spans = [(task.name, task.start, task.stop) for task in self.tasks]
        return f"ShardBatch({spans}, {self.run!r})"


def default_rows(device: str, rows: int, workers: int, meshes: bool = False) -> int | None:
    """About how many rows a batch has where no option says so; None: one shard.

    device: cpu, cuda or auto, which is a matter of each worker. rows: of all batches. workers: 0 where their number is
    not known. meshes: whether some of the labels are bare meshes.
    """
    if device != "cuda":
        return None
    return min(MESH_ROWS if meshes else GPU_ROWS, math.ceil(rows / (_BATCHES_PER_WORKER * max(1, workers))))


def cut_batches(tasks: Sequence[PlannedShard], rows: int | None) -> list[ShardBatch]:
    """The batches of some shards, in their order: whole shards, of at most so many rows where these are several.

    rows: None makes a batch of each shard.
    """
    batches: list[list[PlannedShard]] = []
    room = 0
    for task in tasks:
        count = task.stop - task.start
        # Shards from before an extension, and those after it, are of two runs.
        if batches and count <= room and task.run is batches[-1][0].run:
            batches[-1].append(task)
        else:
            batches.append([task])
            room = rows or 0
        room -= count
    return [ShardBatch(tuple(batch)) for batch in batches]
