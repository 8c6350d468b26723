"""Batches side by side: on a CPU as many at once as torch has threads, each on one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from skelfit.fit.backend import Backend

T = TypeVar("T")


def run_batches(backend: Backend, function: Callable[[int], T], starts: Sequence[int]) -> list[T]:
    """What a function gives for the batches that start at these rows.

    Batches have nothing in common, so that threads over batches lose less than threads within one, and what a batch
    gives does not depend on how many there are.
    """
    threads = torch.get_num_threads()
    try:
        with ThreadPoolExecutor(
            backend.workers or threads, initializer=torch.set_num_threads, initargs=(1,)
        ) as pool:
            return list(pool.map(function, starts))
    finally:
        torch.set_num_threads(threads)  # of threads to come: this one's own never changed
