"""All measures of people, from their stored parameters and the body models alone."""

from __future__ import annotations

from dataclasses import dataclass

from skelfit.verification.measures.accuracy import Accuracy, measure_accuracy
from skelfit.verification.measures.anatomy import Anatomy, measure_anatomy
from skelfit.verification.measures.bone_protrusion import BoneProtrusion, measure_bones
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.measures.reprojection import Reprojection, measure_reprojection

BATCH = 128  # people measured at once
BONES_EVERY = 16  # bones are measured for one person in so many


@dataclass(frozen=True)
class PersonMetrics:
    """The measures of N people; arrays have N rows."""

    people: DecodedPeople
    accuracy: Accuracy
    reprojection: Reprojection
    anatomy: Anatomy
    bones: BoneProtrusion


def measure(bodies: BodyModels, people: DecodedPeople, *, bones_every: int = BONES_EVERY) -> PersonMetrics:
    """Measure N people. Raises ModelError when the models lack a gender."""
    groups = bodies.pose(people)
    return PersonMetrics(
        people=people,
        accuracy=measure_accuracy(bodies, people, groups),
        reprojection=measure_reprojection(bodies, people, groups),
        anatomy=measure_anatomy(bodies, people, groups),
        bones=measure_bones(bodies, people, groups, bones_every),
    )
