"""One shard from its files to its part of the report. Knows nothing of Dask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.model_set import load_models, open_models
from skelfit.errors import ModelError
from skelfit.shards.keep_list import Kept
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import read_marker
from skelfit.shards.shard_schema import ShardMarker
from skelfit.storage.locations import Location, location_of
from skelfit.verification.gates import DAMAGED, KeepCounts, apply_gates
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.run_folder import RunFolder
from skelfit.verification.integrity.shard_check import ShardCheck, check_shard
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.ground_rows import GroundRow, ground_rows
from skelfit.verification.measures.person_measures import BATCH, PersonMetrics, measure
from skelfit.verification.measures.posed_bodies import BodyModels
from skelfit.verification.report.aggregate import Aggregate

SAME_MM = 0.05  # the stored errors are those of a fit in float32


@dataclass(frozen=True)
class Sampling:
    """Which people are measured: `wanted` of `total`, evenly spread; None: all."""

    wanted: int | None
    total: int

    @property
    def whole(self) -> bool:
        """Whether all people are measured."""
        return self.wanted is None or self.wanted >= self.total

    def mask(self, first: int, people: int) -> NDArray[np.bool_]:
        """A mask (people,) of those measured, for consecutive people, the first of which has number `first`."""
        number = np.arange(first, first + people + 1, dtype=np.int64)
        if self.wanted is None or self.whole:
            return np.ones(people, bool)
        steps = number * self.wanted // self.total
        return steps[1:] > steps[:-1]


@dataclass(frozen=True)
class VerifyTask:
    """One shard to verify: names and numbers, no arrays."""

    folder: str
    shard: str
    models: str | None  # folder; None is the open body
    models_sha256: str
    sampling: Sampling
    first: int  # number of its first person: how many people the shards before it have, by their markers
    limits: Mapping[str, float]  # of the gates, by name
    keep: bool  # whether the report holds, for each person, whether the person is kept
    ground: bool  # whether the ground is measured: in all frames, because contacts need their neighbours

    @property
    def name(self) -> str:
        """The folder and the shard."""
        return f"{self.folder}/{self.shard}"


@dataclass(frozen=True)
class ShardReport:
    """The results of one shard."""

    name: str  # of its task
    folder: str
    check: ShardCheck
    measured: int
    aggregate: Aggregate
    counts: KeepCounts
    keep: tuple[Kept, ...]
    ground: tuple[GroundRow, ...] | None  # of each sequence; None: not measured


def plan_verify(
    runs: Sequence[RunFolder],
    models: str | None,
    models_sha256: str,
    sample: int | None,
    limits: Mapping[str, float],
    keep: bool,
    ground: bool,
) -> list[VerifyTask]:
    """One task for each shard of the runs, in order. The ground is measured, too, where all people are."""
    shards = [files for run in runs for files in run.shards]
    sizes = [_people_count(files) for files in shards]
    sampling, firsts = Sampling(sample, sum(sizes)), accumulate([0, *sizes])
    ground = ground or sampling.whole
    return [
        VerifyTask(
            str(files.folder), files.name, models, models_sha256, sampling, first, limits, keep, ground
        )
        for files, first in zip(shards, firsts, strict=False)
    ]


def _people_count(files: ShardFiles) -> int:
    try:
        count = read_marker(files).rows_out
        return count if isinstance(count, int) else 0
    except ShardError:
        return 0


def verify_shard(task: VerifyTask) -> ShardReport:
    """Check a shard, and measure its people. Raises ModelError when the models are not those of the task."""
    check, people = check_shard(ShardFiles(location_of(task.folder), task.shard))
    measured = people.select(task.sampling.mask(task.first, len(people)))
    measures = task.sampling.wanted != 0 and _same_models(check.marker, task)
    if not measures:
        measured = people.select(np.zeros(len(people), bool))
    aggregate, verdicts, damage = Aggregate(), list[Kept](), list(check.damage)
    for metrics in _metrics(task, measured):
        aggregate = aggregate.merge(Aggregate.of(metrics))
        verdicts += apply_gates(metrics, task.limits)
        damage += wrong_errors(metrics, location_of(task.folder) / f"{task.shard}.tar")
    ground = None
    if task.ground and measures:
        ground = tuple(ground_rows(_bodies(task.models, task.models_sha256), people))
    verdicts = _drop_damaged(verdicts, damage, task.shard)
    return ShardReport(
        name=task.name,
        folder=task.folder,
        check=replace(check, damage=tuple(damage)),
        measured=len(measured),
        aggregate=aggregate.closed(),
        counts=KeepCounts.of(verdicts),
        keep=tuple(verdicts) if task.keep else (),
        ground=ground,
    )


def _drop_damaged(verdicts: Sequence[Kept], damage: Iterable[Damage], shard: str) -> list[Kept]:
    """The verdicts, with all damaged people dropped: their numbers mean nothing."""
    damaged = dict.fromkeys(d.sample for d in damage if d.sample is not None)
    whole = [person for person in verdicts if person.key not in damaged]
    return sorted([*whole, *(Kept(key, shard, (DAMAGED,)) for key in damaged)], key=lambda person: person.key)


def _same_models(marker: ShardMarker | None, task: VerifyTask) -> bool:
    """Whether the models are those of the run. With others, errors cannot be computed again."""
    return marker is None or marker.identity.get("models_sha256") == task.models_sha256


def _metrics(task: VerifyTask, people: DecodedPeople) -> Iterable[PersonMetrics]:
    """The metrics of a shard's people, in batches."""
    for start in range(0, len(people), BATCH):
        mask = np.zeros(len(people), bool)
        mask[start : start + BATCH] = True
        yield measure(_bodies(task.models, task.models_sha256), people.select(mask))


@lru_cache(maxsize=1)
def _bodies(folder: str | None, sha256: str) -> BodyModels:
    """The body models, loaded once in a process."""
    models = open_models() if folder is None else load_models(folder)
    if models.sha256 != sha256:
        raise ModelError(models.source, "sha256", f"the models of the command, {sha256}", models.sha256)
    return BodyModels(models)


def _rounding_mm(*translations: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far rounding translations (N,3) m to float32 may move a body, (N,) mm: 0.001 at 5 m, 0.1 at 1 km."""
    half = sum(np.spacing(np.abs(x)).astype(np.float64) for x in translations) / 2
    return 1000 * np.asarray(np.linalg.norm(half, axis=-1))


def wrong_errors(metrics: PersonMetrics, path: Location) -> list[Damage]:
    """People whose stored errors are not those of their stored parameters: one of the two was changed."""
    off = metrics.accuracy.stored_off_mm.max(1)
    fields = metrics.people.fields()
    stored, damage = fields["errors"], []
    for i in np.flatnonzero(off > SAME_MM + _rounding_mm(fields["skel_trans"], fields["smpl_trans"])):
        key = metrics.people.keys[i]
        text = (
            f"{path}: {key}: errors of {stored[i, 0]:.2f} and {stored[i, 1]:.2f} mm are stored; its parameters give "
            f"{metrics.accuracy.pve_mm[i]:.2f} and {metrics.accuracy.max_vertex_mm[i]:.2f}"
        )
        damage.append(Damage(metrics.people.shard, key, "errors", text))
    return damage
