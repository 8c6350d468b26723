"""Tasks in this process: batches of shards go through the same stages as in a worker."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from contextlib import ExitStack
from queue import Empty, SimpleQueue
from typing import Any

from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_outcome import ShardOutcome, failure_of
from skelfit.executors.executor import Executor, Task, Work
from skelfit.executors.worker_line import BegunBatch, Outcomes, WorkerLine, writers_for

Results = Generator[Any, None, None]  # what the work gives of each task or shard, or a ShardFailure


def run_here(tasks: Sequence[Task], executor: Executor, work: Work) -> Results:
    """Do the tasks one after another and yield their results; the labels of a batch are read while one is fitted."""
    outcomes: Outcomes = SimpleQueue()
    line: WorkerLine | None = None
    ahead: BegunBatch | None = None
    left = 0  # shards that are to have an outcome
    with ExitStack() as stack:
        for task in tasks:
            try:
                made = work(task)
                if not isinstance(made, BatchJob):
                    yield made
                    continue
                if line is None:
                    line = stack.enter_context(WorkerLine(writers_for(made, executor.writers)))
                begun = line.begin(made, outcomes)
            except Exception as error:
                yield from (failure_of(name, error) for name in shard_names(task))
                continue
            left += len(made.batch.tasks)
            if ahead is not None:
                ahead.fit()
            ahead = begun
            for outcome in _ready(outcomes):
                left -= 1
                yield outcome
        if ahead is not None:
            ahead.fit()
        for _ in range(left):
            yield outcomes.get()


def shard_names(task: Task) -> list[str]:
    """The names of the shards of a task."""
    return [shard.name for shard in task.tasks] if isinstance(task, ShardBatch) else [task.name]


def _ready(outcomes: Outcomes) -> Iterator[ShardOutcome]:
    """The outcomes that are there."""
    while True:
        try:
            yield outcomes.get_nowait()
        except Empty:
            return
