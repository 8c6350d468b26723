"""Shards and a label file, from one end to the other: matched first, then measured, some people at a time.

Memory holds the file's parameters and names (half a kB a row), three numbers for each person of the shards, and the
bodies of one batch.
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
from skelfit.verification.comparison.matching import Matching, Seen, match
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.comparison.source_frame import source_frame_of
from skelfit.verification.comparison.tally import Tally, cases_of
from skelfit.verification.measures.decoded_samples import People
from skelfit.verification.measures.remade_bodies import Bodies

BATCH = 64  # people whose bodies are in memory
_COUNTED = 64  # batches that are counted together: to count few people takes as long as to count many


@dataclass(frozen=True)
class Comparison:
    """What was found."""

    matching: Matching
    tally: Tally
    bad_people: int  # people of the shards whose numbers are none
    bad_rows: int  # rows of the file whose numbers are none, of matched people that are whole
    coordinates: tuple[str, ...]  # that compared people of the shards stand in
    elsewhere: int  # compared people for whom the file names other coordinates


def compare(
    run: FinishedRun, labels: SkelLabels, bodies: Bodies, within_px: float, step: Callable[[int], object]
) -> Comparison:
    """Compare a run with a label file; `step` is told how many more people are done.

    Raises ShardError, ModelError, and LabelError where nothing identifies people.
    """
    matching = match(_seen(run), labels, within_px)
    tally, counted = Tally(), list[Differences]()
    bad_people = bad_rows = done = elsewhere = 0
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
            theirs = [str(meta["coordinates"]) for meta in people.metas]
            coordinates.update(theirs)
            elsewhere += _elsewhere(theirs, labels, rows[good])
            found, skins = differences(bodies, people, labels, rows[good])
            tally.keep(cases_of(found, skins, people, rows[good]))
            counted.append(found)
        if len(counted) == _COUNTED:
            tally.add(counted)
            counted = []
        done += len(samples)
        step(len(samples))
    if counted:
        tally.add(counted)
    return Comparison(matching, tally, bad_people, bad_rows, tuple(sorted(coordinates)), elsewhere)


def _elsewhere(coordinates: list[str], labels: SkelLabels, rows: NDArray[np.int64]) -> int:
    """How many people, who stand in some coordinates, stand in others by their rows of the file."""
    said = labels.coordinates
    if said is None:
        return 0
    return sum(one != said[row] for one, row in zip(coordinates, rows.tolist(), strict=True))


_Sample = tuple[str, FloatArray, Any]  # key, label vector, metadata


def _batches(run: FinishedRun) -> Iterator[tuple[str, list[_Sample]]]:
    """The samples of a run, some at a time, each time of one shard."""
    for shard, samples in groupby(run.samples(), key=_shard):
        while some := list(islice(samples, BATCH)):
            yield shard, [(key, label, meta) for key, _, label, meta in some]


def _shard(sample: tuple[str, str, FloatArray, Any]) -> str:
    return sample[1]


def _seen(run: FinishedRun) -> Iterator[Seen]:
    """The people of a run, as far as matching asks; who is damaged stands nowhere."""
    nowhere = (np.nan, np.nan)
    for _, _, label, meta in run.samples():
        center = unpack(label)["center"].tolist() if label.shape == (LABEL_SIZE,) else nowhere
        yield Seen(str(meta["imgname"]), int(meta["row"]), center, source_frame_of(meta))


def _is_whole(label: FloatArray) -> bool:
    return label.shape == (LABEL_SIZE,) and bool(np.isfinite(label).all())


def _people(shard: str, samples: list[_Sample]) -> People:
    keys, labels, metas = zip(*samples, strict=True)
    return People(shard, keys, np.stack(labels).astype(np.float32), metas)
