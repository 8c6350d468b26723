"""Where `verify` writes its reports: it replaces its own earlier ones, and no other file."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from skelfit.errors import OutputError
from skelfit.shards.keep_list import COLUMNS
from skelfit.shards.shard_files import ShardError
from skelfit.shards.shard_reader import read_json
from skelfit.storage.checked_arguments import local_path_or_none

_HEAD_BYTES = 1000  # of a page, in which its title is


@dataclass(frozen=True)
class ReportFiles:
    """Paths of the reports; None: not written."""

    json: Path | None
    html: Path | None
    keep: Path | None


def report_files(json: str | Path | None, html: str | Path | None, keep: str | Path | None) -> ReportFiles:
    """The paths, checked. Raises ArgumentError, and OutputError for a file that `verify` did not write."""
    files = ReportFiles(
        json=local_path_or_none("json", json),
        html=local_path_or_none("html", html),
        keep=local_path_or_none("keep", keep),
    )
    _check(files.json, "report (JSON) of verify", _is_report)
    _check(files.html, "page of verify", _is_page)
    _check(files.keep, "keep-list of verify", _is_keep_list)
    return files


def _check(path: Path | None, kind: str, is_ours: Callable[[Path], bool]) -> None:
    if path is None or not path.is_file() or path.stat().st_size == 0:
        return
    if not is_ours(path):
        raise OutputError(f"{path}: expected a new file or an earlier {kind}, found another file")


def _is_report(path: Path) -> bool:
    try:
        return str(read_json(path).get("version", "")).startswith("skelfit-verify-")
    except ShardError:
        return False


def _is_page(path: Path) -> bool:
    head = _head(path)
    return head.lstrip().lower().startswith(b"<!doctype html") and b"skelfit" in head


def _is_keep_list(path: Path) -> bool:
    return _head(path).splitlines()[0].decode(errors="replace") == ",".join(COLUMNS)


def _head(path: Path) -> bytes:
    with open(path, "rb") as stream:
        return stream.read(_HEAD_BYTES)
