"""Batches in parallel: on a CPU as many at a time as torch has threads, one thread each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any, TypeVar

import torch

from skelfit.fitting.backends.backend import Backend

T = TypeVar("T")
# The results of a function for some numbers, in their order.
Each = Callable[[Callable[[int], Any], Sequence[int]], list[Any]]


@contextmanager
def side_by_side(backend: Backend) -> Iterator[Each]:
    """A pool of threads, as a function that maps.

    Batches are independent: threads over batches waste less than threads within one, and no result depends on the
    number of threads.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            backend.workers or threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            torch.set_num_threads(1)  # sums of this thread must not depend on the number of threads either
            yield lambda function, numbers: list(pool.map(function, numbers))
    finally:
        torch.set_num_threads(threads)


def run_batches(backend: Backend, function: Callable[[int], T], starts: Sequence[int]) -> list[T]:
    """The results of a function for the batches that start at these rows."""
    with side_by_side(backend) as each:
        return each(function, starts)
