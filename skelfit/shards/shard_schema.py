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

    key: str  # key of the person's sample
    row: int  # index in the label file
    status: str  # what became of the row
    reason: str  # why, where the status or the image needs a reason
    pve_mm: float | None  # mean vertex error
    max_vertex_mm: float | None  # largest vertex error
    stage_pve_mm: Mapping[str, float | None]  # mean vertex error after each stage
    skel_gender: str | None  # gender of the SKEL body that was fitted
    # RMS distance of SKEL's skin at rest to SMPL's, with betas transferred and refined
    betas_mm: Mapping[str, float | None]
    unseen_keypoints: int  # 2D keypoints whose confidence a filter set to 0
    image: bool | None  # whether the image is there; null: no image was asked for
    sequence: str | None = None  # name of the sequence; null: the row is no frame of a sequence
    frame: int | None = None  # number of the frame, from 0
    frame_rate: float | None = None  # Hz; null also where the file does not say
    # Hz, at which the frame was fitted as one problem with its sequence; null: it was fitted by itself
    fitted_rate: float | None = None
    subject: str | None = None  # whose motion it is
    # gender of the SMPL body whose mesh was fitted; null: no finite fit, or a mesh came in
    target_gender: str | None = None
    root: str | None = None  # frozen, turn or free, in this fit; null: no finite fit
    # of a refined shard alone, else the key is not there: what became of the row, why, and measures before and after
    refinement: Mapping[str, Any] | None = None
    digest: str = ""  # hash of this row and its sample (row_digest), set when it is written


@dataclass(frozen=True)
class ShardMarker:
    """The done marker of a shard."""

    name: str  # name of the shard
    start: int  # first row of the label file
    stop: int  # row after the last
    rows_in: int  # number of input rows
    rows_out: int  # number of people in the tar
    statuses: Mapping[str, int]  # rows by status
    rejected: Mapping[str, int]  # rows that are not in the tar, by 'status: kind of reason'
    tar: FileRecord  # size and sha256 of the tar
    sidecar: FileRecord  # size and sha256 of the sidecar
    identity_sha256: str  # hash of the identity
    # what the run's results depend on: labels, pipeline, models, layout, algorithm
    identity: Mapping[str, Any]
    # hash of the label rows that came in; --extend compares it where a label file grew. Empty: not known
    labels_sha256: str = ""
