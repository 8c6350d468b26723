"""Extreme crops: which part is shown how often, and what it contains."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest

from skelfit.learning.data.extreme_crops import part_of
from skelfit.learning.data.person_crops import Square

WHOLE = Square(100, 150, 400)


def standing() -> np.ndarray:
    """Keypoints of a person who stands, arms at the sides; each at a place of its own."""
    height = {0: 20, 1: 60, 2: 60, 5: 60, 3: 100, 6: 100, 4: 140, 7: 140, 8: 150, 9: 150, 12: 150}
    height |= {10: 220, 13: 220, 11: 290, 14: 290, **dict.fromkeys((15, 16, 17, 18, 42, 43), 15)}
    height |= dict.fromkeys(range(19, 25), 300) | {25: 290, 30: 290, 26: 220, 29: 220, 27: 150, 28: 150}
    height |= {31: 140, 36: 140, 32: 100, 35: 100, 33: 60, 34: 60, 37: 50, 38: 0, 39: 150, 40: 60, 41: 100}
    right = {2, 3, 4, 9, 10, 11, 15, 17, 22, 23, 24, 25, 26, 27, 31, 32, 33}
    left = {5, 6, 7, 12, 13, 14, 16, 18, 19, 20, 21, 28, 29, 30, 34, 35, 36}
    side = [80 if k in right else 120 if k in left else 100 for k in range(44)]
    return np.array([(side[k], height[k], 1.0) for k in range(44)], np.float32)


def shares(keypoints: np.ndarray) -> dict[tuple[float, float], int]:
    """How often of a hundred chances a square has its centre (x, y)."""
    squares = [part_of(WHOLE, keypoints, (i + 0.5) / 100) for i in range(100)]
    return dict(Counter((round(s.x), round(s.y)) for s in squares))


def test_the_parts_of_people_who_are_seen_whole() -> None:
    found = shares(standing())
    # hips 20 %, then shoulders, head, torso, arms, legs together and each leg, 10 % each. Head and shoulders have the
    # same keypoints but for the extra shoulders, so the same centre; their factors differ.
    legs = (20 + 300) / 2
    assert found == {
        (100, 75): 20,
        (100, 30): 20,
        (100, 100): 10,
        (80, 100): 10,
        (120, 100): 10,
        (100, 225): 10,
        (80, 225): 10,
        (120, 225): 10,
    }, legs
    assert part_of(WHOLE, standing(), 0.05).side == pytest.approx(1.32 * 150)
    assert part_of(WHOLE, standing(), 0.25).side == pytest.approx(1.44 * 60)
    assert part_of(WHOLE, standing(), 0.35).side == pytest.approx(1.56 * 60)


def test_the_parts_of_people_without_legs() -> None:
    keypoints = standing()
    keypoints[[10, 11, 13, 14, 25, 26, 29, 30], 2] = 0
    found = shares(keypoints)
    assert found == {(100, 30): 40, (100, 100): 20, (80, 100): 20, (120, 100): 20}


def test_others_stay_as_they_are() -> None:
    keypoints = standing()
    keypoints[[10, 26], 2] = 0  # a knee, by both conventions
    assert shares(keypoints) == {(100, 150): 100}
    keypoints[26, 2] = 1  # either is enough
    assert (100, 150) not in shares(keypoints)
    small = standing()
    small[:, :2] /= 100  # 3 px
    assert all(part_of(WHOLE, small, c) == WHOLE for c in (0.05, 0.5, 0.95))
    unsure = standing()
    unsure[:, 2] = 0.1
    assert part_of(WHOLE, unsure, 0.55) == WHOLE, "the arm's six keypoints weigh less than one"
