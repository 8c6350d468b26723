"""The processes that train together: torchrun starts them, each with a share of every batch."""

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
class Team:
    """This process, which one it is of how many, and what it computes on."""

    device: torch.device
    part: Part = ALL

    @property
    def first(self) -> bool:
        """Whether this is the process that writes and speaks."""
        return self.part.number == 0

    def mean(self, values: Tensor) -> Tensor:
        """The mean over all processes of a tensor that each has; the same in all of them."""
        if self.part.of == 1:
            return values
        values = values.clone()
        dist.all_reduce(values)
        return values / self.part.of

    def gather(self, found: Sequence[Any]) -> list[Any]:
        """What all processes have found, the first one's first."""
        parts: list[Any] = [found]
        if self.part.of > 1:
            parts *= self.part.of
            dist.all_gather_object(parts, found)
        return [item for part in parts for item in part]


def is_first() -> bool:
    """Whether this process is alone or the first, before it has met the others."""
    return os.environ.get("RANK", "0") == "0"


@contextmanager
def together(device: str) -> Iterator[Team]:
    """Meet the other processes, if torchrun has started any. device: 'cpu' or 'cuda', of which each takes its own."""
    processes = int(os.environ.get("WORLD_SIZE", "1"))
    where = torch.device(device)
    if device == "cuda":
        where = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(where)
    if processes == 1:
        yield Team(where)
        return
    dist.init_process_group("nccl" if device == "cuda" else "gloo")
    try:
        yield Team(where, Part(dist.get_rank(), processes))
    finally:
        dist.destroy_process_group()
