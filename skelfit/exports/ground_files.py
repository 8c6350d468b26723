"""What is known of the ground under an exported motion, as tables and as plain data."""

from __future__ import annotations

import csv
import io
from typing import Any

import numpy as np

from skelfit.bodies.sole_vertices import FEET, SOLE_PARTS
from skelfit.exports.exported_bodies import Array
from skelfit.verification.measures.foot_contacts import Mask, pieces_of
from skelfit.verification.measures.ground_settings import GROUND_SETTINGS
from skelfit.verification.measures.sequence_ground import STATUSES, SequenceGround

CONTACT_COLUMNS = (
    "time", "frame", *(f"foot_{side}" for side in FEET), *SOLE_PARTS, *(f"{part}_height_mm" for part in SOLE_PARTS),
    *(f"{part}_slip_mm_s" for part in SOLE_PARTS),
)  # fmt: skip
EVENT_COLUMNS = ("time", "frame", "side", "event", "part")


def contacts_text(ground: SequenceGround) -> str:
    """A line for each frame, as CSV: what is on the floor (1 or 0), how high its lowest point is, how fast it slips.

    Raises ValueError where no floor is known.
    """
    if ground.rate is None or ground.feet is None or ground.contacts is None:
        raise ValueError(f"expected contacts, found {ground.status}")
    assert ground.heights is not None and ground.slips is not None
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(CONTACT_COLUMNS)
    numbers: list[Array] = [ground.heights, ground.slips]
    for k, frame in enumerate(ground.frames.tolist()):
        on = [int(value) for mask in (ground.feet, ground.contacts) for value in mask[k]]
        millimetres = [
            f"{1000 * value:.1f}" if np.isfinite(value) else "" for part in numbers for value in part[k]
        ]
        lines.writerow([f"{frame / ground.rate:.8f}", frame, *on, *millimetres])
    return stream.getvalue()


def events_text(ground: SequenceGround) -> str:
    """A line for each event of a foot, as CSV."""
    stream = io.StringIO()
    lines = csv.writer(stream, lineterminator="\n")
    lines.writerow(EVENT_COLUMNS)
    for event in ground.events:
        lines.writerow([f"{event.time:.8f}", event.frame, event.side, event.kind, event.part])
    return stream.getvalue()


def ground_facts(ground: SequenceGround) -> dict[str, Any]:
    """Status, floor in m, events and contacts of feet in seconds from the first frame: for the extras of a file."""
    facts: dict[str, Any] = {"status": ground.status, "meaning": STATUSES[ground.status]}
    if ground.floor is None or ground.rate is None or ground.feet is None:
        return facts
    start = float(ground.frames[0] / ground.rate)
    events = [
        {"time": round(event.time - start, 6), "side": event.side, "event": event.kind, "part": event.part}
        for event in ground.events
    ]
    contacts = {side: _spans(ground, ground.feet[:, k]) for k, side in enumerate(("right", "left"))}
    return facts | {"floor_m": round(ground.floor.height, 5), "contacts_s": contacts, "events": events}


def _spans(ground: SequenceGround, on: Mask) -> list[list[float]]:
    """First and last time of each contact (T,) in s, from the first frame."""
    assert ground.rate is not None
    times, spans = (ground.frames - ground.frames[0]) / ground.rate, list[list[float]]()
    for piece in pieces_of(ground.frames, ground.rate, GROUND_SETTINGS):
        rows = np.flatnonzero(on[piece]) + piece.start
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            if len(run):
                spans.append([round(float(times[run[0]]), 6), round(float(times[run[-1]]), 6)])
    return spans
