"""Mirror images of people: left and right are swapped, and rotations change their direction.

SKEL's two sides mirror each other but for the axes of the ankles, so mirrored toes are off by some millimetres. All
else is exact on bodies with symmetric shapes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.keypoint_names import MIRRORED_KEYPOINTS

MIRRORED = np.array(MIRRORED_KEYPOINTS)  # the keypoint that each one becomes
Floats = NDArray[np.float32]


def mirrored_keypoints(keypoints: Floats) -> Floats:
    """The keypoints (..., 44, n) of people mirrored at x = 0; the first column is x."""
    swapped = keypoints[..., MIRRORED, :]
    swapped[..., 0] *= -1
    return swapped
