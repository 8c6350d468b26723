"""The keep-list of a dataset: which people `skelfit verify` keeps, and why it drops the others.

A CSV file with a line per person, which spreadsheets and pandas read too: key, shard, keep (1 or 0), reasons.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from dataclasses import dataclass
from typing import IO

from skelfit.errors import InputError
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location
from skelfit.storage.path_checks import require_regular_file

COLUMNS = ("key", "shard", "keep", "reasons")


@dataclass(frozen=True)
class Kept:
    """One person of a keep-list."""

    key: str
    shard: str
    reasons: tuple[str, ...] = ()  # why they are dropped; none: they are kept

    @property
    def keep(self) -> bool:
        """Whether they are kept."""
        return not self.reasons


def write_keep(path: Location, people: Iterable[Kept]) -> None:
    """Write a keep-list, whole or not at all. Raises OutputError."""
    with atomic_write(path) as temporary, open(temporary, "w", encoding="utf-8", newline="") as stream:
        lines = csv.writer(stream, lineterminator="\n")
        lines.writerow(COLUMNS)
        lines.writerows((p.key, p.shard, int(p.keep), "; ".join(p.reasons)) for p in people)


def read_keep(path: Location) -> dict[str, bool]:
    """Whether each person is kept, by key. Raises InputError."""
    require_regular_file(path, "a readable keep-list", InputError)
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return _read(path, stream)
    except OSError as error:
        raise InputError(path, None, "a readable keep-list", error.strerror or str(error)) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(path, None, "a keep-list (CSV)", str(error)) from None


def _read(path: Location, stream: IO[str] | io.StringIO) -> dict[str, bool]:
    lines = csv.reader(stream)
    if (head := next(lines, [])) != list(COLUMNS):
        raise InputError(path, "line 1", ",".join(COLUMNS), ",".join(head)[:80] or "nothing")
    keep: dict[str, bool] = {}
    for line in lines:
        if len(line) != len(COLUMNS) or line[2] not in ("0", "1"):
            raise InputError(
                path, f"line {lines.line_num}", "key, shard, 0 or 1, reasons", ",".join(line)[:80]
            )
        if line[0] in keep:
            raise InputError(path, f"line {lines.line_num}", "each key once", line[0])
        keep[line[0]] = line[2] == "1"
    return keep
