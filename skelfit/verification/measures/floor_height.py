"""Where the floor is: the lowest level at which soles rest for a while."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.verification.measures.ground_settings import GroundSettings

Array = NDArray[np.float64]


@dataclass(frozen=True)
class FloorLevel:
    """A level floor, in the world of the labels."""

    height: float  # m, along the axis that is up
    spread: float  # m, from the 5th to the 95th percentile of soles at rest within `climb` of it
    slope_deg: (
        float | None
    )  # of the plane through all soles at rest; None: they rest in too small a place to tell


def estimate_floor(resting: Array, settings: GroundSettings) -> FloorLevel | None:
    """The floor under soles that rest at places (N,3) m, whose last coordinate is the height. None: there are none.

    Of the levels that have a fair share of the places, the lowest one is the floor: feet stand on a chair or hang from
    it, but nothing rests below a floor. The height is the median of the places at that level.
    """
    if len(resting) == 0:
        return None
    heights = np.sort(resting[:, 2])
    # Of each place, as the bottom of a level: how many places the level has.
    counts = np.searchsorted(heights, heights + 2 * settings.level, "right") - np.arange(len(heights))
    lowest = int(np.argmax(counts >= settings.level_share * len(heights)))
    rivals = slice(lowest, int(np.searchsorted(heights, heights[lowest] + settings.climb, "right")))
    bottom = heights[lowest + int(np.argmax(counts[rivals]))]
    at_level = heights[(heights >= bottom) & (heights <= bottom + 2 * settings.level)]
    height = float(np.median(at_level))
    near = heights[np.abs(heights - height) <= settings.climb]
    low, high = np.percentile(near, [5, 95])
    return FloorLevel(height, float(high - low), _slope(resting, settings.slope_reach))


def _slope(resting: Array, reach: float) -> float | None:
    """The slope in degrees of the plane nearest to places (N,3) m, along directions in which they extend `reach` m.

    None where they extend less in every direction.
    """
    if len(resting) < 3:
        return None
    centred = resting - resting.mean(0)
    directions = np.linalg.svd(centred[:, :2], full_matrices=False)[2]
    along = centred[:, :2] @ directions.T
    along = along[:, np.ptp(along, axis=0) >= reach]
    if along.shape[1] == 0:
        return None
    gradient, *_ = np.linalg.lstsq(along, centred[:, 2], rcond=None)
    return float(np.degrees(np.arctan(np.linalg.norm(gradient))))
