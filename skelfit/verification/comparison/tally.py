"""Sums and histograms of differences over all people, and the people who differ most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, SKEL_JOINT_NAMES
from skelfit.verification.comparison.differences import Differences, Skins
from skelfit.verification.measures.anatomy import BEYOND_DEG
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import Array, Skin32
from skelfit.verification.report.histogram import Histogram

KEPT = 12  # of those who differ most
SIDES = ("shards", "file")
JOINT_MEASURES = ("as_they_stand", "roots_together", "similarity_aligned")
SKIN_MEASURES = JOINT_MEASURES[:2]
_FINE = 0.001  # resolution of betas

Measure = tuple[str, ...]


@dataclass(frozen=True)
class ComparedPerson:
    """A person who differs between the two sides."""

    pve_mm: float  # of the skins, pelvis joints together
    key: str
    content: dict[str, Any]  # of the person in the report
    skins: tuple[Skin32, Skin32]  # (V,3) m each
    coordinates: str  # that the skins are in

    @property
    def order(self) -> tuple[float, str]:
        """Most different first; of equal ones, by key."""
        return (-self.pve_mm, self.key)


@dataclass
class Tally:
    """The differences of all people so far."""

    people: int = 0
    same_gender: int = 0  # people with the same SKEL body on both sides
    spreads: dict[Measure, Histogram] = field(default_factory=dict)
    # Numbers of people beyond a limit by more than each of BEYOND_DEG, by side and DoF; the last row is of any DoF.
    beyond: NDArray[np.int64] = field(
        default_factory=lambda: np.zeros((len(SIDES), NUM_DOFS + 1, len(BEYOND_DEG)), np.int64)
    )
    worst: tuple[ComparedPerson, ...] = ()

    def keep(self, people: Sequence[ComparedPerson]) -> None:
        """Keep the people who differ most."""
        self.worst = tuple(sorted((*self.worst, *people), key=_order)[:KEPT])

    def add(self, batches: Sequence[Differences]) -> None:
        """Add batches of people."""
        self.people += sum(map(len, batches))
        self.same_gender += sum(int(np.isfinite(d.betas[:, 0]).sum()) for d in batches)
        for name, values, step in _measures(batches):
            new = Histogram.of(values, step)
            self.spreads[name] = self.spreads[name].merge(new) if name in self.spreads else new
        for d in batches:
            excess = np.concatenate([d.excess_deg, d.excess_deg.max(2, keepdims=True)], 2)
            self.beyond += (excess[..., None] > np.array(BEYOND_DEG)).sum(0)


def _order(person: ComparedPerson) -> tuple[float, str]:
    return person.order


def _measures(batches: Sequence[Differences]) -> Iterator[tuple[Measure, Array, float]]:
    """Names, values and bin widths of the histograms."""

    def of(name: str) -> Array:
        return np.concatenate([getattr(d, name) for d in batches])

    dofs, turns, joints, skin = of("dofs_deg"), of("turns_deg"), of("joints_mm"), of("skin_mm")
    label, betas = of("to_label_mm"), np.abs(of("betas"))
    for k, dof in enumerate(DOF_NAMES):
        yield ("dof", dof), np.abs(dofs[:, k]), 0.01
        yield ("bias", dof), dofs[:, k], 0.01
    for k, joint in enumerate(SKEL_JOINT_NAMES):
        yield ("turn", joint), turns[:, k], 0.01
    yield ("turn", "largest of the body"), turns[:, 1:].max(1), 0.01
    for k, measure in enumerate(JOINT_MEASURES):
        yield ("joints", measure), joints[:, k], 0.01
    for k, measure in enumerate(SKIN_MEASURES):
        yield ("skin", measure), skin[:, k], 0.01
    for k, side in enumerate(SIDES):
        yield ("to_label", side), label[:, k], 0.01
    for k in range(betas.shape[1]):
        yield ("beta", str(k)), betas[:, k], _FINE


def most_different(
    d: Differences, skins: Skins, people: DecodedPeople, rows: NDArray[np.int64]
) -> list[ComparedPerson]:
    """The people of a batch who differ most; rows (N,) of the file."""
    keys = people.keys
    pve = np.round(d.skin_mm[:, 1], 6)
    order = np.lexsort((np.array(keys), -pve))[:KEPT]
    return [
        ComparedPerson(
            pve_mm=float(pve[i]),
            key=keys[i],
            content=_content(d, i, keys[i], int(rows[i])),
            skins=(skins[0][i].copy(), skins[1][i].copy()),
            coordinates=str(people.metas[i]["coordinates"]),
        )
        for i in order.tolist()
        if pve[i] > 0
    ]


def _content(d: Differences, i: int, key: str, row: int) -> dict[str, Any]:
    joint = 1 + int(d.turns_deg[i, 1:].argmax())

    def known(value: float) -> float | None:
        return float(value) if np.isfinite(value) else None

    return {
        "key": key,
        "file_row": row,
        "skin_mm": {name: known(d.skin_mm[i, k]) for k, name in enumerate(SKIN_MEASURES)},
        "joints_mm": {name: known(d.joints_mm[i, k]) for k, name in enumerate(JOINT_MEASURES)},
        "to_label_mm": {name: known(d.to_label_mm[i, k]) for k, name in enumerate(SIDES)},
        "root_deg": float(d.turns_deg[i, 0]),
        "turned_deg": float(d.turns_deg[i, joint]),
        "turned_joint": SKEL_JOINT_NAMES[joint],
        "beyond_deg": {name: float(d.excess_deg[i, k].max()) for k, name in enumerate(SIDES)},
        "beyond_dof": {name: DOF_NAMES[int(d.excess_deg[i, k].argmax())] for k, name in enumerate(SIDES)},
    }
