"""Extreme crops: squares that show only a part of a person, so that a network learns from people who are cut off.

The table of parts and their rates is the one that 4D-Humans (level 1), CameraHMR and SKEL-CF use.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from skelfit.learning.data.person_crops import Square

_SMALLEST = 4.0  # px; smaller parts show nothing
_AROUND = 1.2  # sides of a box, in those of the box about its keypoints; parts have a factor of their own


class _Part(NamedTuple):
    """The keypoints that a part shows, of 25 of OpenPose and 19 extra ones, and the factor of its side."""

    keypoints: tuple[int, ...]
    factor: float


_FACE = (0, 15, 16, 17, 18, 42, 43)
_NECK_AND_TOP = (1, 2, 5, 37, 38)
_LEGS = (10, 11, 13, 14, *range(19, 27), 29, 30)
_PARTS = {
    "hips": _Part(tuple(k for k in range(44) if k not in _LEGS), 1.1),
    "shoulders": _Part((*_FACE, *_NECK_AND_TOP, 33, 34), 1.2),
    "head": _Part((*_FACE, *_NECK_AND_TOP), 1.3),
    "torso": _Part((1, 2, 5, 8, 9, 12, 27, 28, 33, 34, 37, 39, 40, 41), 1.1),
    "right arm": _Part((2, 3, 4, 31, 32, 33), 1.1),
    "left arm": _Part((5, 6, 7, 34, 35, 36), 1.1),
    "legs": _Part((*range(8, 15), *range(19, 31), 39), 1.1),
    "right leg": _Part((9, 10, 11, 22, 23, 24, 25, 26, 27), 1.1),
    "left leg": _Part((12, 13, 14, 19, 20, 21, 28, 29, 30), 1.1),
}
# How often each part is shown, in tenths.
_OF_WHOLE = dict.fromkeys(_PARTS, 1) | {"hips": 2}
_WITHOUT_LEGS = dict.fromkeys(("shoulders", "head", "torso", "right arm", "left arm"), 2)
# The keypoints of shoulders, elbows, wrists, knees, ankles: OpenPose's and, for each, the extra one.
_LIMBS = ((2, 3, 4, 5, 6, 7, 10, 11, 13, 14), (33, 32, 31, 34, 35, 36, 26, 25, 29, 30))
_KNEES_AND_ANKLES = (10, 11, 13, 14, 25, 26, 29, 30)
_HEAD_AND_SHOULDERS = (0, 1, 15, 16, 17, 18, 33, 34, 37, 38, 42, 43)


def part_of(square: Square, keypoints: NDArray[np.float32], chance: float) -> Square:
    """The square of a part of a person, for people seen whole or without legs; the same square for others.

    keypoints: (44, 3) px of the source image, and confidence; chance: from 0 to 1, selects the part.
    """
    rates = _rates(keypoints[:, 2] > 0)
    if rates is None:
        return square
    names = [name for name, tenths in rates.items() for _ in range(tenths)]
    part = _PARTS[names[min(int(chance * len(names)), len(names) - 1)]]
    known = [k for k in part.keypoints if keypoints[k, 2] > 0]
    if keypoints[known, 2].sum() <= 1:
        return square
    low, high = keypoints[known, :2].min(axis=0), keypoints[known, :2].max(axis=0)
    side = float(part.factor * _AROUND * (high - low).max())
    x, y = ((low + high) / 2).tolist()
    return Square(x, y, side) if side >= _SMALLEST else square


def _rates(visible: NDArray[np.bool_]) -> dict[str, int] | None:
    """The rates of the parts, by which keypoints (44,) are visible; None: no part is shown."""
    if (visible[list(_LIMBS[0])] | visible[list(_LIMBS[1])]).all():
        return _OF_WHOLE
    if not visible[list(_KNEES_AND_ANKLES)].any() and visible[list(_HEAD_AND_SHOULDERS)].sum() >= 2:
        return _WITHOUT_LEGS
    return None
