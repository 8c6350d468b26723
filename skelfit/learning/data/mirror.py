"""Mirror images of people: left and right are swapped, and rotations change their direction.

SKEL's two sides mirror each other but for the axes of the ankles, so mirrored toes are off by some millimetres. All
else is exact on bodies with symmetric shapes.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# Of the 44 keypoints: OpenPose's 25, then 19 extra; those in the middle map to themselves.
_PAIRS = (
    *((2, 5), (3, 6), (4, 7), (9, 12), (10, 13), (11, 14), (15, 16), (17, 18), (19, 22), (20, 23), (21, 24)),
    *((25, 30), (26, 29), (27, 28), (31, 36), (32, 35), (33, 34)),
)
MIRRORED = np.arange(44)  # the keypoint that each one becomes
for _one, _other in _PAIRS:
    MIRRORED[[_one, _other]] = _other, _one
Floats = NDArray[np.float32]


def mirrored_keypoints(keypoints: Floats) -> Floats:
    """The keypoints (..., 44, n) of people mirrored at x = 0; the first column is x."""
    swapped = keypoints[..., MIRRORED, :]
    swapped[..., 0] *= -1
    return swapped
