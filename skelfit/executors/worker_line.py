"""How batches of shards go through a worker: labels are read ahead, rows are fitted, shards are written behind.

Reading and writing have threads or processes of their own, and bounded queues between. So the device works all the
time, as long as they keep up.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from queue import SimpleQueue

import torch

from skelfit.conversion.batch_job import BatchJob, InputOfShard
from skelfit.conversion.planned_shard import PlannedShard
from skelfit.conversion.shard_outcome import ShardFailure, ShardOutcome, ShardResult, failure_of
from skelfit.conversion.shard_output import WrittenShard
from skelfit.conversion.shard_task import announce, finished_marker, withdraw
from skelfit.conversion.stopwatch import PHASES, Stopwatch
from skelfit.executors.shard_writers import ShardWriters, default_writers
from skelfit.fitting.backends.compute_device import find_device

READERS = 2  # threads
# A batch that was lost with so many workers is given back: each of its shards is then tried by itself.
LOST_TOO_OFTEN = 2

Outcomes = SimpleQueue[ShardOutcome]
_log = logging.getLogger(__name__)


def writers_for(job: BatchJob, asked: int | None) -> int:
    """How many writer processes this process has for a job: as many as asked for, or as suit its device."""
    if asked is not None:
        return asked
    return default_writers(find_device(job.batch.run.device), torch.get_num_threads())


class WorkerLine:
    """The readers and writers of a process, for all its batches."""

    def __init__(self, writers: int) -> None:
        """writers: processes; 0 for a thread."""
        self.readers = ThreadPoolExecutor(READERS, "reader")
        self.writers = ShardWriters(writers)

    def __enter__(self) -> WorkerLine:
        return self

    def __exit__(self, *_: object) -> None:
        self.readers.shutdown(cancel_futures=True)
        self.writers.close()

    def begin(self, job: BatchJob, outcomes: Outcomes) -> BegunBatch:
        """Begin to read the labels of a batch. What becomes of its shards is put into `outcomes`, one by one.

        Raises ConfigError when the run is of another version.
        """
        job.stages.check(job.batch.run)
        return BegunBatch(self, job, outcomes)


class BegunBatch:
    """A batch on its way through a worker: `wait_for_labels`, then `fit`. Each shard has an outcome afterwards."""

    def __init__(self, line: WorkerLine, job: BatchJob, outcomes: Outcomes) -> None:
        self.line, self.job, self.outcomes = line, job, outcomes
        self._tries: list[int] = []
        self._began = time.time()
        self._reading = [line.readers.submit(self._begin_shard, task) for task in job.batch.tasks]
        self._shards: list[InputOfShard] = []

    @property
    def tries(self) -> int:
        """How many workers were lost while they had one of its shards; known when the labels are read."""
        return max(self._tries, default=0)

    def wait_for_labels(self) -> None:
        """Wait until the labels are read."""
        if self._reading:
            self._shards = [shard for future in self._reading if (shard := future.result()) is not None]
            self._reading = []

    def give_back(self) -> None:
        """Leave the shards undone: each is to be tried by itself."""
        for shard in self._shards:
            error = f"it was in a batch that was lost with {self.tries} workers"
            self.outcomes.put(ShardFailure(shard.task.name, error))

    def fit(self) -> None:
        """Fit the rows, and hand each shard to the writers; waits while these have enough to do."""
        self.wait_for_labels()
        for shards in self.job.stages.calls(self._shards):
            self._fit_together(shards)

    def _begin_shard(self, task: PlannedShard) -> InputOfShard | None:
        """Announce a shard and read it; None where it has an outcome already."""
        try:
            # A batch that is tried again may have lost its worker after some of its shards.
            if (marker := finished_marker(task)) is not None:
                withdraw(task.files)
                nothing, span = dict.fromkeys(PHASES, 0.0), (self._began, time.time())
                self.outcomes.put(ShardResult.of(marker, nothing, self.line.writers.count, span))
                return None
            self._tries.append(announce(task.files))
            return self.job.stages.read(task)
        except Exception as error:
            self._failed(task, error)
            return None

    def _fit_together(self, shards: Sequence[InputOfShard]) -> None:
        stopwatch = Stopwatch()
        try:
            fitted = self.job.stages.fit(shards, stopwatch)
        except Exception as error:
            if len(shards) == 1:
                return self._failed(shards[0].task, error)
            # The fault of one shard, or too much for the memory.
            _log.warning("%s: fitted shard by shard, because of %r", self.job.batch.name, error)
            for shard in shards:
                self._fit_together([shard])
            return None
        rows = sum(len(shard.rows) for shard in shards)
        for read, ready in zip(shards, fitted, strict=True):
            part = len(read.rows) / rows
            seconds = {phase: part * spent for phase, spent in stopwatch.seconds.items()}
            seconds["labels"] = read.seconds
            writing = self.line.writers.put(ready, len(self.job.batch.tasks))
            writing.add_done_callback(partial(self._written, read, seconds))

    def _written(
        self, read: InputOfShard, seconds: Mapping[str, float], writing: Future[WrittenShard | ShardFailure]
    ) -> None:
        if writing.cancelled():
            return  # the run is ended
        withdraw(read.task.files)
        written = writing.result()
        if isinstance(written, ShardFailure):
            self.outcomes.put(written)
            return
        spent = {phase: seconds[phase] + written.seconds[phase] for phase in PHASES}
        span = read.began, written.ended
        self.outcomes.put(ShardResult.of(written.marker, spent, self.line.writers.count, span))

    def _failed(self, task: PlannedShard, error: Exception) -> None:
        withdraw(task.files)
        self.outcomes.put(failure_of(task.name, error))
