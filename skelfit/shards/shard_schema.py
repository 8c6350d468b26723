"""What a shard holds: its samples, its rows and its marker."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skelfit.shards.label_vector import FloatArray
from skelfit.storage.hashed_write import FileRecord


@dataclass(frozen=True)
class ShardSample:
    """One person of a tar; `extension` is that of the image's own file, without a dot."""

    key: str
    label: FloatArray  # (LABEL_SIZE,)
    meta: Mapping[str, Any]
    image: bytes | None = None
    extension: str = ""


@dataclass(frozen=True)
class ShardRow:
    """One input row of a sidecar. Errors are None where there was no finite fit."""

    key: str
    row: int  # index in the label file
    status: str
    reason: str
    pve_mm: float | None
    max_vertex_mm: float | None
    stage_pve_mm: Mapping[str, float | None]
    skel_gender: str | None  # of the SKEL body that was fitted
    betas_mm: Mapping[
        str, float | None
    ]  # RMS distance of SKEL's skin at rest to SMPL's, betas transferred and refined
    unseen_keypoints: int  # 2D keypoints whose confidence a filter set to 0
    image: bool | None  # whether the image was found; None when none was asked for
    sequence: str | None = None  # what a frame belongs to; None: the row is no frame of a sequence
    frame: int | None = None  # which of its frames it is, from 0 on
    frame_rate: float | None = None  # Hz; None also where the file does not say
    fitted_rate: float | None = (
        None  # Hz, at which it was fitted as one problem with its sequence; None: by itself
    )
    subject: str | None = None  # whose motion it is
    # Of the SMPL body that made the mesh that was fitted; None: there was no finite fit, or a mesh came in.
    target_gender: str | None = None
    root: str | None = None  # frozen, turn or free, in this fit; None: there was no finite one
    digest: str = ""  # of this row and its sample (row_digest), when it is written


@dataclass(frozen=True)
class ShardMarker:
    """The done marker of a shard."""

    name: str
    start: int  # rows [start, stop) of the label file
    stop: int
    rows_in: int
    rows_out: int
    statuses: Mapping[str, int]
    rejected: Mapping[str, int]  # 'status: kind of reason' of the rows that are not in the tar
    tar: FileRecord
    sidecar: FileRecord
    identity_sha256: str
    identity: Mapping[
        str, Any
    ]  # what the run's results depend on: labels, pipeline, models, layout, algorithm
