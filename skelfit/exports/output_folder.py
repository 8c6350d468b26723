"""The folder of an export: the user's files are never replaced or removed without --overwrite."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from skelfit.conversion.run_lock import LOCK_NAME
from skelfit.errors import OutputError
from skelfit.shards.finished_run import FinishedRun
from skelfit.shards.shard_files import ShardError, list_subsets
from skelfit.shards.shard_reader import read_json
from skelfit.storage.atomic_write import remove_file
from skelfit.storage.hashed_write import write_json
from skelfit.storage.locations import Location

RECORD_NAME = "export.json"


def prepare_folder(out: Location, overwrite: bool, record: str = RECORD_NAME) -> None:
    """Make an empty folder; `overwrite` removes the files that the record of an earlier export names, and no others.

    Raises OutputError for a folder that holds files, unless `overwrite` is set and it has such a record, and always for
    one with shards.
    """
    if out.exists() and not out.is_dir():
        raise OutputError(f"{out}: expected a folder, found a file; choose another name")
    if (out / LOCK_NAME).exists() or list_subsets(out):
        raise OutputError(f"{out}: holds the shards of a run; choose another folder")
    if out.is_dir() and any(out.iterdir()):
        if not overwrite:
            raise OutputError(f"{out}: holds files already; choose another folder or --overwrite")
        _remove_earlier(out, record)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{out}: cannot be made: {error}") from error


def _remove_earlier(out: Location, record: str) -> None:
    try:
        names = read_json(out / record).get("files")
    except ShardError:
        names = None
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        expected = f"a folder that skelfit wrote, with its {record}"
        raise OutputError(f"{out}: expected {expected}, found other files; choose another folder")
    for name in (record, *names):
        if ".." not in Path(name).parts and not Path(name).is_absolute():
            remove_file(out / name)


def write_record(
    out: Location, run: FinishedRun, export_format: str, files: Iterable[str], **details: Any
) -> None:
    """Write `export.json`, the last file: what the folder holds, and of which run. Raises OutputError."""
    content = {
        "format": export_format,
        "subset": run.subset,
        "identity_sha256": run.summary.get("identity_sha256"),
        **details,
        "files": sorted(files),
    }
    write_json(out / RECORD_NAME, json.loads(json.dumps(content)))
