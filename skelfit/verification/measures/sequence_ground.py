"""The ground under one sequence: floor, contacts of the feet, slip and penetration; or why they are not known.

Gravity is known in a world only. In a camera's coordinates nothing is measured: a camera may be tilted, or move.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.sole_vertices import FEET, FOOT_JOINTS, SOLE_PARTS
from skelfit.bodies.world_axes import up_axis
from skelfit.verification.measures.floor_height import FloorLevel, estimate_floor
from skelfit.verification.measures.foot_contacts import FootEvent, find_contacts, foot_events
from skelfit.verification.measures.ground_settings import GROUND_SETTINGS, GroundSettings
from skelfit.verification.measures.smoothed_points import smoothed_points

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
MEASURED, SEVERAL_LEVELS = "measured", "several_levels"
STATUSES: Mapping[str, str] = {
    MEASURED: "a level floor",
    SEVERAL_LEVELS: "soles rest at other heights, too (stairs, a slope, a seat, an estimator's drift): contacts are "
    "those with the lowest level",
    "body_below": "joints are below the level at which the soles rest: the feet are not on the floor",
    "no_rest": "soles hardly rest anywhere (a treadmill, a camera that moves, noise): no floor",
    "too_short": "less than a quarter of a second of frames",
    "rate_unknown": "neither the labels nor the fit have a frame rate, so speeds are not known",
    "gravity_unknown": "the labels are not in a world, so gravity is not known",
}


@dataclass(frozen=True)
class SoleTracks:
    """One person's soles and joints in T ascending frames, in the coordinates of the labels."""

    frames: NDArray[np.int64]  # (T,) numbers in the sequence
    soles: Array  # (T,K,3) m
    parts: tuple[slice, ...]  # (4,) of SOLE_PARTS, in the K points
    joints: Array  # (T,24,3) m, SKEL's


@dataclass(frozen=True)
class FootTracks:
    """Of each part of the soles, its lowest point over time, smoothed."""

    places: Array  # (T,4,3) m: two horizontal coordinates, then the height
    speeds: Array  # (T,4) m/s of the skin at that point; NaN where no frame is near
    slips: Array  # (T,4) m/s, the horizontal part of it


@dataclass(frozen=True)
class SequenceGround:
    """What is known of the ground under a sequence. Without a floor there are no heights and no contacts."""

    status: str  # one of STATUSES
    rate: float | None  # Hz; None: not known
    frames: NDArray[np.int64]  # (T,)
    floor: FloorLevel | None = None
    heights: Array | None = None  # (T,4) m, of the lowest point of each of SOLE_PARTS above the floor
    slips: Array | None = None  # (T,4) m/s, horizontal speed of that point
    contacts: Mask | None = None  # (T,4) whether it is on the floor
    events: tuple[FootEvent, ...] = ()
    raised_share: float | None = None  # of the frames in which soles rest, but all of them above the floor

    @property
    def feet(self) -> Mask | None:
        """(T,2) whether the right and the left foot are on the floor, with any part."""
        if self.contacts is None:
            return None
        return np.stack([self.contacts[:, list(parts)].any(1) for parts in FEET.values()], 1)

    def summary(self) -> dict[str, Any]:
        """Plain numbers; None where not known."""
        numbers = dict.fromkeys(SUMMARY)
        if self.floor is None or self.heights is None or self.contacts is None or self.slips is None:
            return {"status": self.status, **numbers}
        feet, floor = self.feet, self.floor
        assert feet is not None
        depth = np.maximum(-self.heights.min(1), 0)
        slip = self.slips[self.contacts & np.isfinite(self.slips)]
        numbers |= {
            "floor_mm": 1000 * floor.height,
            "spread_mm": 1000 * floor.spread,
            "slope_deg": floor.slope_deg,
            "raised_share": self.raised_share,
            "contact_share_r": float(feet[:, 0].mean()),
            "contact_share_l": float(feet[:, 1].mean()),
            "double_support_share": float(feet.all(1).mean()),
            "flight_share": float((~feet.any(1)).mean()),
            "strikes": sum(event.kind == "foot_strike" for event in self.events),
            "slip_mm_s": 1000 * float(slip.mean()) if len(slip) else None,
            "penetration_mm": 1000 * float(depth.mean()),
            "penetration_max_mm": 1000 * float(depth.max()),
        }
        return {"status": self.status, **{k: _rounded(v) for k, v in numbers.items()}}


