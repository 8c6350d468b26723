"""A task on a worker: one batch is fitted while shards of the batch before it are written."""

from __future__ import annotations

import os
from functools import lru_cache
from queue import SimpleQueue
from threading import Lock
from typing import Any

import torch
from distributed import secede

from skelfit import __version__
from skelfit.conversion.batch_job import BatchJob
from skelfit.conversion.shard_outcome import ShardOutcome
from skelfit.errors import ClusterError
from skelfit.executors.allocator import keep_freed_memory
from skelfit.executors.executor import Work
from skelfit.executors.worker_line import LOST_TOO_OFTEN, BegunBatch, Outcomes, WorkerLine, writers_for

_SETUP = Lock()
# The batches of a process share one device: one is fitted at a time.
_DEVICE = Lock()


def do(work: Work, version: str, threads: int | None, writers: int | None, task: Any) -> Any:
    """Do a task; `version` is the client's. threads: None takes as many as OMP_NUM_THREADS says, or one.

    writers: processes that write shards; None for a number that suits the device. A worker of several threads fits one
    batch at a time all the same: a fit has the threads it needs, and the models are there once. Raises what the work
    raises, and ClusterError on a worker of another version.
    """
    if version != __version__:
        raise ClusterError(
            f"a worker runs skelfit {__version__}, expected {version}, which this run began with"
        )
    with _SETUP:
        _settle(threads)
    made = work(task)
    return _converted(made, writers) if isinstance(made, BatchJob) else made


def _converted(job: BatchJob, writers: int | None) -> list[ShardOutcome]:
    """The outcomes of a batch, when all of its shards have one."""
    with _SETUP:
        line = _line(writers_for(job, writers))
    outcomes: Outcomes = SimpleQueue()
    begun = line.begin(job, outcomes)
    begun.wait_for_labels()
    several = len(job.batch.tasks) > 1
    if several and begun.tries >= LOST_TOO_OFTEN:
        begun.give_back()
    else:
        with _DEVICE:
            if several:
                _step_aside(begun)
            begun.fit()
        # The labels of one shard are soon read. Until here another worker may take the next one.
        if not several:
            _step_aside(begun)
    return [outcomes.get() for _ in job.batch.tasks]


def _step_aside(begun: BegunBatch) -> None:
    """Let the worker begin its next batch, which waits for the device."""
    # But the fault of a batch that was lost may lie in its neighbour: now it has its worker to itself.
    if not begun.tries:
        secede()


@lru_cache(maxsize=1)
def _line(writers: int) -> WorkerLine:
    """The readers and writers of this process. They end with it."""
    return WorkerLine(writers)


@lru_cache(maxsize=1)
def _settle(threads: int | None) -> None:
    """Set up this process, once: it may have been started by hand."""
    # torch takes all cores unless it is told, and every worker would.
    torch.set_num_threads(threads or _environment_threads())
    keep_freed_memory()


def _environment_threads() -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(threads)) if threads.isdigit() else 1
