"""Arrays as text in a page: differences of whole numbers, compressed together."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Positions are kept to 0.1 mm; 16 bits reach 3.2 m from the middle of a person.
UNIT_M = 1e-4
_REACH = 32_767


class ArrayPack:
    """Gathers arrays of 16-bit numbers. `add` returns the location of an array in `text`."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0

    def add(self, numbers: NDArray[Any]) -> dict[str, int]:
        """Add an array (N, C) whose values fit into 16 bits, signed or not; returns its location.

        Stored by column as differences of neighbouring rows, all low bytes before all high bytes: this compresses
        well.
        """
        values = np.asarray(numbers).astype("<u2", casting="unsafe").T
        steps = np.diff(values, axis=1, prepend=values.dtype.type(0))
        content = steps.astype("<u2").reshape(-1, 1).view(np.uint8).T.tobytes()
        location = {"at": self._size, "rows": values.shape[1], "columns": values.shape[0]}
        self._parts.append(content)
        self._size += len(content)
        return location

    def add_points(self, points_m: NDArray[Any], like: NDArray[Any] | None = None) -> dict[str, int]:
        """Add points (V,3) m in units of UNIT_M; with `like` as differences from those points (V,3) m."""
        numbers = to_units(points_m) - (0 if like is None else to_units(like))
        return self.add(numbers)

    def text(self) -> str:
        """All arrays, in base64."""
        return base64.b64encode(zlib.compress(b"".join(self._parts), 9)).decode()


def to_units(points_m: NDArray[Any]) -> NDArray[np.int32]:
    """Points in whole units of UNIT_M, clipped to 16 bits."""
    finite = np.nan_to_num(np.asarray(points_m) / UNIT_M, posinf=_REACH, neginf=-_REACH)
    return np.clip(np.rint(finite), -_REACH, _REACH).astype(np.int32)