SUMMARY = (
    "floor_mm", "spread_mm", "slope_deg", "raised_share", "contact_share_r", "contact_share_l",
    "double_support_share", "flight_share", "strikes", "slip_mm_s", "penetration_mm", "penetration_max_mm",
)  # fmt: skip


def _rounded(value: float | int | None) -> float | int | None:
    return round(value, 4) if isinstance(value, float) else value


def measure_ground(
    tracks: SoleTracks, rate: float | None, coordinates: str, settings: GroundSettings = GROUND_SETTINGS
) -> SequenceGround:
    """The ground under the frames of a sequence; rate: Hz, if known; coordinates: by their name in the metadata."""
    frames = tracks.frames
    up = up_axis(coordinates)
    if up is None:
        return SequenceGround("gravity_unknown", rate, frames)
    if rate is None:
        return SequenceGround("rate_unknown", rate, frames)
    if len(frames) < 3 or len(frames) / rate < settings.shortest:
        return SequenceGround("too_short", rate, frames)
    feet = foot_tracks(tracks, rate, up, settings)
    at_rest = feet.speeds <= settings.strict_speed
    floor = estimate_floor(feet.places[at_rest], settings)
    if floor is None:
        return SequenceGround("no_rest", rate, frames)
    heights = feet.places[..., 2] - floor.height
    on_floor = at_rest & (np.abs(heights) <= settings.climb)
    raised = at_rest.any(1) & ~(at_rest & (heights <= settings.climb)).any(1)
    if on_floor.any(1).mean() < settings.least_rest:
        return SequenceGround("no_rest", rate, frames)
    others = [j for j in range(tracks.joints.shape[1]) if j not in FOOT_JOINTS]
    below = (tracks.joints[:, others] @ up < floor.height).any(1)
    if below.mean() > settings.most_below:
        return SequenceGround("body_below", rate, frames)
    contacts = find_contacts(heights, feet.speeds, frames, rate, settings)
    return SequenceGround(
        status=SEVERAL_LEVELS if raised.mean() > settings.most_raised else MEASURED,
        rate=rate,
        frames=frames,
        floor=floor,
        heights=heights,
        slips=feet.slips,
        contacts=contacts,
        events=foot_events(contacts, frames, rate, settings),
        raised_share=float(raised.mean()),
    )


def foot_tracks(tracks: SoleTracks, rate: float, up: Array, settings: GroundSettings) -> FootTracks:
    """The lowest point of each part, smoothed. Where a sole rolls, that point of the skin stands still."""
    axes = np.stack([*np.eye(3)[up == 0], up])  # two that are level, then up
    shape = (len(tracks.frames), len(SOLE_PARTS))
    places, speeds, slips = np.empty((*shape, 3)), np.empty(shape), np.empty(shape)
    rows = np.arange(shape[0])
    for k, part in enumerate(tracks.parts):
        soles, velocities = smoothed_points(
            tracks.soles[:, part] @ axes.T, tracks.frames, rate, settings.smoothing, settings.least_smoothing
        )
        lowest = soles[..., 2].argmin(1)
        places[:, k] = soles[rows, lowest]
        velocity = velocities[rows, lowest]
        speeds[:, k] = np.linalg.norm(velocity, axis=-1)
        slips[:, k] = np.linalg.norm(velocity[:, :2], axis=-1)
    return FootTracks(places, speeds, slips)
