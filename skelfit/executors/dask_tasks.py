"""Run tasks on an executor, and wait for their results."""

from __future__ import annotations

import hashlib
import time
import traceback
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

from distributed import Client, Future, KilledWorker, as_completed

from skelfit import __version__
from skelfit.conversion.shard_task import run_shard
from skelfit.errors import ClusterError, SkelfitError
from skelfit.executors.dask_connection import running_client
from skelfit.executors.dask_reports import watched
from skelfit.executors.dask_worker import Work, do
from skelfit.executors.executor import THIS_PROCESS, Executor, cores
from skelfit.executors.worker_processes import local_client

Results = Generator[Any, None, None]  # what the work gives of each task, or a ShardFailure
Say = Callable[[str], None]
# An exception is tried again: file systems of clusters fail now and then. A wrong label file is not such a case,
# but fails within moments.
RETRIES = 2
_POLL_SECONDS = 0.1
WATCH_SECONDS = 5.0  # between two counts of the workers
REMIND_SECONDS = 60.0  # between two messages that there is none


class Task(Protocol):
    """What is handed to a worker: a shard to make, or to verify."""

    @property
    def name(self) -> str:
        """Names it to the user."""


@dataclass(frozen=True)
class ShardFailure:
    """A shard that was not finished, and why. `trace` is empty for errors that a user can fix."""

    name: str
    error: str
    trace: str = ""


def run_tasks(
    tasks: Sequence[Task], executor: Executor = THIS_PROCESS, work: Work = run_shard, say: Say = print
) -> Results:
    """Run the tasks and yield their results as they come; a task that fails does not stop the others.

    `work` must be importable on the workers. `say` gets what a user should know while they wait. Raises
    ClusterError when the cluster cannot be reached or is lost; what is finished is on disk then.
    """
    if not tasks or (executor.scheduler is None and executor.workers == 0):
        return _run_here(tasks, work)
    return _run_on_dask(tasks, executor, work, say)


def _run_here(tasks: Sequence[Task], work: Work) -> Results:
    for task in tasks:
        try:
            yield work(task)
        except Exception as error:
            yield _failure(task.name, error)


def _run_on_dask(tasks: Sequence[Task], executor: Executor, work: Work, say: Say) -> Results:
    threads = max(1, cores() // executor.workers) if executor.scheduler is None else None
    names = {_task_key(task): task.name for task in tasks}
    with _client(executor) as client, watched(client, executor, say):
        watch = _Watch(client, executor, say)
        futures = client.map(
            partial(do, work, __version__, threads), tasks, key=list(names), retries=RETRIES, pure=True
        )
        # Results are fetched at once: one that is lost with its worker is asked for again.
        completed = as_completed(futures, with_results=True, raise_errors=False)
        # The only reference to a future is now in `completed`: what is done leaves the scheduler's memory.
        del futures
        for future, result in _as_completed(completed, watch):
            if future.cancelled():
                raise ClusterError(
                    f"{watch.where}: lost the scheduler; "
                    "the finished shards are kept, and the same command goes on when a scheduler is there"
                )
            yield _failure(names[str(future.key)], result[1]) if future.status == "error" else result


def _client(executor: Executor) -> AbstractContextManager[Client]:
    if executor.scheduler is None:
        return local_client(executor.workers, executor.gpus, executor.dashboard)
    return running_client(executor.scheduler, executor.tls)


def _as_completed(completed: as_completed, watch: _Watch) -> Iterator[tuple[Future[Any], Any]]:
    """The futures and their results as they complete; the workers are counted now and then in between."""
    while not completed.is_empty():
        if completed.has_ready():
            yield from completed.next_batch(block=False)
        else:
            time.sleep(_POLL_SECONDS)
            watch.look(completed.count())


class _Watch:
    """Says when no worker is left and when they are back; gives up when the patience of the executor ends."""

    def __init__(self, client: Client, executor: Executor, say: Say) -> None:
        self.client, self.executor, self.say = client, executor, say
        self.where = client.scheduler_info()["address"]
        self.looked = time.monotonic()
        self.alone_since: float | None = None
        self.reminded = 0.0

    def look(self, left: int) -> None:
        """Count the workers, unless that was just now; `left` shards are to do. Raises ClusterError."""
        now = time.monotonic()
        if now - self.looked < WATCH_SECONDS:
            return
        self.looked = now
        try:
            workers = len(self.client.nthreads())
        except OSError:
            return  # the scheduler does not answer; when it is lost, so are the futures
        if workers:
            if self.alone_since is not None:
                self.say(f"{self.where}: {workers} workers are here again")
            self.alone_since = None
            return
        if self.alone_since is None:
            self.alone_since, self.reminded = now, now - REMIND_SECONDS
        alone = now - self.alone_since
        if self.executor.patience is not None and alone >= self.executor.patience:
            raise ClusterError(
                f"{self.where}: no worker for {alone:.0f} s, {left} shards left; "
                "the finished ones are kept, and the same command goes on when there are workers"
            )
        if now - self.reminded >= REMIND_SECONDS:
            self.reminded = now
            self.say(f"{self.where}: no worker is connected, {left} shards wait for one{self._how()}")

    def _how(self) -> str:
        if self.executor.scheduler is None:
            return ""
        return f"; start one with: dask worker --nthreads 1 {self.where}"


def _task_key(task: Task) -> str:
    """The same key for the same task in every process, and another for a task of another run."""
    return f"{task.name}-{hashlib.sha256(repr(task).encode()).hexdigest()[:16]}"


def _failure(name: str, error: BaseException) -> ShardFailure:
    if isinstance(error, SkelfitError):
        return ShardFailure(name, str(error))
    if isinstance(error, KilledWorker):
        return ShardFailure(
            name,
            f"{error.allowed_failures + 1} workers died while they had it, the last at "
            f"{error.last_worker.address}: out of memory, or stopped from outside",
        )
    trace = "".join(traceback.format_exception(error))
    return ShardFailure(name, f"{type(error).__name__}: {error}", trace)
