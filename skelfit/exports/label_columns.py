"""The people of a run as the columns of one label file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from skelfit.shards.finished_run import FinishedRun, Step
from skelfit.shards.label_vector import FIELDS

# Of the metadata; None becomes ''.
_TEXTS = ("imgname", "skel_gender", "smpl_gender", "coordinates", "label_file", "sequence", "subject")
_FLAGS = ("smpl", "camera")
_SHAPES = {f.name: f.shape for f in FIELDS}


def label_columns(run: FinishedRun, parts: Mapping[str, str], step: Step) -> dict[str, Any]:
    """All people of a run, in memory. parts: key -> part of the label vector, whose column (N, ...) is float32.

    Beside these, each (N,): row int64, frame int64 (-1: of no sequence), and of the metadata imgname, skel_gender,
    smpl_gender, coordinates, label_file, sequence, subject (text) and smpl, camera (bool).
    """
    columns: dict[str, Any] = {
        key: np.empty((run.rows_out, *_SHAPES[part]), np.float32) for key, part in parts.items()
    }
    meta: dict[str, list[Any]] = {key: [] for key in ("row", "frame", *_TEXTS, *_FLAGS)}
    for i, person in enumerate(run.people()):
        for key, part in parts.items():
            columns[key][i] = person.fields[part]
        meta["row"].append(person.meta["row"])
        meta["frame"].append(-1 if person.meta["frame"] is None else person.meta["frame"])
        for key in _TEXTS:
            meta[key].append(person.meta[key] or "")
        for key in _FLAGS:
            meta[key].append(bool(person.meta[key]))
        step(1)
    types: dict[str, type] = {"row": np.int64, "frame": np.int64} | dict.fromkeys(_FLAGS, np.bool_)
    return columns | {key: np.array(column, types.get(key, np.str_)) for key, column in meta.items()}


def without_what_is_not_known(columns: Mapping[str, Any]) -> dict[str, Any]:
    """The columns without those that identify no person here; `scale` as (N,) where all boxes are square."""
    unnamed, dropped = columns["imgname"] == "", set()
    if not unnamed.any():
        dropped.add("label_file")
    if not (unnamed & (columns["frame"] >= 0)).any():
        dropped |= {"sequence", "subject", "frame"}
    known = {key: column for key, column in columns.items() if key not in dropped}
    if (known["scale"][:, 0] == known["scale"][:, 1]).all():
        known["scale"] = known["scale"][:, 0]
    return known
