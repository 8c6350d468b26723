"""The people of a page as they are in the shards that a report compares with: before a refinement, mostly."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import ModelError
from skelfit.shards.label_vector import pack
from skelfit.storage.locations import Location
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.person_measures import measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.gallery import StoredPerson, read_samples_of
from skelfit.verification.report.worst_people import person_to_json

_PARAMETERS = ("skel_poses", "skel_betas", "skel_trans")


def other_people(
    people: Iterable[Mapping[str, Any]], folders: Sequence[Location], against: Location | None
) -> dict[str, StoredPerson]:
    """By key, the people of a report as they are in other shards; those with the same parameters are left out.

    Who is not there, is not in the result. people: as the report has them; folders: of its shards.
    """
    if against is None or any(str(folder) == str(against) for folder in folders):
        return {}
    shown = {person["key"]: person for person in people}
    wanted = [(against / f"{person['shard']}.tar", key) for key, person in shown.items()]
    found = read_samples_of([(tar, key) for tar, key in wanted if tar.exists()], lambda *_: None)
    return {key: sample for key, sample in found.items() if _differs(sample, shown[key]["parameters"])}


def tar_of(folders: Sequence[Location], shard: str) -> Location:
    """The tar of a shard, in the first folder that has it."""
    paths = [folder / f"{shard}.tar" for folder in folders]
    return next((path for path in paths if path.exists()), paths[0])


def _differs(sample: StoredPerson, parameters: Mapping[str, Any]) -> bool:
    """Whether a person has other parameters than the report says, which has six decimals of them."""
    return not all(
        np.allclose(sample.fields[name], parameters[name], rtol=0, atol=1e-6) for name in _PARAMETERS
    )


def figures_of(people: Mapping[str, StoredPerson], models: ModelSet) -> dict[str, dict[str, Any]]:
    """The measures of some people, as a report has them, by key. None where the models lack a body of theirs."""
    if not people:
        return {}
    keys, samples = tuple(people), list(people.values())
    labels = pack({name: np.stack([s.fields[name] for s in samples]) for name in samples[0].fields})
    decoded = DecodedPeople("", keys, labels, tuple(sample.meta for sample in samples))
    try:
        metrics = measure(BodyModels(models), decoded)
    except ModelError:
        return {}
    return {key: person_to_json(metrics, i) for i, key in enumerate(keys)}
