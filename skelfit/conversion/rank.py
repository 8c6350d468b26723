"""Ranks: several processes, on any machines, that share the shards of one run without a scheduler."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Rank:
    """One of `world` processes. Shard k is that of rank k modulo `world`, whatever is finished already.

    So the ranks agree without talking, and each knows from a file's name alone whether it is its own.
    """

    number: int  # from 0
    world: int

    def owns(self, shard: str) -> bool:
        """Whether the shard of this name is its own."""
        return int(shard.rpartition("-")[2]) % self.world == self.number

    def __str__(self) -> str:
        return f"rank {self.number} of {self.world}"
