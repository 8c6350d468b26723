"""Which boxes of the frames of a sequence are of one person: those that overlap most, from frame to frame."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from skelfit.learning.inference.photo_results import BoxResult, PhotoResult

LEAST_OVERLAP = 0.3  # of the boxes' common area, in their union
LONGEST_GAP = 1.0  # s after which a person who was not seen is forgotten
Boxes = NDArray[np.float64]  # (N,4) x, y, width, height px


class Tracker:
    """Numbers the people of each sequence. It holds the last box of each person, and nothing of earlier frames."""

    def __init__(self) -> None:
        self._sequence = ""
        self._last: dict[int, tuple[float, tuple[float, ...]]] = {}  # by track: when, and where
        self._next = 0

    def __call__(self, result: PhotoResult) -> PhotoResult:
        """The frame with the tracks of its people; a photo that is no frame as it is. Frames come in order."""
        moment = result.photo.moment
        if moment is None:
            return result
        if moment.sequence != self._sequence:
            self._sequence, self._last, self._next = moment.sequence, {}, 0
        self._last = {
            track: seen for track, seen in self._last.items() if moment.seconds - seen[0] <= LONGEST_GAP
        }
        boxes = list(result.boxes)
        ok = result.ok_boxes
        for i, track in zip(ok, self._assign([boxes[i] for i in ok]), strict=True):
            boxes[i] = replace(boxes[i], track=track)
            self._last[track] = moment.seconds, boxes[i].box or ()
        return replace(result, boxes=tuple(boxes))

    def _assign(self, boxes: list[BoxResult]) -> list[int]:
        """A track for each box: those of the people seen last whose boxes overlap with it, or new ones."""
        if not boxes:
            return []
        tracks = list(self._last)
        chosen = [-1] * len(boxes)
        if tracks:
            known = np.array([self._last[track][1] for track in tracks])
            overlap = overlaps(np.array([box.box for box in boxes]), known)
            for i, j in zip(*linear_sum_assignment(-overlap), strict=True):
                if overlap[i, j] >= LEAST_OVERLAP:
                    chosen[i] = tracks[j]
        for i, track in enumerate(chosen):
            if track < 0:
                chosen[i], self._next = self._next, self._next + 1
        return chosen


def overlaps(boxes: Boxes, others: Boxes) -> NDArray[np.float64]:
    """Intersection over union (N,M) of boxes (N,4) with others (M,4)."""
    low = np.maximum(boxes[:, None, :2], others[:, :2])
    high = np.minimum(boxes[:, None, :2] + boxes[:, None, 2:], others[:, :2] + others[:, 2:])
    common = (high - low).clip(0).prod(-1)
    union = boxes[:, None, 2:].prod(-1) + others[:, 2:].prod(-1) - common
    return np.asarray(common / union)
