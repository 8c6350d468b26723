"""One shape for a subject: the labels of all its sequences, in any shard, from which its betas are refined.

Only neutral labels need this, because the fit refines their betas. Other betas follow from the label's own. Sequences
with different betas share nothing, nor do label files.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skelfit.config.manifest import Filters
from skelfit.conversion.run_plan import LabelFile
from skelfit.fitting.sequences.frame_index import ShapeLabels, evenly
from skelfit.labels.filters import apply_filters
from skelfit.labels.label_batch import FloatArray, LabelBatch, MotionSequence
from skelfit.labels.label_store import read_field, read_selected_rows, store_sequences

Rows = NDArray[np.int64]


def subject_shapes(
    batch: LabelBatch, file: LabelFile, filters: Filters, count: int
) -> dict[int, ShapeLabels]:
    """The labels that betas are refined from, `count` frames of a subject, by the number of a batch's sequence.

    They come from those of the subject's sequences that begin with the same betas. A sequence is left out where it is
    the only one, and where its own betas vary.
    """
    numbers = {k: rows for k in range(len(batch.sequences)) if len(rows := _neutral(batch, k))}
    if not numbers:
        return {}
    motions = [m for m in store_sequences(file.store) if m.start < file.rows]
    shapes: dict[int, ShapeLabels] = {}
    known: dict[tuple[str, bytes], ShapeLabels | None] = {}
    for k, rows in numbers.items():
        subject, betas = batch.sequences[k].subject, batch.betas[rows[0]]
        key = subject, betas.tobytes()
        if key not in known:
            sequences = _of_shape([m for m in motions if m.subject == subject], betas, file)
            known[key] = _shape_labels(sequences, betas, file, filters, count) if len(sequences) > 1 else None
        shape = known[key]
        if shape is not None and (batch.betas[rows] == betas).all():
            shapes[k] = shape
    return shapes


def _neutral(batch: LabelBatch, number: int) -> Rows:
    """The rows of a batch that are good frames of one of its sequences, with a neutral label."""
    motion = batch.sequences[number]
    rows = range(*np.searchsorted(batch.row, [motion.start, motion.start + motion.frames]))
    return np.array([i for i in rows if not batch.bad[i] and batch.gender[i] == "neutral"], np.int64)


def _of_shape(motions: list[MotionSequence], betas: FloatArray, file: LabelFile) -> list[Rows]:
    """The rows of those sequences of a label file that begin with these betas (10,)."""
    if len(motions) < 2:
        return []
    first = read_field(file.store, "betas", np.array([m.start for m in motions]))
    return [
        np.arange(m.start, min(m.start + m.frames, file.rows))
        for m, its in zip(motions, first, strict=True)
        if (its == betas).all()
    ]


def _shape_labels(
    sequences: list[Rows], betas: FloatArray, file: LabelFile, filters: Filters, count: int
) -> ShapeLabels | None:
    """The labels of frames evenly spread over some sequences; None where no good one has these betas."""
    few, screening = apply_filters(
        read_selected_rows(file.store, evenly(np.concatenate(sequences), count)), filters
    )
    good = [
        i
        for i, reason in enumerate(screening.reasons)
        if not few.bad[i] and not reason and few.gender[i] == "neutral" and (few.betas[i] == betas).all()
    ]
    return ShapeLabels(few.pose[good], few.betas[good]) if good else None
