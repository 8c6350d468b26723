"""Why rows of a label file are bad: checks of single rows, and the reasons that they give."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.impossible_values import check_values
from skelfit.labels.label_batch import Coordinates, FloatArray

MAX_ANGLE = 10 * np.pi  # rad; an axis-angle this long is a damaged row, not a pose


class RowFaults:
    """Collects the reasons why rows are bad, with the keys of the source file."""

    def __init__(self, rows: int) -> None:
        self._reasons: list[list[str]] = [[] for _ in range(rows)]

    def report(self, where: NDArray[np.bool_], text: str, values: NDArray[np.floating] | None = None) -> None:
        """Add a reason for the rows where a mask (N,) is true; values (N,) fill the braces of the text."""
        for i in np.flatnonzero(where):
            self._reasons[i].append(text if values is None else text.format(values[i]))

    def add(self, row: int, text: str) -> None:
        """Add a reason for one row."""
        self._reasons[row].append(text)

    def texts(self) -> list[str]:
        """One text per row; '' for a good one."""
        return ["; ".join(dict.fromkeys(faults)) for faults in self._reasons]

    def check_finite(
        self, numbers: Mapping[str, NDArray[np.floating]], source_keys: Mapping[str, str]
    ) -> None:
        """Report fields with a number that is not finite; source_keys: field -> key in the file."""
        for name, key in source_keys.items():
            finite = np.isfinite(numbers[name]).all(axis=tuple(range(1, numbers[name].ndim)))
            self.report(np.logical_not(finite), f"non_finite:{key}")

    def check_body(self, numbers: Mapping[str, FloatArray], max_abs_beta: float) -> None:
        """Report impossible poses and betas."""
        with np.errstate(over="ignore", invalid="ignore"):
            angle = np.linalg.norm(numbers["pose"], axis=2).max(axis=1)
        self.report(
            np.isfinite(angle) & (angle > MAX_ANGLE), "absurd_pose: angle max {:.1f} rad > 31.4", angle
        )
        beta = np.abs(numbers["betas"]).max(axis=1)
        text = "absurd_betas: |beta| max {:.1f} > " + f"{max_abs_beta:g}"
        self.report(np.isfinite(beta) & (beta > max_abs_beta), text, beta)

    def check(
        self,
        numbers: Mapping[str, FloatArray],
        source_keys: Mapping[str, str],
        coordinates: Coordinates,
        max_abs_beta: float,
    ) -> None:
        """Report numbers that are not finite or not possible. source_keys: field -> key in the file."""
        self.check_finite(numbers, source_keys)
        self.check_body(numbers, max_abs_beta)
        check_values(numbers, source_keys, coordinates, self.report)

    def check_names(self, imgname: list[str]) -> None:
        """Report rows without the name of an image."""
        self.report(np.array([not name.strip() for name in imgname], bool), "empty_imgname")

    def check_flag(self, arrays: LabelArrays, key: str) -> None:
        """Report rows that the file itself marks as empty."""
        if key in arrays:
            flag = arrays.numbers(key, (), (1,)).reshape(-1)
            self.report(flag == 0, f"no_label: {key} is 0")
            self.report(np.logical_not(np.isfinite(flag)), f"non_finite:{key}")
