"""The people of a run as motions: the frames of each sequence in time, with a rate and a file name."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

from skelfit.errors import OutputError
from skelfit.exports.exported_bodies import coordinates_of
from skelfit.labels.impossible_values import LIMITS
from skelfit.shards.finished_run import Person

_LONGEST = 100  # letters of a file's name; file systems take 255, with endings, and programs on Windows fewer
TIME_STEP = 1.0  # s from one row to the next, where people are not frames of a sequence


def motions_of(everyone: Iterable[Person]) -> Iterator[tuple[str, list[Person]]]:
    """The people of each sequence, or else of each shard, with its name."""

    def key(person: Person) -> tuple[str, ...]:
        meta = person.meta
        if meta["sequence"] is None:
            return "", person.shard, coordinates_of(person)
        return meta["label_file"], meta["sequence"], coordinates_of(person)

    for (_, name, _), people in groupby(everyone, key):
        motion = list(people)
        yield name, motion if motion[0].meta["sequence"] is None else _in_order(motion)


def _in_order(people: Sequence[Person]) -> list[Person]:
    """The frames of a sequence in the order of time. Raises OutputError if one is there twice."""
    ordered = sorted(people, key=lambda person: int(person.meta["frame"]))
    for before, after in zip(ordered, ordered[1:], strict=False):
        if before.meta["frame"] == after.meta["frame"]:
            raise OutputError(
                f"{after.meta['label_file']}, sequence {after.meta['sequence']}: expected each frame once, "
                f"found frame {after.meta['frame']} as {before.key} and {after.key}"
            )
    return ordered


def frame_rate(person: Person, given: float | None) -> float:
    """Hz of the sequence of a person: of its labels, or else as given, or else as the fit assumed.

    People who are no frames stand TIME_STEP apart. Raises OutputError if the labels have another rate than is given,
    and for a rate that no camera has.
    """
    meta, (low, high) = person.meta, LIMITS.frame_rate_hz
    if given is not None and not low <= given <= high:
        raise OutputError(f"--frame-rate: expected {low:g} to {high:g} Hz, found {given:g} Hz")
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


def assumed_rate_text(count: int) -> str:
    """The line for the terminal on sequences whose frame rate was not known."""
    whose = "a sequence has" if count == 1 else f"{count} sequences have"
    return f"  {whose} no frame rate in the labels: the fit's is taken; give the video's with --frame-rate"


def unused_name(wanted: str, used: set[str]) -> str:
    """A file name for a sequence, not among those that are used; adds it to them."""
    letters = [
        c for c in unicodedata.normalize("NFKD", wanted) if not unicodedata.combining(c)
    ]  # e for an accented e
    plain = re.sub(r"[^A-Za-z0-9_.-]+", "_", "".join(letters))[:_LONGEST].strip("._") or "sequence"
    name, number = plain, 2
    while name.lower() in used:
        name, number = f"{plain}-{number}", number + 1
    used.add(name.lower())
    return name
