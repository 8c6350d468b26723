"""Named gates: rules that drop people whose measure is beyond a limit."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import InputError
from skelfit.shards.keep_list import Kept
from skelfit.storage.checked_arguments import texts_of
from skelfit.verification.measures.person_measures import PersonMetrics

Measure = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Gate:
    """Drops people whose measure is beyond the limit. People without the measure (NaN) are kept."""

    meaning: str
    limit: float
    unit: str
    measure: Callable[[PersonMetrics], Measure]  # (N,)
    at_least: bool = False  # the limit is the smallest value that is kept, not the largest

    def beyond(self, values: Measure, limit: float) -> NDArray[np.bool_]:
        """Which people (N,) are dropped."""
        dropped: NDArray[np.bool_] = values < limit if self.at_least else values > limit
        return dropped

    def reason(self, name: str, value: float, limit: float) -> str:
        """The reason in a keep-list."""
        return f"{name} {value:.4g} {'<' if self.at_least else '>'} {limit:g}"


def _keypoints(metrics: PersonMetrics) -> Measure:
    return (metrics.people.fields()["gtkps"][..., 2] > 0).sum(1).astype(float)


GATES: Mapping[str, Gate] = {
    "max_vertex": Gate("largest vertex error (HSMR's rule)", 60.0, "mm", lambda m: m.accuracy.max_vertex_mm),
    "pve": Gate("mean vertex error", 30.0, "mm", lambda m: m.accuracy.pve_mm),
    "limits": Gate("furthest angle beyond its limit", 20.0, "deg", lambda m: m.anatomy.excess_deg.max(1)),
    "knees_elbows": Gate(
        "knee or elbow beyond its range", 10.0, "deg", lambda m: m.anatomy.skel_hinges_deg.max(1)
    ),
    "swapped": Gate("left and right exchanged (1: yes)", 0.5, "", lambda m: m.anatomy.swapped.astype(float)),
    "betas": Gate(
        "largest |beta| of the SMPL label", 3.0, "", lambda m: np.abs(m.people.fields()["smpl_betas"]).max(1)
    ),
    "keypoints": Gate("2D keypoints given", 5.0, "", _keypoints, at_least=True),
    "reprojection": Gate(
        "distance to the given 2D keypoints, of the box side", 0.1, "", lambda m: m.reprojection.share[:, 1]
    ),
}
DAMAGED = "damaged"  # the reason for people who are dropped whatever the gates are
DEFAULT_GATES: Mapping[str, float] = {"max_vertex": GATES["max_vertex"].limit}


def parse_gates(texts: str | Sequence[str]) -> dict[str, float]:
    """Limits by name, from texts NAME or NAME=LIMIT; without texts the default gates. Raises InputError."""
    limits: dict[str, float] = {}
    for text in texts_of("gate", texts):
        name, equals, limit = text.partition("=")
        if name not in GATES:
            raise InputError("--gate", name, f"one of {', '.join(GATES)}", text)
        try:
            limits[name] = float(limit) if equals else GATES[name].limit
        except ValueError:
            raise InputError("--gate", name, "a number behind '='", limit) from None
    return limits or dict(DEFAULT_GATES)


def apply_gates(metrics: PersonMetrics, limits: Mapping[str, float]) -> list[Kept]:
    """For each person, in order: kept, or dropped and the reasons."""
    reasons: list[list[str]] = [[] for _ in metrics.people.keys]
    for name, limit in limits.items():
        gate = GATES[name]
        values = gate.measure(metrics)
        for i in np.flatnonzero(gate.beyond(values, limit)):
            reasons[i].append(gate.reason(name, float(values[i]), limit))
    people = metrics.people
    return [Kept(key, people.shard, tuple(texts)) for key, texts in zip(people.keys, reasons, strict=True)]


@dataclass(frozen=True)
class KeepCounts:
    """How many people were kept and dropped, by gate. A person may be dropped by several."""

    kept: int = 0
    dropped: int = 0
    by_gate: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, people: Sequence[Kept]) -> KeepCounts:
        """The counts of the people of a shard."""
        by_gate = Counter(reason.split(" ", 1)[0] for person in people for reason in person.reasons)
        kept = sum(person.keep for person in people)
        return cls(kept, len(people) - kept, by_gate)

    def merge(self, other: KeepCounts) -> KeepCounts:
        """The counts of the people of both."""
        return KeepCounts(self.kept + other.kept, self.dropped + other.dropped, self.by_gate + other.by_gate)

    def to_json(self, limits: Mapping[str, float]) -> dict[str, Any]:
        """Plain data for the report; limits: of the gates that were applied."""
        gates = {
            name: {
                "limit": limit,
                "unit": GATES[name].unit,
                "meaning": GATES[name].meaning,
                "dropped": self.by_gate[name],
            }
            for name, limit in limits.items()
        }
        counts = {"kept": self.kept, "dropped": self.dropped, "gates": gates}
        return {**counts, DAMAGED: self.by_gate[DAMAGED]}
