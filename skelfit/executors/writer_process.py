"""A process that writes shards for a worker: `serve` is what it runs, `WriterProcess` is how the worker sees it.

Not of `multiprocessing`: Dask's workers may have no such children. It is never left behind: its input is a pipe that
nothing is sent through, and that ends with the worker, however the worker ends.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from multiprocessing.connection import Connection

from skelfit.conversion.shard_outcome import ShardFailure, failure_of
from skelfit.conversion.shard_output import ReadyShard, WrittenShard, write_fitted
from skelfit.executors.allocator import keep_freed_memory

_END_SECONDS = 5.0
# Its arrays are small, and the device is the worker's.
_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}


class WriterDiedError(Exception):
    """The process ended before it had written its shard."""


class WriterProcess:
    """One writer, for one thread at a time. It is started at once, and when it is needed again after its death."""

    def __init__(self) -> None:
        self._lock, self._ended = threading.Lock(), False
        self._start()

    def write(self, shard: ReadyShard) -> WrittenShard | ShardFailure:
        """Have a shard written. Raises WriterDiedError; the next call has a new process."""
        try:
            self._connection.send(shard)
            written: WrittenShard | ShardFailure = self._connection.recv()
            return written
        except (EOFError, OSError):
            with self._lock:
                self._kill()
                if not self._ended:
                    self._start()
            raise WriterDiedError from None

    def end(self) -> None:
        """End it, also in the middle of a shard."""
        with self._lock:
            self._ended = True
            self._process.kill()

    def close(self) -> None:
        """Release what is left of it, when no thread uses it any longer."""
        self._kill()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        # As `multiprocessing` does: what is found here is found there.
        code = (
            f"import sys; sys.path[:] = {sys.path!r}; "
            f"from skelfit.executors.writer_process import serve; serve({theirs.fileno()})"
        )
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-c", code],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                env={**os.environ, **_ENVIRONMENT},
                pass_fds=[theirs.fileno()],
                start_new_session=True,  # Ctrl-C is for its worker, which ends it
            )
        self._connection = Connection(ours.detach())

    def _kill(self) -> None:
        self._process.kill()
        self._connection.close()
        assert self._process.stdin is not None
        self._process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_END_SECONDS)


def serve(file: int) -> None:
    """Write the shards that come through a socket, until its other end is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_worker, daemon=True).start()
    keep_freed_memory()
    connection = Connection(file)
    with suppress(EOFError, OSError):
        while True:
            connection.send(_written(connection.recv()))
    os._exit(0)  # at once: a thread waits for the end of the input


def _written(shard: ReadyShard) -> WrittenShard | ShardFailure:
    try:
        return write_fitted(shard)
    except Exception as error:
        return failure_of(shard.task.name, error)


def _end_with_worker() -> None:
    os.read(sys.stdin.fileno(), 1)
    os._exit(1)
