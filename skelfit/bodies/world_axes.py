"""The worlds of labels: y is up or z is up. One is the other turned by 90 degrees about x."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
UpAxis = Literal["y", "z"]

# (x, y, z) of a world with z up is (x, z, -y) of the same world with y up. Right-handed, as both are.
Y_UP_FROM_Z_UP: Array = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
_UP: dict[str, Array] = {"world_y_up": np.array([0.0, 1, 0]), "world_z_up": np.array([0.0, 0, 1])}


def up_axis(coordinates: str) -> Array | None:
    """The unit vector (3,) against gravity in labels with coordinates of this name; None: gravity is not known.

    A camera may be tilted, and the frame of a mesh may be any. docs/labels.md lists the names.
    """
    return _UP.get(coordinates)
