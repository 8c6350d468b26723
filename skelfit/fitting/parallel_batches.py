"""Batches side by side: on a CPU as many at once as torch has threads, each on one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from skelfit.fitting.backends.backend import Backend

T = TypeVar("T")
# What a function gives for some numbers, in their order.
Each = Callable[[Callable[[int], Any], Sequence[int]], list[Any]]


@contextmanager
def side_by_side(backend: Backend) -> Iterator[Each]:
    """Threads that share work.

    Batches have nothing in common, so that threads over batches lose less than threads within one, and what a batch
    gives does not depend on how many there are.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            backend.workers or threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            torch.set_num_threads(
                1
            )  # of this thread, which waits or adds up: not in an order that threads decide
            yield lambda function, numbers: list(pool.map(function, numbers))
    finally:
        torch.set_num_threads(threads)


def run_batches(backend: Backend, function: Callable[[int], T], starts: Sequence[int]) -> list[T]:
    """What a function gives for the batches that start at these rows."""
    with side_by_side(backend) as each:
        return each(function, starts)
