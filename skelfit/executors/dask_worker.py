"""A task on a worker: one shard is fitted while the one before it is written."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from threading import BoundedSemaphore, Lock
from typing import Any

import torch
from distributed import secede

from skelfit import __version__
from skelfit.conversion.shard_task import writing_behind
from skelfit.errors import ClusterError
from skelfit.executors.allocator import keep_freed_memory

Work = Callable[[Any], Any]  # one task -> what came of it; both travel between processes

_LOCK = Lock()
_WRITING = BoundedSemaphore(1)


def do(work: Work, version: str, threads: int | None, task: Any) -> Any:
    """Do a task; `version` is the client's. threads: None takes as many as OMP_NUM_THREADS says, or one.

    A worker of several threads fits one shard at a time all the same: a fit has the threads it needs, and the models
    are there once. Raises what the work raises, and ClusterError on a worker of another version.
    """
    if version != __version__:
        raise ClusterError(
            f"a worker runs skelfit {__version__}, expected {version}, which this run began with"
        )
    with _LOCK:
        _settle(threads)
    token = writing_behind.set(_writing_behind)
    try:
        return work(task)
    finally:
        writing_behind.reset(token)


@lru_cache(maxsize=1)
def _settle(threads: int | None) -> None:
    """Set up this process, once: it may have been started by hand."""
    # torch takes all cores unless it is told, and every worker would.
    torch.set_num_threads(threads or _environment_threads())
    keep_freed_memory()


@contextmanager
def _writing_behind() -> Iterator[None]:
    """Let the worker begin its next task. One shard at most is written: when the disk is slow, the fit waits."""
    with _WRITING:
        secede()
        yield


def _environment_threads() -> int:
    threads = os.environ.get("OMP_NUM_THREADS", "")
    return max(1, int(threads)) if threads.isdigit() else 1
