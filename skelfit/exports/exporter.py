"""What an exporter is: it writes the people of a finished run in one format that other programs read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from skelfit.bodies.model_set import ModelSet
from skelfit.errors import OutputError
from skelfit.shards.finished_run import FinishedRun, Person, Step, no_step
from skelfit.storage.locations import Location

T = TypeVar("T")


@dataclass(frozen=True)
class ExportOptions:
    """What can be asked of an export. A format ignores what it does not take."""

    models: ModelSet | None = None  # for exporters with `needs_models`: those that the run was fitted with
    keys: tuple[str, ...] = ()  # for exporters with `selects_people`: these people only
    limit: int | None = None  # for the same: the first people only; None: the exporter's default
    frame_rate: float | None = (
        None  # Hz, for exporters that are `in_time`: of sequences whose labels do not say it
    )
    overwrite: bool = False  # replace what an earlier export wrote
    step: Step = no_step  # called with how many more people are done

    def required_models(self) -> ModelSet:
        """The body models. Raises ValueError when there are none."""
        if self.models is None:
            raise ValueError("models: expected the body models of the run, found None")
        return self.models


@dataclass(frozen=True)
class ExportResult:
    """What an export wrote."""

    people: int
    files: tuple[str, ...]  # relative to the folder of the export; of a format with one file, its name
    notes: tuple[str, ...]  # lines for the terminal: what was written, and what to do with it
    left_out: int = 0  # people that the format cannot hold


class Exporter(ABC):
    """A format. docs/how-to-add-an-exporter.md says how to add one."""

    name: str  # as in --format
    endings: tuple[str, ...]  # of the files that it writes
    summary: str  # one clause for --help
    needs_models: bool = False
    selects_people: bool = False  # whether it takes `keys` and `limit`
    in_time: bool = False  # whether it takes `frame_rate`
    takes_predictions: bool = False  # whether it has `write_prediction`

    def count(self, run: FinishedRun, options: ExportOptions) -> int:
        """How many people `write` goes through: the end of a progress bar."""
        return run.rows_out

    @abstractmethod
    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the people of `run` to `out`, a file or a folder.

        Raises OutputError when `out` holds files and `overwrite` is not set, ShardError for damaged shards, and
        ModelError when the models are not those of the run.
        """

    def write_prediction(self, folder: Location, out: Location, options: ExportOptions) -> ExportResult:
        """Write the people of a folder of `skelfit predict`, where the exporter takes them; raises as `write`."""
        raise NotImplementedError(f"{self.name} takes no predictions")


class FinitePeople:
    """The people of a run whose SKEL parameters are finite; damaged shards hold others, which no body has."""

    def __init__(self, run: FinishedRun) -> None:
        self.folder, self._run = run.folder, run
        self.left_out: list[str] = []  # keys of the others, of those that were gone through

    def __iter__(self) -> Iterator[Person]:
        for person in self._run.people():
            if all(np.isfinite(person.fields[f"skel_{part}"]).all() for part in ("poses", "betas", "trans")):
                yield person
            else:
                self.left_out.append(person.key)

    def notes(self) -> tuple[str, ...]:
        """The line for the terminal on people who are left out."""
        counted = plural(len(self.left_out), "person is", "people are")
        return (f"{counted} left out: their numbers are not finite",) if self.left_out else ()


def selected_people(finite: FinitePeople, keys: tuple[str, ...], count: int) -> Iterator[Person]:
    """The people with these keys, or else the first `count`. Raises OutputError for an unknown key, at the end."""
    missing, people = set(keys), 0
    for person in finite:
        if keys and person.key not in missing:
            continue
        missing.discard(person.key)
        yield person
        people += 1
        if people == count:
            break
    if missing:
        more = f" (nor for {len(missing) - 1} more keys)" if len(missing) > 1 else ""
        what = "numbers that are not finite" if min(missing) in finite.left_out else "none"
        raise OutputError(
            f"{finite.folder}: expected a person with the key {min(missing)}, found {what}{more}"
        )


def known_people(motions: Iterator[T], options: ExportOptions) -> Iterable[T]:
    """The motions of an export; where keys are given, all are there before anything is written or removed."""
    return list(motions) if options.keys else motions


def plural(count: int, one: str, several: str = "") -> str:
    """A number of things: '1 file', '2 files'."""
    return f"{count} {one if count == 1 else several or one + 's'}"
