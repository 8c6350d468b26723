"""When the parts of the soles are on the floor, and the events of the feet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.sole_vertices import FEET, SOLE_PARTS
from skelfit.verification.measures.ground_settings import GroundSettings

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
STRIKE, OFF = "foot_strike", "foot_off"  # C3D's names: Foot Strike, Foot Off


@dataclass(frozen=True)
class FootEvent:
    """A foot meets the floor (heel strike, where the heel is first), or leaves it (toe off)."""

    time: float  # s, of the first frame on the floor, or of the first one off it
    frame: int
    side: Literal["right", "left"]
    kind: str  # STRIKE or OFF
    part: str  # heel, forefoot or both: which was first on the floor, or last


def pieces_of(frames: NDArray[np.int64], rate: float, settings: GroundSettings) -> list[slice]:
    """The rows of frames (T,) in pieces between which too much time has no frames."""
    breaks = np.flatnonzero(np.diff(frames) / rate > max(settings.longest_gap, 1.5 / rate)) + 1
    ends = [0, *breaks.tolist(), len(frames)]
    return [slice(start, stop) for start, stop in zip(ends, ends[1:], strict=False)]


def find_contacts(
    heights: Array, speeds: Array, frames: NDArray[np.int64], rate: float, settings: GroundSettings
) -> Mask:
    """Whether each of P parts is on the floor, (T,P): from heights above it (T,P) m and speeds (T,P) m/s."""
    loose = (heights <= settings.loose_height) & (speeds <= settings.loose_speed)
    strict = (heights <= settings.strict_height) & (speeds <= settings.strict_speed)
    contacts = np.zeros_like(loose)
    for piece in pieces_of(frames, rate, settings):
        for part in range(loose.shape[1]):
            contacts[piece, part] = _one_part(
                loose[piece, part], strict[piece, part], frames[piece], rate, settings
            )
    return contacts


def _one_part(
    loose: Mask, strict: Mask, frames: NDArray[np.int64], rate: float, settings: GroundSettings
) -> Mask:
    """The contacts (T,) of a part in one piece. Those at its ends may be short: the rest of them was not seen."""
    contact = np.zeros_like(loose)
    for start, stop in _runs(loose):
        if strict[start:stop].any():
            contact[start:stop] = True
    for start, stop in _runs(~contact):
        within = start > 0 and stop < len(contact)
        if within and (frames[stop] - frames[start - 1]) / rate <= settings.least_flight:
            contact[start:stop] = True
    for start, stop in _runs(contact):
        within = start > 0 and stop < len(contact)
        if within and (frames[stop - 1] - frames[start] + 1) / rate < settings.least_contact:
            contact[start:stop] = False
    return contact


def _runs(mask: Mask) -> list[tuple[int, int]]:
    """Where runs of true values (T,) start, and where they have ended."""
    edges = np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8))
    return list(zip(np.flatnonzero(edges == 1).tolist(), np.flatnonzero(edges == -1).tolist(), strict=True))


def foot_events(
    contacts: Mask, frames: NDArray[np.int64], rate: float, settings: GroundSettings
) -> tuple[FootEvent, ...]:
    """The events of both feet in the order of time, from contacts (T,4) of SOLE_PARTS in frames (T,).

    A contact that has begun before the first frame of a piece has no strike, and one that goes on after its last none
    off the floor: they were not seen.
    """
    found: list[FootEvent] = []
    for piece in pieces_of(frames, rate, settings):
        for letter, columns in FEET.items():
            found += _events_of(contacts[piece, list(columns)], frames[piece], rate, letter, columns)
    return tuple(sorted(found, key=lambda event: (event.frame, event.side, event.kind)))


def _events_of(
    contacts: Mask, frames: NDArray[np.int64], rate: float, letter: str, columns: tuple[int, ...]
) -> Iterator[FootEvent]:
    names = [SOLE_PARTS[column].split("_")[0] for column in columns]
    side: Literal["right", "left"] = "right" if letter == "r" else "left"

    def part(row: int) -> str:
        touching = [name for name, on in zip(names, contacts[row], strict=True) if on]
        return "both" if len(touching) > 1 else touching[0]

    for start, stop in _runs(np.asarray(contacts.any(1))):
        if start > 0:
            yield FootEvent(float(frames[start] / rate), int(frames[start]), side, STRIKE, part(start))
        if stop < len(frames):
            yield FootEvent(float(frames[stop] / rate), int(frames[stop]), side, OFF, part(stop - 1))
