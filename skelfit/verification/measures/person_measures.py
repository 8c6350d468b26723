"""Everything that is measured of people, from their stored parameters and the body models alone."""

from __future__ import annotations

from dataclasses import dataclass

from skelfit.verification.measures.accuracy import Accuracy, measure_accuracy
from skelfit.verification.measures.anatomy import Anatomy, measure_anatomy
from skelfit.verification.measures.bone_protrusion import Bones, measure_bones
from skelfit.verification.measures.decoded_samples import People
from skelfit.verification.measures.remade_bodies import Bodies
from skelfit.verification.measures.reprojection import Reprojection, measure_reprojection

BATCH = 128  # people that are measured at once
BONES_EVERY = 16  # bones are looked at for one person in so many


@dataclass(frozen=True)
class PersonMetrics:
    """What was measured of N people; arrays have N rows."""

    people: People
    accuracy: Accuracy
    reprojection: Reprojection
    anatomy: Anatomy
    bones: Bones


def measure(bodies: Bodies, people: People, *, bones_every: int = BONES_EVERY) -> PersonMetrics:
    """Measure N people, of whom every label is finite. Raises ModelError when the models lack a gender."""
    groups = bodies.pose(people)
    return PersonMetrics(
        people=people,
        accuracy=measure_accuracy(bodies, people, groups),
        reprojection=measure_reprojection(bodies, people, groups),
        anatomy=measure_anatomy(bodies, people, groups),
        bones=measure_bones(bodies, people, groups, bones_every),
    )
