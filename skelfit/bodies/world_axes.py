"""The worlds of labels: y is up or z is up. One is the other turned by 90 degrees about x."""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
UpAxis = Literal["y", "z"]

# (x, y, z) of a world with z up is (x, z, -y) of the same world with y up. Right-handed, as both are.
Y_UP_FROM_Z_UP: Array = np.array([[1.0, 0, 0], [0, 0, 1], [0, -1, 0]])
