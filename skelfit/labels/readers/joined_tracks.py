"""From the people of a file of tracks to one batch: a sequence of rows for each person, gaps included."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties, MotionSequence, empty_fields
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.track_people import unused
from skelfit.labels.row_faults import RowFaults

_LONG_GAP = 30  # frames; behind a longer one, a new sequence begins


@dataclass(frozen=True)
class Track:
    """The frames of one person in a file."""

    name: str
    numbers: dict[str, Any]
    keys: dict[str, str]  # field -> key of the file
    faults: RowFaults
    frames: NDArray[np.int64] | None  # ascending numbers; None: people of images, not frames of a motion
    gender: str
    imgname: list[str]


def joined_tracks(
    tracks: list[Track], about: LabelProperties, settings: ReadSettings, rate: float | None
) -> LabelBatch:
    """All tracks one after another, with a bad row for each frame that is missing in a short gap; rate in Hz."""
    numbers: dict[str, list[FloatArray]] = {name: [value] for name, value in _no_rows().items()}
    imgname: list[str] = []
    gender: list[str] = []
    bad: list[str] = []
    sequences: list[MotionSequence] = []
    used: set[str] = set()  # names of sequences: two of the same name would become one person
    for track in tracks:
        subject = f"{settings.name}-{track.name}" if track.name else settings.name
        for number, rows in enumerate(_pieces(track)):
            frames = rows if track.frames is None else track.frames[rows] - track.frames[rows[0]]
            first = 0 if track.frames is None else int(track.frames[rows[0]])
            count, texts = int(frames[-1]) + 1, track.faults.texts()
            reasons = [f"no_label: {subject} is not in frame {first + k}" for k in range(count)]
            names = [""] * count
            for k, row in zip(frames.tolist(), rows.tolist(), strict=True):
                reasons[k], names[k] = texts[row], track.imgname[row]
            for name, parts in numbers.items():
                given = track.numbers[name]
                column = np.zeros((count, *given.shape[1:]), np.float32)
                column[frames] = given[rows]
                parts.append(column)
            if track.frames is not None:
                title = unused(f"{subject}-{number}" if number else subject, used)
                used.add(title)
                sequences.append(MotionSequence(title, subject, rate, len(bad), count))
            imgname, gender, bad = imgname + names, gender + [track.gender] * count, bad + reasons
    columns: dict[str, Any] = {name: np.concatenate(parts) for name, parts in numbers.items()}
    if not columns["root_shift"].any():
        columns["root_shift"] = None
    return LabelBatch(
        row=np.arange(len(bad), dtype=np.int64),
        imgname=imgname,
        gender=gender,
        bad=bad,
        sequences=tuple(sequences),
        about=about,
        **columns,
    )


def _no_rows() -> dict[str, FloatArray]:
    return {**empty_fields(0), "root_shift": np.zeros((0, 3, 3), np.float32)}


def _pieces(track: Track) -> list[NDArray[np.int64]]:
    """The rows of a track between long gaps."""
    rows = np.arange(len(track.imgname))
    if track.frames is None:
        return [rows]
    return np.split(rows, np.flatnonzero(np.diff(track.frames) > _LONG_GAP) + 1)
