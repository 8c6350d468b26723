"""Writers of a worker: fitted shards wait for them in a queue of a bounded length."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from queue import SimpleQueue
from threading import Condition, Event

from skelfit.conversion.shard_outcome import ShardFailure, failure_of
from skelfit.conversion.shard_output import ReadyShard, WrittenShard, write_fitted
from skelfit.executors.writer_process import WriterDiedError, WriterProcess

# So many deaths of a writer are not a shard's fault.
WRITER_TRIES = 3
MOST_WRITERS = 32
_OTHER_THREADS = 2  # of a worker beside a GPU: one drives it, one reads labels


def default_writers(device: str, threads: int) -> int:
    """How many writer processes a worker with so many threads has by default: none beside a fit on the CPU."""
    return 0 if device == "cpu" else min(MOST_WRITERS, max(1, threads - _OTHER_THREADS))


class ShardWriters:
    """Writes shards in processes of this worker, or in a thread of it; `count` of them at a time.

    As many more may wait as a batch has. Who has a further one waits as well: when writing is slow, the fit is held
    up, and the memory stays as it is.
    """

    def __init__(self, processes: int) -> None:
        """processes: 0 for the thread."""
        self.count = max(1, processes)
        self._threads = ThreadPoolExecutor(self.count, "writer")
        self._under_way, self._changed = 0, Condition()
        self._stop = Event()
        self._processes = [WriterProcess() for _ in range(processes)]
        self._idle: SimpleQueue[WriterProcess] = SimpleQueue()
        for process in self._processes:
            self._idle.put(process)

    def put(self, shard: ReadyShard, places: int) -> Future[WrittenShard | ShardFailure]:
        """Have a shard written; waits for one of so many places in the queue."""
        with self._changed:
            self._changed.wait_for(lambda: self._under_way < self.count + places)
            self._under_way += 1
        future = self._threads.submit(self._write, shard)
        future.add_done_callback(self._done)
        return future

    def _done(self, _: object) -> None:
        with self._changed:
            self._under_way -= 1
            self._changed.notify()

    def close(self) -> None:
        """End at once. What is being written stays unfinished, and so does what waits."""
        self._stop.set()
        for process in self._processes:
            process.end()
        self._threads.shutdown(cancel_futures=True)
        for process in self._processes:
            process.close()

    def _write(self, shard: ReadyShard) -> WrittenShard | ShardFailure:
        if not self._processes:
            try:
                return write_fitted(shard, self._stop)
            except Exception as error:
                return failure_of(shard.task.name, error)
        for _ in range(WRITER_TRIES):
            process = self._idle.get()
            try:
                return process.write(shard)
            except WriterDiedError:
                if self._stop.is_set():
                    break
            finally:
                self._idle.put(process)
        return ShardFailure(
            shard.task.name,
            f"{WRITER_TRIES} writer processes died while they had it: out of memory, or stopped from outside",
        )
