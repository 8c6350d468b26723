"""Run tasks on an executor, and wait for their results."""

from __future__ import annotations

import hashlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

from distributed import Client, Future, KilledWorker, as_completed

from skelfit import __version__
from skelfit.conversion.batch_fit import convert_batch
from skelfit.conversion.shard_batch import ShardBatch
from skelfit.conversion.shard_outcome import ShardFailure, failure_of
from skelfit.errors import ClusterError, SkelfitError
from skelfit.executors.dask_connection import running_client
from skelfit.executors.dask_logs import lost_results_counted
from skelfit.executors.dask_reports import watched
from skelfit.executors.dask_worker import do
from skelfit.executors.executor import THIS_PROCESS, Executor, Task, Work, cores
from skelfit.executors.this_process import Results, run_here, shard_names
from skelfit.executors.worker_processes import local_client

Say = Callable[[str], None]
# An exception is tried again, and so is a shard of a batch that failed: file systems of clusters fail now and then. A
# wrong label file is not such a case, but fails within moments.
RETRIES = 2
_POLL_SECONDS = 0.1
WATCH_SECONDS = 5.0  # between two counts of the workers
REMIND_SECONDS = 60.0  # between two messages that there is none


def run_tasks(
    tasks: Sequence[Task],
    executor: Executor = THIS_PROCESS,
    work: Work = convert_batch,
    say: Say = print,
) -> Results:
    """Run the tasks and yield their results as they come; a task that fails does not stop the others.

    Of a batch of shards, each shard has a result. `work` must be importable on the workers. `say` gets what a user
    should know while they wait. Raises ClusterError when the cluster cannot be reached or is lost; what is finished is
    on disk then.
    """
    if not tasks or executor.is_here:
        return run_here(tasks, executor, work)
    return _run_on_dask(tasks, executor, work, say)


def _run_on_dask(tasks: Sequence[Task], executor: Executor, work: Work, say: Say) -> Results:
    threads = max(1, cores() // executor.workers) if executor.scheduler is None else None
    call = partial(do, work, __version__, threads, executor.writers)
    given = {_task_key(task): task for task in tasks}
    tries: Counter[str] = Counter()
    with lost_results_counted(say), _client(executor) as client, watched(client, executor, say):
        watch = _Watch(client, executor, say)
        futures = client.map(call, tasks, key=list(given), retries=RETRIES, pure=True)
        # Results are fetched at once: one that is lost with its worker is asked for again.
        completed = as_completed(futures, with_results=True, raise_errors=False)
        # The only reference to a future is now in `completed`: what is done leaves the scheduler's memory.
        del futures
        for future, result in _as_completed(completed, watch, given):
            if future.cancelled():
                raise ClusterError(
                    f"{watch.where}: lost the scheduler; "
                    "the finished shards are kept, and the same command goes on when a scheduler is there"
                )
            task = given.pop(str(future.key))
            error = result[1] if future.status == "error" else None
            for again, outcome in _ends(task, result, error, tries):
                if again is None:
                    yield outcome
                    continue
                key = f"{_task_key(again)}-{tries[again.name]}"
                given[key] = again
                completed.add(client.submit(call, again, key=key, retries=RETRIES, pure=True))


def _ends(
    task: Task, result: Any, error: BaseException | None, tries: Counter[str]
) -> Iterator[tuple[Task | None, Any]]:
    """What is to be done again of a task, each with nothing; and, with None, the results of what is not.

    tries: how often each shard was tried again; counts those that are now.
    """
    if not isinstance(task, ShardBatch):
        yield None, result if error is None else _failure(task.name, error)
        return
    single = {batch.name: batch for batch in task.single_shards()}
    if error is not None and len(single) > 1 and not isinstance(error, SkelfitError):
        for batch in single.values():
            yield batch, None
    elif error is not None:
        for name in single:
            yield None, _failure(name, error)
    else:
        for outcome in result:
            if isinstance(outcome, ShardFailure) and tries[outcome.name] < RETRIES:
                tries[outcome.name] += 1
                yield single[outcome.name], None
            else:
                yield None, outcome


def _client(executor: Executor) -> AbstractContextManager[Client]:
    if executor.scheduler is None:
        return local_client(executor.workers, executor.gpus, executor.dashboard)
    return running_client(executor.scheduler, executor.tls)


def _as_completed(
    completed: as_completed, watch: _Watch, given: Mapping[str, Task]
) -> Iterator[tuple[Future[Any], Any]]:
    """The futures and their results as they complete; the workers are counted now and then in between."""
    while not completed.is_empty():
        if completed.has_ready():
            yield from completed.next_batch(block=False)
        else:
            time.sleep(_POLL_SECONDS)
            watch.look(lambda: sum(len(shard_names(task)) for task in given.values()))


class _Watch:
    """Says when no worker is left and when they are back; gives up when the patience of the executor ends."""

    def __init__(self, client: Client, executor: Executor, say: Say) -> None:
        self.client, self.executor, self.say = client, executor, say
        self.where = client.scheduler_info()["address"]
        self.looked = time.monotonic()
        self.alone_since: float | None = None
        self.reminded = 0.0

    def look(self, shards_left: Callable[[], int]) -> None:
        """Count the workers, unless that was just now. Raises ClusterError."""
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
                f"{self.where}: no worker for {alone:.0f} s, {shards_left()} shards left; "
                "the finished ones are kept, and the same command goes on when there are workers"
            )
        if now - self.reminded >= REMIND_SECONDS:
            self.reminded = now
            self.say(
                f"{self.where}: no worker is connected, {shards_left()} shards wait for one{self._how()}"
            )

    def _how(self) -> str:
        if self.executor.scheduler is None:
            return ""
        return f"; start one with: dask worker --nthreads 1 {self.where}"


def _task_key(task: Task) -> str:
    """The same key for the same task in every process, and another for a task of another run."""
    return f"{task.name}-{hashlib.sha256(repr(task).encode()).hexdigest()[:16]}"


def _failure(name: str, error: BaseException) -> ShardFailure:
    if isinstance(error, KilledWorker):
        return ShardFailure(
            name,
            f"{error.allowed_failures + 1} workers died while they had it, the last at "
            f"{error.last_worker.address}: out of memory, or stopped from outside",
        )
    return failure_of(name, error)
