"""Who is who in the frames of a sequence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from skelfit.learning.inference.person_tracks import Tracker, overlaps
from skelfit.learning.inference.photo_results import OK, BoxResult, Moment, PhotoFile, PhotoResult


def frame(number: int, *boxes: tuple[float, ...], sequence: str = "clip", status: str = OK) -> PhotoResult:
    """A frame of 10 Hz with boxes of x, y, width, height."""
    moment = Moment(sequence, number, number / 10)
    results = tuple(BoxResult("a", i, status, box=box, moment=moment) for i, box in enumerate(boxes))
    return PhotoResult(PhotoFile(Path("a"), "a", moment), results)


def tracks(*frames: PhotoResult) -> list[list[int | None]]:
    follow = Tracker()
    return [[box.track for box in follow(each).boxes] for each in frames]


def test_people_keep_their_number_in_any_order() -> None:
    left, right = (
        [(10.0 + 4 * i, 10, 50, 100) for i in range(4)],
        [(200.0 - 4 * i, 12, 50, 100) for i in range(4)],
    )
    found = tracks(
        frame(0, left[0], right[0]),
        frame(1, right[1], left[1]),
        frame(2, left[2]),
        frame(3, right[3], left[3]),
    )
    assert found == [[0, 1], [1, 0], [0], [1, 0]]


def test_the_best_assignment_of_all_counts() -> None:
    """The first box overlaps most with the person that the second box needs."""
    found = tracks(
        frame(0, (0, 0, 100, 100), (60, 0, 100, 100)), frame(1, (40, 0, 100, 100), (70, 0, 100, 100))
    )
    assert found == [[0, 1], [0, 1]]


def test_people_who_come_and_go() -> None:
    box, far = (0.0, 0, 50, 100), (500.0, 0, 50, 100)
    assert tracks(frame(0, box), frame(1, far), frame(2, far, box)) == [[0], [1], [1, 0]]
    assert tracks(frame(0, box), frame(11, box)) == [[0], [1]]  # more than a second later
    assert tracks(frame(0, box), frame(1, box, sequence="other")) == [[0], [0]]
    assert tracks(frame(0, box), frame(1, box, status="low_score"), frame(2, box)) == [[0], [None], [0]]
    photo = PhotoResult(PhotoFile(Path("a"), "a"), (BoxResult("a", 0, OK, box=box),))
    assert tracks(photo) == [[None]]


def test_overlaps() -> None:
    boxes = np.array([[0.0, 0, 2, 2], [1, 1, 2, 2]])
    assert overlaps(boxes, boxes).tolist() == [[1, pytest.approx(1 / 7)], [pytest.approx(1 / 7), 1]]
    assert overlaps(boxes[:1], boxes[:1] + [5, 0, 0, 0]).tolist() == [[0]]
