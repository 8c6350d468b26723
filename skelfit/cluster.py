"""Shard tasks on many processes or machines: the only module that knows Dask.

Nothing that matters is kept in the scheduler: a shard is finished when its marker is on disk, so a run that
dies in any way is continued by starting it again. Tasks may run twice; they write the same bytes.
"""

from __future__ import annotations

import hashlib
import logging
import os
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import dask
import torch
from distributed import Client, LocalCluster, as_completed

from skelfit.errors import OutputError, SkelfitError
from skelfit.job import ShardResult, run_shard
from skelfit.plan import ShardTask

Work = Callable[[ShardTask], ShardResult]
Results = Generator["ShardResult | ShardFailure", None, None]
# An exception is tried again: file systems of clusters fail now and then. A wrong label file is not such a case,
# but fails within moments.
RETRIES = 2
CONNECT_SECONDS = 30
# Dask has its workers give memory back at once, which a fit would only ask for again: a third of its time was page
# faults. Blocks up to 32 MiB (the most that glibc takes) come from the heap, and the heap keeps up to 1 GiB.
_MALLOC = {
    "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": 1 << 30,
    "distributed.nanny.pre-spawn-environ.MALLOC_MMAP_THRESHOLD_": 32 << 20,
}


@dataclass(frozen=True)
class ShardFailure:
    """A shard that was not finished, and why. `trace` is empty for errors that a user can mend."""

    name: str
    error: str
    trace: str = ""


def run(
    tasks: Sequence[ShardTask], workers: int = 0, scheduler: str | None = None, work: Work = run_shard
) -> Results:
    """Run the tasks and yield their results as they come; a task that fails does not stop the others.

    workers: 0 runs them here, one after the other; N starts N local processes. scheduler: address or file of a
    Dask cluster that runs already. `work` must be importable on the workers. Raises OutputError when the
    scheduler cannot be reached.
    """
    if not tasks or (scheduler is None and workers == 0):
        return _run_here(tasks, work)
    return _run_on_dask(tasks, workers, scheduler, work)


def _run_here(tasks: Sequence[ShardTask], work: Work) -> Results:
    for task in tasks:
        try:
            yield work(task)
        except Exception as error:
            yield _failure(task.name, error)


def _run_on_dask(tasks: Sequence[ShardTask], workers: int, scheduler: str | None, work: Work) -> Results:
    # Tasks are handed to a worker when it is free, so that a lost worker takes no queue with it.
    with (
        dask.config.set({"distributed.scheduler.worker-saturation": 1.0, **_MALLOC}),
        _client(workers, scheduler) as client,
    ):
        threads = max(1, (os.cpu_count() or 1) // workers) if scheduler is None else None
        names = {_task_key(task): task.name for task in tasks}
        futures = client.map(
            partial(_with_threads, work, threads), tasks, key=list(names), retries=RETRIES, pure=True
        )
        completed = as_completed(futures)
        # The only reference to a future is now in `completed`: what is done leaves the scheduler's memory.
        del futures
        for future in completed:
            error = future.exception()
            yield future.result() if error is None else _failure(names[future.key], error)


def _with_threads(work: Work, threads: int | None, task: ShardTask) -> ShardResult:
    """Do the work with a share of the cores; Dask gives a worker process one thread otherwise."""
    if threads is not None:
        torch.set_num_threads(threads)
    return work(task)


def _task_key(task: ShardTask) -> str:
    """The same for the same task in every process; it tells apart what several runs ask of one scheduler."""
    return f"{task.name}-{hashlib.sha256(repr(task).encode()).hexdigest()[:16]}"


def _failure(name: str, error: BaseException) -> ShardFailure:
    if isinstance(error, SkelfitError):
        return ShardFailure(name, str(error))
    trace = "".join(traceback.format_exception(error))
    return ShardFailure(name, f"{type(error).__name__}: {error}", trace)


@contextmanager
def _client(workers: int, scheduler: str | None) -> Iterator[Client]:
    if scheduler is None:
        # Loopback and no dashboard: Dask's plain TCP lets whoever reaches it run code.
        with (
            LocalCluster(
                n_workers=workers,
                threads_per_worker=1,
                processes=True,
                host="127.0.0.1",
                dashboard_address=None,
                silence_logs=logging.ERROR,  # a worker that is slow to stop is no news
            ) as cluster,
            Client(cluster) as client,
        ):
            yield client
        return
    place = {"scheduler_file": scheduler} if Path(scheduler).is_file() else {"address": scheduler}
    try:
        client = Client(**place, timeout=CONNECT_SECONDS)
    except (OSError, ValueError) as error:
        raise OutputError(f"{scheduler}: expected a Dask scheduler, found none: {error}") from error
    with client:
        yield client
