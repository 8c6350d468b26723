"""The ground of each sequence of a shard, as one row."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.measures.sequence_ground import measure_ground

_META = ("subset", "label_file", "sequence", "subject", "skel_gender", "coordinates")


@dataclass(frozen=True)
class GroundRow:
    """What was measured of one sequence."""

    shard: str
    about: Mapping[str, Any]  # subset, label_file, sequence, subject, skel_gender, coordinates
    frames: int  # that are published
    rate: float | None  # Hz
    rate_assumed: bool  # by the fit, because the labels do not say it
    summary: Mapping[str, Any]  # status and SUMMARY of SequenceGround

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        times = {"frames": self.frames, "frame_rate": self.rate, "rate_assumed": self.rate_assumed}
        return {"shard": self.shard, **self.about, **times, **self.summary}


def rate_of(meta: Mapping[str, Any]) -> float | None:
    """Hz of a sequence, of its labels or as the fit assumed; None: neither says it."""
    rate = meta.get("frame_rate") or meta.get("fitted_rate")
    return None if rate is None else float(rate)


def ground_rows(bodies: BodyModels, people: DecodedPeople) -> Iterator[GroundRow]:
    """A row for each sequence of a shard, by their first frames. Raises ModelError for a missing gender."""
    sequences: dict[tuple[str, ...], list[int]] = {}
    for i, meta in enumerate(people.metas):
        if meta.get("sequence") is not None and meta.get("frame") is not None:
            sequences.setdefault(tuple(str(meta.get(name)) for name in _META), []).append(i)
    fields = people.fields()
    for rows in sequences.values():
        meta = people.metas[rows[0]]
        frames = np.array([int(people.metas[i]["frame"]) for i in rows], np.int64)
        names = ("skel_betas", "skel_poses", "skel_trans")
        tracks = bodies.soles(str(meta["skel_gender"])).tracks(
            frames, *(fields[name][rows] for name in names)
        )
        rate = rate_of(meta)
        ground = measure_ground(tracks, rate, str(meta["coordinates"]))
        about = {name: meta.get(name) for name in _META}
        assumed = meta.get("frame_rate") is None
        yield GroundRow(people.shard, about, len(tracks.frames), rate, assumed, ground.summary())
