"""The people of a run as motions: the frames of each sequence in time, with a rate and a file name."""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import groupby

from skelfit.errors import OutputError
from skelfit.exports.exported_bodies import coordinates_of
from skelfit.shards.finished_run import FinishedRun, Person

TIME_STEP = 1.0  # s from one row to the next, where people are not frames of a sequence


def motions_of(run: FinishedRun) -> Iterator[tuple[str, list[Person]]]:
    """The people of each sequence, or else of each shard, with its name."""

    def key(person: Person) -> tuple[str, ...]:
        meta = person.meta
        if meta["sequence"] is None:
            return "", person.shard, coordinates_of(person)
        return meta["label_file"], meta["sequence"], coordinates_of(person)

    for (_, name, _), people in groupby(run.people(), key):
        yield name, list(people)


def frame_rate(person: Person, given: float | None) -> float:
    """Hz of the sequence of a person: of its labels, or else as given, or else as the fit assumed.

    People who are no frames stand TIME_STEP apart. Raises OutputError if the labels have another rate than is given.
    """
    meta = person.meta
    if meta["sequence"] is None:
        return 1 / TIME_STEP
    if given is not None and meta["frame_rate"] not in (None, given):
        raise OutputError(
            f"{meta['label_file']}, sequence {meta['sequence']}: expected no --frame-rate, "
            f"because the labels have {meta['frame_rate']:g} Hz, found {given:g} Hz"
        )
    return float(meta["frame_rate"] or given or meta["fitted_rate"] or 1 / TIME_STEP)


def known_rate(person: Person, given: float | None) -> float | None:
    """The same rate; None where neither the labels, nor the fit, nor the user says one."""
    meta = person.meta
    known = meta["sequence"] is not None and (meta["frame_rate"] or given or meta["fitted_rate"])
    return frame_rate(person, given) if known else None


def unused_name(wanted: str, used: set[str]) -> str:
    """A file name for a sequence, not among those that are used; adds it to them."""
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", wanted).strip("._") or "sequence"
    name, number = plain, 2
    while name.lower() in used:
        name, number = f"{plain}-{number}", number + 1
    used.add(name.lower())
    return name
