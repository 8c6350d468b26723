"""The rows of labels that are to be fitted, of one shard or of several, and the fits of rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from skelfit.config.fit_settings import TemporalConfig
from skelfit.fitting.sequences.frame_index import FrameIndex, ShapeLabels
from skelfit.labels.label_batch import LabelBatch
from skelfit.shards.label_vector import FloatArray


@dataclass(frozen=True)
class RowFits:
    """The fits of N rows; NaN and False where a row was not fitted."""

    poses: FloatArray  # (N,46) rad
    betas: FloatArray  # (N,10)
    trans: FloatArray  # (N,3) m
    converged: NDArray[np.bool_]  # (N,)
    gain: FloatArray  # (N,) what one more step promises, as a share of the objective
    finite: NDArray[np.bool_]  # (N,)
    pve_mm: FloatArray  # (N,)
    max_vertex_mm: FloatArray  # (N,)
    stage_pve_mm: FloatArray  # (N,S)
    female: NDArray[np.bool_]  # (N,) of the SKEL body
    betas_mm: FloatArray  # (N,2) at rest, after the transfer of betas and after their refinement
    keypoints3d: FloatArray  # (N,44,3) m, camera frame

    @classmethod
    def unfitted(cls, rows: int, stages: int) -> RowFits:
        """Rows of which none is fitted yet."""

        def nans(*shape: int) -> FloatArray:
            return np.full((rows, *shape), np.nan, np.float32)

        def no() -> NDArray[np.bool_]:
            return np.zeros(rows, bool)

        errors = nans(), nans(), nans(stages)
        return cls(nans(46), nans(10), nans(3), no(), nans(), no(), *errors, no(), nans(2), nans(44, 3))

    def rows(self, start: int, stop: int) -> RowFits:
        """The fits start..stop-1 (views, no copies)."""
        return RowFits(**{field.name: getattr(self, field.name)[start:stop] for field in fields(self)})


@dataclass(frozen=True)
class RowsToFit:
    """What a fit needs of N labels: of one label batch, or of several, one after another."""

    gender: NDArray[np.str_]  # (N,) of the SMPL body
    good: NDArray[np.bool_]  # (N,) the rows that are fitted
    pose: FloatArray  # (N,24,3) rad
    betas: FloatArray  # (N,10)
    transl: FloatArray  # (N,3) m
    vertices: FloatArray | None = None  # (N,6890,3) m, of labels that are bare meshes
    frames: FrameIndex | None = None  # which rows are frames of one person

    @classmethod
    def of(
        cls, batch: LabelBatch, left_out: Sequence[str] | None = None, frames: FrameIndex | None = None
    ) -> RowsToFit:
        """The rows of a batch; those with a fault or a reason in `left_out` are not fitted."""
        good, genders = _good(batch, left_out), np.array(batch.gender, dtype=str)
        return cls(genders, good, batch.pose, batch.betas, batch.transl, batch.vertices, frames)

    def __len__(self) -> int:
        return len(self.gender)

    def by_gender(self) -> dict[str, NDArray[np.int64]]:
        """The rows that are fitted, by the gender of their SMPL bodies, in alphabetical order."""
        return _by_gender(self.gender, self.good)


def joined(parts: Sequence[RowsToFit]) -> RowsToFit:
    """Rows one after another; their sequences stay apart. All parts have meshes, or none has."""
    if len(parts) == 1:
        return parts[0]
    columns = {
        name: np.concatenate([getattr(part, name) for part in parts])
        for name in ("gender", "good", "pose", "betas", "transl")
    }
    meshes = [part.vertices for part in parts if part.vertices is not None]
    vertices = np.concatenate(meshes) if meshes else None
    return RowsToFit(**columns, vertices=vertices, frames=_joined_frames(parts))


def _joined_frames(parts: Sequence[RowsToFit]) -> FrameIndex | None:
    if all(part.frames is None for part in parts):
        return None
    first = 0
    numbers, times, shapes = [], [], dict[int, ShapeLabels]()
    for part in parts:
        frames = part.frames or FrameIndex(np.full(len(part), -1), np.zeros(len(part)))
        numbers.append(np.where(frames.sequence < 0, -1, frames.sequence + first))
        times.append(frames.time)
        shapes |= {number + first: shape for number, shape in frames.shapes.items()}
        first += int(frames.sequence.max(initial=-1)) + 1
    return FrameIndex(np.concatenate(numbers), np.concatenate(times), shapes)


def frames_of(batch: LabelBatch, temporal: TemporalConfig | None) -> FrameIndex | None:
    """The rows of a batch that are frames of one person, with their times; None where there are none."""
    if temporal is None or not batch.sequences:
        return None
    number, time = np.full(len(batch), -1, np.int64), np.zeros(len(batch))
    for k, sequence in enumerate(batch.sequences):
        rows = batch.frames_of(sequence)
        number[rows] = k
        time[rows] = (batch.row[rows] - sequence.start) / (sequence.frame_rate or temporal.frame_rate)
    return FrameIndex(number, time)


def fitted_rates(
    batch: LabelBatch,
    temporal: TemporalConfig | None,
    left_out: Sequence[str] | None = None,
    finite: NDArray[np.bool_] | None = None,
) -> list[float | None]:
    """The frames per second at which each of N rows is fitted with others; None: by itself, or not fitted.

    finite (N,): the rows with a finite fit; other frames are tied to none. None: all rows.
    """
    rates: list[float | None] = [None] * len(batch)
    frames = frames_of(batch, temporal)
    if temporal is None or frames is None:
        return rates
    for rows in _by_gender(np.array(batch.gender, dtype=str), _good(batch, left_out)).values():
        if finite is not None:
            rows = rows[finite[rows]]
        for together in frames.take(rows).sequences():
            number = frames.sequence[rows[together[0]]]
            rate = batch.sequences[number].frame_rate or temporal.frame_rate
            for row in rows[together] if len(together) > 1 else ():
                rates[row] = rate
    return rates


def _good(batch: LabelBatch, left_out: Sequence[str] | None) -> NDArray[np.bool_]:
    """Which rows of a batch have neither a fault nor a reason to leave them out."""
    reasons = zip(batch.bad, left_out or [""] * len(batch), strict=True)
    return np.array([not bad and not reason for bad, reason in reasons], dtype=bool)


def _by_gender(genders: NDArray[np.str_], good: NDArray[np.bool_]) -> dict[str, NDArray[np.int64]]:
    return {str(g): np.flatnonzero(good & (genders == g)) for g in sorted(set(genders[good].tolist()))}
