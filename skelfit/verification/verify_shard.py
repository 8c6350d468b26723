"""Verify a shard from end to end, and put what was found of all shards together. Knows nothing of Dask."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.model_set import load_models, open_models
from skelfit.errors import ModelError
from skelfit.shards.keep_list import Kept
from skelfit.shards.shard_files import ShardError, ShardFiles
from skelfit.shards.shard_reader import read_marker
from skelfit.shards.shard_schema import ShardMarker
from skelfit.verification.gates import DAMAGED, KeepCounts, judge
from skelfit.verification.integrity.damage import Damage
from skelfit.verification.integrity.run_folder import RunFolder
from skelfit.verification.integrity.shard_check import ShardCheck, check_shard
from skelfit.verification.measures.decoded_samples import People
from skelfit.verification.measures.person_measures import BATCH, PersonMetrics, measure
from skelfit.verification.measures.remade_bodies import Bodies
from skelfit.verification.report.aggregate import Aggregate

SAME_MM = 0.05  # stored errors are of a float32 fit, in which the body stands near the origin


@dataclass(frozen=True)
class Sampling:
    """Which people are measured: `wanted` of `total`, evenly; None: everybody, 0: nobody."""

    wanted: int | None
    total: int

    def chosen(self, first: int, people: int) -> NDArray[np.bool_]:
        """Of the people number `first` and following, who is measured (people,)."""
        number = np.arange(first, first + people + 1, dtype=np.int64)
        if self.wanted is None or self.wanted >= self.total:
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
    first: int  # how many people the shards before have, by their markers
    limits: Mapping[str, float]  # of the gates, by name
    keep: bool  # whether to tell of each person whether they are kept

    @property
    def name(self) -> str:
        """The shard, and where it is."""
        return f"{self.folder}/{self.shard}"


@dataclass(frozen=True)
class ShardReport:
    """What was found of a shard."""

    name: str  # of its task
    folder: str
    check: ShardCheck
    measured: int
    aggregate: Aggregate
    counts: KeepCounts
    keep: tuple[Kept, ...]


def plan_verify(
    runs: Sequence[RunFolder],
    models: str | None,
    models_sha256: str,
    sample: int | None,
    limits: Mapping[str, float],
    keep: bool,
) -> list[VerifyTask]:
    """One task for each shard of the runs, in order."""
    shards = [files for run in runs for files in run.shards]
    sizes = [_people_in(files) for files in shards]
    sampling, firsts = Sampling(sample, sum(sizes)), accumulate([0, *sizes])
    return [
        VerifyTask(str(files.folder), files.name, models, models_sha256, sampling, first, limits, keep)
        for files, first in zip(shards, firsts, strict=False)
    ]


def _people_in(files: ShardFiles) -> int:
    try:
        found = read_marker(files).rows_out
        return found if isinstance(found, int) else 0
    except ShardError:
        return 0


def verify_shard(task: VerifyTask) -> ShardReport:
    """Check a shard, and measure its people. Raises ModelError when the models are not those of the task."""
    check, people = check_shard(ShardFiles(Path(task.folder), task.shard))
    wanted = people.chosen(task.sampling.chosen(task.first, len(people)))
    if task.sampling.wanted == 0 or not _same_models(check.marker, task):
        wanted = people.chosen(np.zeros(len(people), bool))
    aggregate, judged, damage = Aggregate(), list[Kept](), list(check.damage)
    for metrics in _measured(task, wanted):
        aggregate = aggregate.merge(Aggregate.of(metrics))
        judged += judge(metrics, task.limits)
        damage += _wrong_errors(metrics, Path(task.folder) / f"{task.shard}.tar")
    judged = _without_damaged(judged, damage, task.shard)
    return ShardReport(
        name=task.name,
        folder=task.folder,
        check=replace(check, damage=tuple(damage)),
        measured=len(wanted),
        aggregate=aggregate.closed(),
        counts=KeepCounts.of(judged),
        keep=tuple(judged) if task.keep else (),
    )


def _without_damaged(judged: Sequence[Kept], damage: Iterable[Damage], shard: str) -> list[Kept]:
    """The verdicts with those dropped who are damaged: of them, no number is worth anything."""
    damaged = dict.fromkeys(d.sample for d in damage if d.sample is not None)
    whole = [person for person in judged if person.key not in damaged]
    return sorted([*whole, *(Kept(key, shard, (DAMAGED,)) for key in damaged)], key=lambda person: person.key)


def _same_models(marker: ShardMarker | None, task: VerifyTask) -> bool:
    """Errors can be computed again with the models of the run only."""
    return marker is None or marker.identity.get("models_sha256") == task.models_sha256


def _measured(task: VerifyTask, people: People) -> Iterable[PersonMetrics]:
    """The metrics of a shard's people, some at a time."""
    for start in range(0, len(people), BATCH):
        some = np.zeros(len(people), bool)
        some[start : start + BATCH] = True
        yield measure(_bodies(task.models, task.models_sha256), people.chosen(some))


@lru_cache(maxsize=1)
def _bodies(folder: str | None, sha256: str) -> Bodies:
    """The bodies of this process, made once."""
    models = open_models() if folder is None else load_models(folder)
    if models.sha256 != sha256:
        raise ModelError(models.source, "sha256", f"the models of the command, {sha256}", models.sha256)
    return Bodies(models)


def _rounding_mm(*places: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far storing places (N,3) m as float32 may move a body, (N,) mm: 0.001 at 5 m, 0.1 at 1 km."""
    half = sum(np.spacing(np.abs(place)).astype(np.float64) for place in places) / 2
    return 1000 * np.asarray(np.linalg.norm(half, axis=-1))


def _wrong_errors(metrics: PersonMetrics, path: Path) -> list[Damage]:
    """Those whose stored errors are not those of their parameters: one of the two was changed."""
    off = metrics.accuracy.stored_off_mm.max(1)
    fields = metrics.people.fields()
    stored, found = fields["errors"], []
    for i in np.flatnonzero(off > SAME_MM + _rounding_mm(fields["skel_trans"], fields["smpl_trans"])):
        key, shard = metrics.people.keys[i], metrics.people.shard
        told, true = stored[i, 0], metrics.accuracy.pve_mm[i]
        text = (
            f"{path}: {key}: errors of {told:.2f} and {stored[i, 1]:.2f} mm are stored; its parameters give"
        )
        text += f" {true:.2f} and {metrics.accuracy.max_vertex_mm[i]:.2f}"
        found.append(Damage(shard, key, "errors", text))
    return found
