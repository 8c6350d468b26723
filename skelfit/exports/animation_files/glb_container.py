"""The container of glTF 2.0 in one file (.glb): a JSON text, and one buffer of numbers that it refers to.

Source: Khronos, glTF 2.0 Specification, 4.4 (GLB) and 3.6 (accessors).
"""

from __future__ import annotations

import json
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

_COMPONENTS = {np.dtype("f4"): 5126, np.dtype("u1"): 5121, np.dtype("u4"): 5125}
_TYPES: dict[tuple[int, ...], str] = {(): "SCALAR", (3,): "VEC3", (4,): "VEC4", (4, 4): "MAT4"}
VERTICES, INDICES = 34962, 34963  # the targets of buffer views


class GlbBuffer:
    """The numbers of a file, and the JSON that says where they lie."""

    def __init__(self) -> None:
        self._data = bytearray()
        self.views: list[dict[str, Any]] = []
        self.accessors: list[dict[str, Any]] = []

    def add(self, array: NDArray[Any], target: int | None = None, bounds: bool = False) -> int:
        """Store float32, uint8 or uint32 (N, ...) of one of glTF's types; returns the index of its accessor.

        `bounds` writes minimum and maximum, which positions and times must have.
        """
        start = len(self._data)
        self._data += np.ascontiguousarray(array, array.dtype.newbyteorder("<")).tobytes()
        view: dict[str, Any] = {"buffer": 0, "byteOffset": start, "byteLength": array.nbytes}
        self.views.append(view | ({} if target is None else {"target": target}))
        self._data += b"\0" * (-len(self._data) % 4)
        accessor: dict[str, Any] = {
            "bufferView": len(self.views) - 1,
            "componentType": _COMPONENTS[array.dtype],
            "count": len(array),
            "type": _TYPES[array.shape[1:]],
        }
        if bounds:
            accessor |= {
                "min": np.atleast_1d(array.min(0)).tolist(),
                "max": np.atleast_1d(array.max(0)).tolist(),
            }
        self.accessors.append(accessor)
        return len(self.accessors) - 1

    def glb(self, document: dict[str, Any]) -> bytes:
        """The file: a document with this buffer."""
        parts = {"buffers": [{"byteLength": len(self._data)}], "bufferViews": self.views}
        text = json.dumps(document | parts | {"accessors": self.accessors}, separators=(",", ":")).encode()
        text += b" " * (-len(text) % 4)
        length = 12 + 8 + len(text) + 8 + len(self._data)
        return b"".join(
            (
                struct.pack("<4sII", b"glTF", 2, length),
                struct.pack("<I4s", len(text), b"JSON"),
                text,
                struct.pack("<I4s", len(self._data), b"BIN\0"),
                bytes(self._data),
            )
        )
