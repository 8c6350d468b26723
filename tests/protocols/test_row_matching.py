"""Predictions find their rows by row, or by image and box; never by order."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from skelfit.errors import InputError
from skelfit.protocols.published_labels import PublishedLabels
from skelfit.protocols.row_matching import PredictionKeys, RowMatches, match_rows

Centers = Sequence[tuple[float, float]] | None


def matched(
    labels: Sequence[tuple[str, float, float]],
    names: Sequence[str],
    centers: Centers = None,
    rows: Sequence[int] | None = None,
) -> RowMatches:
    """labels: image and centre of each row, in boxes of 100 px."""
    at = np.array([row[1:] for row in labels], float)
    known = PublishedLabels(
        tuple(row[0] for row in labels), at, np.full((len(labels), 2), 100.0), ("",) * len(labels)
    )
    return match_rows(
        known,
        PredictionKeys(
            "p.npz",
            names,
            None if centers is None else np.array(centers, float),
            None if rows is None else np.array(rows),
        ),
    )


TWO = [("a/1.jpg", 100, 100), ("a/1.jpg", 300, 100), ("a/2.jpg", 50, 50)]


def test_by_image_and_the_nearest_boxes() -> None:
    names = ["data/a/2.jpg", "data/a/1.jpg", "data/a/1.jpg", "data/a/9.jpg"]
    found = matched(TWO, names, [(50, 52), (310, 100), (104, 100), (0, 0)])
    assert found.prediction.tolist() == [2, 1, 0] and found.unused == 1
    assert found.status == ("", "", "")
    nearer = matched(TWO, names[1:3], [(119, 100), (101, 100)])  # both are near the first row
    assert nearer.prediction.tolist() == [1, -1, -1] and nearer.unused == 1
    assert nearer.reason[1:] == ("the image is predicted, but no box is near", "no prediction of this image")
    assert set(nearer.status[1:]) == {"no_prediction"}
    shorter = matched(
        TWO, ["1.jpg", "2.jpg"], [(300, 100), (50, 50)]
    )  # a name that is the end of the labels'
    assert shorter.prediction.tolist() == [-1, 0, 1]
    windows = matched(TWO, ["C:\\photos\\a\\2.jpg"], [(50, 50)])
    assert windows.prediction.tolist() == [-1, -1, 0]


def test_what_could_be_several() -> None:
    same = [("b/1.jpg", 100, 100), ("c/1.jpg", 100, 100)]
    assert set(matched(same, ["1.jpg"], [(100, 100)]).prediction.tolist()) == {-1}
    twins = [("a.jpg", 100, 100), ("a.jpg", 100, 100), ("a.jpg", 300, 300)]
    found = matched(twins, ["a.jpg", "a.jpg", "a.jpg"], [(100, 100), (100, 100), (300, 300)])
    assert found.prediction.tolist() == [-1, -1, 2] and found.status[:2] == ("ambiguous", "ambiguous")
    two = matched([("1.jpg", 9, 9)], ["b/1.jpg", "c/1.jpg"], [(9, 9), (500, 9)])
    assert two.status == ("ambiguous",) and "b/1.jpg, c/1.jpg" in two.reason[0]
    without = matched(TWO, ["a/1.jpg", "a/2.jpg"])
    assert without.prediction.tolist() == [-1, -1, 1]
    assert without.status[:2] == ("ambiguous", "ambiguous")


def test_by_row() -> None:
    found = matched(TWO, ["a/2.jpg", "a/1.jpg"], [(0, 0), (0, 0)], [2, 1])
    assert found.prediction.tolist() == [-1, 1, 0]
    assert found.reason[0] == "no prediction of this row"
    assert matched(TWO, ["", ""], None, [2, 1]).prediction.tolist() == [-1, 1, 0]
    for rows, names, message in (
        ([0, 3], ["", ""], "'row': expected rows of the labels, 0 to 2, found 3"),
        ([1, 1], ["", ""], "'row': expected each row once, found row 1 again"),
        (
            [2, 1],
            ["a/1.jpg", "a/1.jpg"],
            "'imgname': expected for row 2 the image of the labels, 'a/2.jpg', found",
        ),
    ):
        with pytest.raises(InputError, match=message):
            matched(TWO, names, None, rows)
