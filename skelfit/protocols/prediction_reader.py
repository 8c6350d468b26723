"""Predictions in a file: SKEL's parameters, as `skelfit predict` writes them; or SMPL's, of any network.

SKEL: `skel_poses`, `skel_betas`, `skel_gender` (or predict.json beside the file), and `skel_trans` and `cam_int` where
2D keypoints are measured. SMPL: a file of any layout that the readers of label files know. In both, people are found
by `imgname` or `photo`, and `box` or `center`; or by `row`, their row in the labels.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import InputError, LabelError
from skelfit.exports.predicted_people import PEOPLE_NAME, RECORD_NAME
from skelfit.labels.files.array_files import LabelArrays, open_label_file
from skelfit.labels.label_batch import LabelBatch
from skelfit.labels.readers.registry import read_label_file
from skelfit.protocols.row_matching import PredictionKeys

Array = NDArray[np.float64]
_NAMES = ("imgname", "photo")
_EXPECTED = "predictions: SKEL's skel_poses, or SMPL's pose and betas"


class PredictionError(InputError):
    """A file of predictions that cannot be used."""


@dataclass(frozen=True)
class SkelPredictions:
    """M people by SKEL's parameters."""

    keys: PredictionKeys
    poses: Array  # (M,46) rad
    betas: Array  # (M,10)
    female: NDArray[np.bool_]  # (M,)
    trans: Array | None  # (M,3) m in the camera
    cam_int: Array | None  # (M,3,3) px of the image

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(M,) whether all numbers of a person are finite."""
        return np.asarray(np.isfinite(np.concatenate((self.poses, self.betas), 1)).all(1), np.bool_)


@dataclass(frozen=True)
class SmplPredictions:
    """M people by SMPL's parameters, checked as labels are."""

    keys: PredictionKeys
    people: LabelBatch

    @property
    def has_camera(self) -> bool:
        """Whether people can be projected: they stand in the camera of the whole image."""
        return self.people.about.coordinates == "camera" and self.people.about.has_camera


def read_predictions(path: Path) -> SkelPredictions | SmplPredictions:
    """The predictions of a file. Raises PredictionError."""
    try:
        with open_label_file(path) as arrays:
            if "skel_poses" in arrays:
                return _skel(arrays)
            row, box = _rows(arrays), _centers(arrays)
        people = read_label_file(path)
    except LabelError as error:
        expected = _EXPECTED if error.key is None else error.expected
        raise PredictionError(path, error.key, expected, error.found) from None
    centers = box
    if centers is None and people.center.any():
        centers = people.center.astype(np.float64)
    return SmplPredictions(_keys(path, people.imgname, centers, row), people)


def _skel(arrays: LabelArrays) -> SkelPredictions:
    poses = arrays.numbers("skel_poses", (46,), dtype=np.float64)
    betas = arrays.numbers("skel_betas", ("10+",), dtype=np.float64)[:, :10]
    name = arrays.first_key(*_NAMES)
    names = arrays.texts(name) if name else [""] * len(poses)
    has = {key: key in arrays for key in ("skel_trans", "cam_int")}
    return SkelPredictions(
        _keys(arrays.path, names, _centers(arrays), _rows(arrays)),
        poses,
        betas,
        _female(arrays, len(poses)),
        arrays.numbers("skel_trans", (3,), dtype=np.float64) if has["skel_trans"] else None,
        arrays.numbers("cam_int", (3, 3), dtype=np.float64) if has["cam_int"] else None,
    )


def _female(arrays: LabelArrays, rows: int) -> NDArray[np.bool_]:
    """Which people are of the female SKEL; `skel_gender` is one text, or one for each."""
    expected = "male or female, once or for each person; or predict.json beside the file, which says it"
    if "skel_gender" not in arrays:
        texts = [_gender_of_record(Path(arrays.path))] * rows
    elif arrays.raw("skel_gender", expected).ndim == 0:
        texts = [arrays.text("skel_gender")] * rows
    else:
        texts = arrays.texts("skel_gender")
    if wrong := [text for text in texts if text not in ("male", "female")]:
        raise arrays.error("skel_gender", expected, repr(wrong[0]) if wrong[0] else "no such key")
    return np.array([text == "female" for text in texts], bool)


def _gender_of_record(path: Path) -> str:
    """The gender that `skelfit predict` recorded for a file of its; '' where there is no such record."""
    if path.name != PEOPLE_NAME:
        return ""
    try:
        record = json.loads((path.parent / RECORD_NAME).read_bytes())
        return str(record["skel_gender"])
    except (OSError, ValueError, TypeError, KeyError):
        return ""


def _centers(arrays: LabelArrays) -> Array | None:
    """The centres of boxes (M,2) px: of `center`, or of `box`, which is left, top, width and height."""
    if "center" in arrays:
        return arrays.numbers("center", (2,), dtype=np.float64)
    if "box" in arrays:
        box = arrays.numbers("box", (4,), dtype=np.float64)
        return np.asarray(box[:, :2] + box[:, 2:] / 2)
    return None


def _rows(arrays: LabelArrays) -> NDArray[np.int64] | None:
    if "row" not in arrays:
        return None
    rows = arrays.numbers("row", (), dtype=np.float64)
    if len(wrong := rows[~(np.abs(rows) < 2**53) | (rows != np.round(rows))]):
        raise arrays.error("row", "whole numbers", f"{wrong[0]:g}")
    return np.asarray(rows, np.int64)


def _keys(
    path: Path, names: list[str], centers: Array | None, rows: NDArray[np.int64] | None
) -> PredictionKeys:
    if not names:
        raise PredictionError(path, None, "people", "no rows")
    if rows is None and not any(names):
        expected = f"{' or '.join(_NAMES)}, by which people are found in the labels, or row"
        raise PredictionError(path, "imgname", expected, "no names")
    return PredictionKeys(str(path), names, centers, rows)
