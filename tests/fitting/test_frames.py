"""Which rows are frames of a sequence."""

from __future__ import annotations

import numpy as np
import pytest

from skelfit.fitting.sequences.frame_index import FrameIndex


def test_sequences_are_their_rows_in_order() -> None:
    frames = FrameIndex(np.array([7, -1, 2, 7, 2, 7]), np.array([0.0, np.nan, 3.0, 0.5, 3.1, 2.0]))
    assert [rows.tolist() for rows in frames.sequences()] == [[2, 4], [0, 3, 5]]


@pytest.mark.parametrize(
    ("sequence", "time", "said"),
    [
        ([0, 0], [1.0, 1.0], "sequence 0: expected finite times that rise, found 1.0 s in row 1"),
        ([-1, 4], [0.0, np.nan], "sequence 4: expected finite times that rise, found nan s in row 1"),
        ([0, 0], [0.0], r"expected sequence \(N,\) and time \(N,\), found \(2,\) and \(1,\)"),
    ],
)
def test_times_rise(sequence: list[int], time: list[float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        FrameIndex(np.array(sequence), np.array(time))


def test_no_rows_are_no_sequences() -> None:
    assert FrameIndex(np.zeros(0, np.int64), np.zeros(0)).sequences() == []
