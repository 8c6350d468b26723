"""Compare shards with a label file: match all people, then measure them in batches.

Memory holds the parameters and names of the file (half a kB a row), three numbers for each person of the shards, and
the bodies of one batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.label_vector import LABEL_SIZE, FloatArray, unpack
from skelfit.verification.comparison.differences import Differences, differences
from skelfit.verification.comparison.matching import Matching, PersonId, match
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.comparison.source_frame import source_frame_of
from skelfit.verification.comparison.tally import Tally, most_different
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import BodyModels

BATCH = 64  # people whose bodies are in memory
_BATCHES_PER_UPDATE = (
    64  # batches that are added to the tally together: adding one takes as long as adding many
)


@dataclass(frozen=True)
class Comparison:
    """The result of a comparison."""

    matching: Matching
    tally: Tally
    bad_people: int  # people of the shards with numbers that are not finite
    bad_rows: int  # bad rows of the file among those matched with whole people
    coordinates: tuple[str, ...]  # of the compared people in the shards
    other_coordinates: int  # compared people with other coordinates in the file


def compare(
    run: FinishedRun, labels: SkelLabels, bodies: BodyModels, within_px: float, step: Callable[[int], object]
) -> Comparison:
    """Compare a run with a label file; `step` is called with how many more people are done.

    Raises ShardError, ModelError, and LabelError where nothing identifies people.
    """
    matching = match(_person_ids(run), labels, within_px)
    tally, pending = Tally(), list[Differences]()
    bad_people = bad_rows = done = other_coordinates = 0
    coordinates = set[str]()
    for shard, samples in _batches(run):
        rows = matching.row[done : done + len(samples)]
        whole = np.array([_is_whole(label) for _, label, _ in samples], bool)
        readable = (rows >= 0) & ~labels.bad[rows]
        bad_people += int((~whole).sum())
        bad_rows += int((whole & (rows >= 0) & ~readable).sum())
        good = np.flatnonzero(whole & readable)
        if len(good):
            people = _people(shard, [samples[i] for i in good.tolist()])
            in_shards = [str(meta["coordinates"]) for meta in people.metas]
            coordinates.update(in_shards)
            other_coordinates += _count_other_coordinates(in_shards, labels, rows[good])
            differing, skins = differences(bodies, people, labels, rows[good])
            tally.keep(most_different(differing, skins, people, rows[good]))
            pending.append(differing)
        if len(pending) == _BATCHES_PER_UPDATE:
            tally.add(pending)
            pending = []
        done += len(samples)
        step(len(samples))
    if pending:
        tally.add(pending)
    return Comparison(matching, tally, bad_people, bad_rows, tuple(sorted(coordinates)), other_coordinates)


def _count_other_coordinates(coordinates: list[str], labels: SkelLabels, rows: NDArray[np.int64]) -> int:
    """How many people have other coordinates in their rows of the file."""
    in_file = labels.coordinates
    if in_file is None:
        return 0
    return sum(one != in_file[row] for one, row in zip(coordinates, rows.tolist(), strict=True))


_Sample = tuple[str, FloatArray, Any]  # key, label vector, metadata


def _batches(run: FinishedRun) -> Iterator[tuple[str, list[_Sample]]]:
    """The samples of a run in batches, each of one shard."""
    for shard, samples in groupby(run.samples(), key=_shard):
        while batch := list(islice(samples, BATCH)):
            yield shard, [(key, label, meta) for key, _, label, meta in batch]


def _shard(sample: tuple[str, str, FloatArray, Any]) -> str:
    return sample[1]


def _person_ids(run: FinishedRun) -> Iterator[PersonId]:
    """What identifies the people of a run; damaged people have no centre."""
    no_center = (np.nan, np.nan)
    for _, _, label, meta in run.samples():
        center = unpack(label)["center"].tolist() if label.shape == (LABEL_SIZE,) else no_center
        yield PersonId(str(meta["imgname"]), int(meta["row"]), center, source_frame_of(meta))


def _is_whole(label: FloatArray) -> bool:
    return label.shape == (LABEL_SIZE,) and bool(np.isfinite(label).all())


def _people(shard: str, samples: list[_Sample]) -> DecodedPeople:
    keys, labels, metas = zip(*samples, strict=True)
    return DecodedPeople(shard, keys, np.stack(labels).astype(np.float32), metas)
