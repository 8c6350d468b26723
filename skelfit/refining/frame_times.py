"""Which people of finished shards are frames of one person, and at what times.

No sequence is cut by shards, so a shard is enough.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from skelfit.fitting.sequences.frame_index import FrameIndex
from skelfit.refining.source_shard import SourceShard


def frames_of(shards: Sequence[SourceShard], frame_rate: float) -> FrameIndex:
    """The index of the P people of some shards; frame_rate: Hz, of sequences that have none.

    A sequence whose times do not rise has no order that its frames could be tied in: each is by itself.
    """
    sequence = np.full(sum(len(shard.metas) for shard in shards), -1, np.int64)
    time, number, first = np.zeros(len(sequence)), 0, 0
    for shard in shards:
        rows: dict[str, list[int]] = {}
        for i, meta in enumerate(shard.metas, first):
            if meta["sequence"] is not None:
                rows.setdefault(meta["sequence"], []).append(i)
                time[i] = meta["frame"] / (meta["frame_rate"] or frame_rate)
        for frames in rows.values():
            if np.isfinite(time[frames]).all() and (np.diff(time[frames]) > 0).all():
                sequence[frames] = number
            number += 1
        first += len(shard.metas)
    return FrameIndex(sequence, time)
