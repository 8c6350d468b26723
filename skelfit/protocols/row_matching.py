"""Which prediction belongs to which row of a label file: by row where predictions say it, else by image and box.

Order never counts. Images match when their names are equal, or when one name is the end of the other. Within an image
the nearest centres of boxes belong together. Predictions without boxes need images of one person.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from skelfit.errors import InputError
from skelfit.protocols.published_labels import PublishedLabels
from skelfit.verification.comparison.matching import ImageNames

Array = NDArray[np.float64]
NEAR = 0.2  # of the longer side of the label's box; centres further apart are of other people
_SAME_PX = 1e-3
_FAR = 1e9
NO_PREDICTION, AMBIGUOUS = "no_prediction", "ambiguous"


@dataclass(frozen=True)
class PredictionKeys:
    """What identifies M predictions."""

    path: str  # of their file
    imgname: Sequence[str]  # (M,)
    center: Array | None  # (M,2) px, of the box
    row: NDArray[np.int64] | None  # (M,) in the label file

    def __len__(self) -> int:
        return len(self.imgname)


@dataclass(frozen=True)
class RowMatches:
    """The prediction of each of N label rows."""

    prediction: NDArray[np.int64]  # (N,) index; -1: none
    status: tuple[str, ...]  # (N,) NO_PREDICTION or AMBIGUOUS where there is none, else ''
    reason: tuple[str, ...]  # (N,)
    unused: int  # predictions of no row


def match_rows(labels: PublishedLabels, keys: PredictionKeys) -> RowMatches:
    """The prediction of each label row. Raises InputError for rows that contradict the names of images."""
    matcher = _RowMatcher(labels, keys)
    if keys.row is not None:
        matcher.by_row(keys.row)
    else:
        matcher.by_image()
    used = matcher.prediction[matcher.prediction >= 0]
    return RowMatches(
        matcher.prediction, tuple(matcher.status), tuple(matcher.reason), len(keys) - len(np.unique(used))
    )


def posix(name: str) -> str:
    """A path as names are compared: with slashes, without dots and a drive."""
    return "/".join(part for part in PurePosixPath(name.replace("\\", "/")).parts if part not in ("/", "."))


class _RowMatcher:
    def __init__(self, labels: PublishedLabels, keys: PredictionKeys) -> None:
        self.labels, self.keys = labels, keys
        self.prediction = np.full(len(labels), -1, np.int64)
        self.status = [NO_PREDICTION] * len(labels)
        self.reason = ["no prediction of this image"] * len(labels)
        self.names = ImageNames(posix(name) for name in labels.imgname)

    def by_row(self, rows: NDArray[np.int64]) -> None:
        """Predictions that name their rows; their images must agree."""
        self.reason = ["no prediction of this row"] * len(self.labels)
        n = len(self.labels)
        for i, row in enumerate(rows.tolist()):
            if not 0 <= row < n:
                raise InputError(self.keys.path, "row", f"rows of the labels, 0 to {n - 1}", str(row))
            if self.prediction[row] >= 0:
                raise InputError(self.keys.path, "row", "each row once", f"row {row} again")
            name = self.keys.imgname[i]
            if name and self.names.find(posix(name)) != self.names.of_rows[row]:
                expected = f"for row {row} the image of the labels, {self.labels.imgname[row]!r}"
                raise InputError(self.keys.path, "imgname", expected, repr(name))
            self._set(row, i)

    def by_image(self) -> None:
        """Predictions of the same image, by their boxes."""
        found = [self.names.find(posix(name)) if name else -1 for name in self.keys.imgname]
        predictions: dict[int, list[int]] = {}
        for i, image in enumerate(found):
            predictions.setdefault(image, []).append(i)
        rows: dict[int, list[int]] = {}
        for row, image in enumerate(self.names.of_rows.tolist()):
            rows.setdefault(image, []).append(row)
        for image, of_image in predictions.items():
            if image < 0:
                continue
            if len({posix(self.keys.imgname[i]) for i in of_image}) > 1:
                names = sorted({self.keys.imgname[i] for i in of_image})[:2]
                self._ambiguous(rows[image], f"predictions of several such images: {', '.join(names)}")
            elif self.keys.center is None:
                self._alone(rows[image], of_image)
            else:
                self._nearest(rows[image], of_image, self.keys.center)

    def _alone(self, rows: list[int], of_image: list[int]) -> None:
        if len(rows) == len(of_image) == 1:
            self._set(rows[0], of_image[0])
        else:
            self._ambiguous(rows, "several people in the image, and predictions without boxes")

    def _nearest(self, rows: list[int], of_image: list[int], centers: Array) -> None:
        at, where = self.labels.center[rows], centers[of_image]
        twins = np.linalg.norm(at[:, None] - at[None], axis=-1) < _SAME_PX
        apart = np.linalg.norm(at[:, None] - where[None], axis=-1)
        share = apart / np.maximum(self.labels.size[rows].max(1), 1.0)[:, None]
        share = np.where(np.isfinite(share) & (share <= NEAR), share, _FAR)
        for i, k in zip(*linear_sum_assignment(share), strict=True):
            if share[i, k] < _FAR:
                self._set(rows[i], of_image[k])
        for i, row in enumerate(rows):
            if twins[i].sum() > 1:
                self._ambiguous([row], "several rows with this box")
            elif self.prediction[row] < 0:
                self.reason[row] = "the image is predicted, but no box is near"

    def _set(self, row: int, prediction: int) -> None:
        self.prediction[row], self.status[row], self.reason[row] = prediction, "", ""

    def _ambiguous(self, rows: list[int], reason: str) -> None:
        for row in rows:
            self.prediction[row], self.status[row], self.reason[row] = -1, AMBIGUOUS, reason
