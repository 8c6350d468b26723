"""Where `verify` writes its reports: it replaces its own earlier ones, and no other file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from skelfit.errors import ArgumentError, OutputError
from skelfit.shards.keep_list import COLUMNS
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_json
from skelfit.storage.atomic_write import check_writable
from skelfit.storage.checked_arguments import location_or_none
from skelfit.storage.locations import Location, Place
from skelfit.verification.report.ground_table import GROUND_COLUMNS

_HEAD_BYTES = 1000  # of a page, in which its title is


@dataclass(frozen=True)
class ReportFiles:
    """Paths of the reports; None: not written."""

    json: Location | None
    html: Location | None
    keep: Location | None
    picture: Location | None = None
    ground: Location | None = None


def report_files(
    json: Place | None,
    html: Place | None,
    keep: Place | None,
    picture: Place | None = None,
    ground: Place | None = None,
) -> ReportFiles:
    """The paths, checked. Raises ArgumentError for one file twice, OutputError for one that `verify` did not write."""
    files = ReportFiles(
        json=location_or_none("json", json, writing=True),
        html=location_or_none("html", html, writing=True),
        keep=location_or_none("keep", keep, writing=True),
        picture=location_or_none("picture", picture, writing=True),
        ground=location_or_none("ground", ground, writing=True),
    )
    paths = {"json": files.json, "html": files.html, "keep": files.keep, "picture": files.picture}
    paths["ground"] = files.ground
    check_distinct(paths)
    check_replaceable(files.json, "report (JSON) of verify", partial(is_report, version="skelfit-verify-"))
    check_replaceable(files.html, "page of verify", partial(is_page, title="skelfit"))
    check_replaceable(files.keep, "keep-list of verify", partial(is_table, columns=COLUMNS))
    check_replaceable(
        files.ground, "table of the ground of verify", partial(is_table, columns=GROUND_COLUMNS)
    )
    check_replaceable(files.picture, "picture (JPEG)", is_jpeg)
    return files


def check_distinct(paths: Mapping[str, Location | None]) -> None:
    """Raise ArgumentError where two options name one file; paths: by option."""
    options: dict[str, str] = {}
    for option, path in paths.items():
        if path is not None and (other := options.setdefault(str(path), option)) != option:
            raise ArgumentError(option, f"another file than {other}", str(path))


def check_replaceable(path: Location | None, kind: str, is_ours: Callable[[Location], bool]) -> None:
    """Raise OutputError for a file that cannot be written, or is there and not ours; kind: what it would replace."""
    if path is None:
        return
    check_writable(path)
    if not path.is_file() or path.stat().st_size == 0:
        return
    if not is_ours(path):
        raise OutputError(f"{path}: expected a new file or an earlier {kind}, found another file")


def is_report(path: Location, version: str) -> bool:
    """Whether a file is a report (JSON) whose version begins so."""
    try:
        return str(read_json(path).get("version", "")).startswith(version)
    except ShardError:
        return False


def is_jpeg(path: Location) -> bool:
    """Whether a file begins as a JPEG."""
    return _head(path).startswith(b"\xff\xd8\xff")


def is_page(path: Location, title: str) -> bool:
    """Whether a file is a page whose head has this text."""
    head = _head(path)
    return head.lstrip().lower().startswith(b"<!doctype html") and title.encode() in head


def is_table(path: Location, columns: Sequence[str]) -> bool:
    """Whether a file is a table (CSV) of these columns."""
    return _head(path).splitlines()[0].decode(errors="replace") == ",".join(columns)


def _head(path: Location) -> bytes:
    with path.open("rb") as stream:
        return stream.read(_HEAD_BYTES)
