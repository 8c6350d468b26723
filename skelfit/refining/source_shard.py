"""A finished shard as it is read to be refined: its rows and label vectors, without its images."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelfit.refining.refine_run import RefineTask
from skelfit.shards.label_vector import LABEL_SIZE, META, FloatArray
from skelfit.shards.row_status import PUBLISHED
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import check_shard, read_marker, read_rows, read_samples


@dataclass(frozen=True)
class SourceShard:
    """The rows of a shard that is refined, and its P people in their order."""

    task: RefineTask
    rows: tuple[Mapping[str, Any], ...]  # of the sidecar, all
    labels: FloatArray  # (P, LABEL_SIZE)
    metas: tuple[Mapping[str, Any], ...]  # (P,)
    labels_sha256: str  # as its marker has it
    began: float  # s since the epoch
    seconds: float  # that reading took


def read_source(task: RefineTask) -> SourceShard:
    """Read a shard that is to be refined, and check every byte of it. Raises ShardError."""
    began, started = time.time(), time.perf_counter()
    files = task.source
    marker = read_marker(files)
    if marker.identity != json.loads(task.run.source_identity):
        raise ShardError(files.marker, "identity", "that with which the run began", "another one")
    check_shard(files, marker, hash_tar=True)
    rows, samples = tuple(read_rows(files.sidecar)), list(read_samples(files.tar))
    published = [row["key"] for row in rows if row["status"] in PUBLISHED]
    if [key for key, _, _ in samples] != published:
        raise ShardError(
            files.tar, None, f"the {len(published)} people of the rows", f"{len(samples)} others"
        )
    for key, label, meta in samples:
        if label.shape != (LABEL_SIZE,) or (missing := [name for name in META if name not in meta]):
            found = f"shape {label.shape}" if label.shape != (LABEL_SIZE,) else f"no {missing[0]}"
            raise ShardError(files.tar, key, "a sample of this version of skelfit", found)
    labels = np.array([label for _, label, _ in samples], np.float32).reshape(-1, LABEL_SIZE)
    metas = tuple(meta for _, _, meta in samples)
    seconds = time.perf_counter() - started
    return SourceShard(task, rows, labels, metas, marker.labels_sha256, began, seconds)
