"""The processes of one training: torchrun starts them, each with a share of every batch."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch import distributed as dist

from skelfit.learning.data.person_stream import ALL, Part


@dataclass(frozen=True)
class ProcessGroup:
    """This process: its device, its number, and the number of processes."""

    device: torch.device
    part: Part = ALL

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and prints."""
        return self.part.number == 0

    def mean(self, tensor: Tensor) -> Tensor:
        """The mean over all processes of a tensor that each has; the same in all of them."""
        if self.part.of == 1:
            return tensor
        total = tensor.clone()
        dist.all_reduce(total)
        return total / self.part.of

    def gather(self, items: Sequence[Any]) -> list[Any]:
        """The items of all processes, the first process's first; the same in all of them."""
        parts: list[Any] = [items]
        if self.part.of > 1:
            parts *= self.part.of
            dist.all_gather_object(parts, items)
        return [item for part in parts for item in part]


def is_first() -> bool:
    """Whether this process is alone or the first, before `process_group` connects it to the others."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def process_group(device: str) -> Iterator[ProcessGroup]:
    """Connect to the other processes, if torchrun started any. device: 'cpu' or 'cuda'; each process takes one GPU."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    own_device = torch.device(device)
    if device == "cuda":
        own_device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(own_device)
    if processes == 1:
        yield ProcessGroup(own_device)
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield ProcessGroup(own_device, Part(dist.get_rank(), processes))
    finally:
        dist.destroy_process_group()
