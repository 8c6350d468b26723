"""The people of a shard whose samples are whole, decoded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.shards.label_vector import LABEL_SIZE, FloatArray, unpack


@dataclass(frozen=True)
class DecodedPeople:
    """N people of one shard, in the order of their rows."""

    shard: str  # its name
    keys: tuple[str, ...]  # (N,)
    labels: FloatArray  # (N, LABEL_SIZE), all finite
    metas: tuple[Mapping[str, Any], ...]  # (N,) the samples' metadata

    def __post_init__(self) -> None:
        expected = (len(self.keys), LABEL_SIZE)
        if self.labels.shape != expected or len(self.metas) != len(self.keys):
            raise ValueError(
                f"labels: expected {expected}, found {self.labels.shape}; {len(self.metas)} metas"
            )

    def __len__(self) -> int:
        return len(self.keys)

    def fields(self) -> dict[str, FloatArray]:
        """The parts of the labels by name, each (N, *shape)."""
        return unpack(self.labels)

    def select(self, mask: NDArray[np.bool_]) -> DecodedPeople:
        """The people where `mask` (N,) is true."""
        index = np.flatnonzero(mask)
        keys, metas = tuple(self.keys[i] for i in index), tuple(self.metas[i] for i in index)
        return DecodedPeople(self.shard, keys, self.labels[index], metas)
