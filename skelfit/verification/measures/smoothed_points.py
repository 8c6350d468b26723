"""Positions and velocities of points in noisy frames: lines through the frames near each, weighted by a Gaussian.

The window is a time, so the same motion at another frame rate gives the same speeds. Missing frames have no weight.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def smoothed_points(
    points: Array, frames: NDArray[np.int64], rate: float, width: float, least_frames: float
) -> tuple[Array, Array]:
    """Positions (T,K,3) m and velocities (T,K,3) m/s of points (T,K,3) m in ascending frames (T,) of `rate` Hz.

    width: the Gaussian's deviation in s, but at least `least_frames` frames. Velocities are NaN where no frame is near.
    """
    deviation = max(width * rate, least_frames)
    reach = int(np.ceil(3 * deviation))
    middle = points.mean(0)
    near = points - middle
    sums = np.zeros((3, len(frames)))  # of weights, times the step, times its square
    values, moments = np.zeros_like(near), np.zeros_like(near)
    for step in range(-reach, reach + 1):
        rows = np.searchsorted(frames, frames + step).clip(max=len(frames) - 1)
        weights = np.exp(-0.5 * (step / deviation) ** 2) * (frames[rows] == frames + step)
        sums += weights * np.array([[1.0], [step], [step**2]])
        weighted = weights[:, None, None] * near[rows]
        values += weighted
        moments += step * weighted
    count, first, second = (row[:, None, None] for row in sums)
    spread = count * second - first**2  # 0 where there is one frame
    alone = spread < 1e-9
    safe = np.where(alone, 1.0, spread)
    positions = np.where(alone, near, (second * values - first * moments) / safe)
    velocities = np.where(alone, np.nan, rate * (count * moments - first * values) / safe)
    return positions + middle, velocities
