"""A folder of shards, by its file names alone: its shards, and whether its run is finished."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from skelfit.conversion.run_lock import is_written_to, read_record
from skelfit.shards.shard_files import SUMMARY_NAME, ShardError, ShardFiles, list_shards
from skelfit.shards.shard_reader import read_json, read_marker
from skelfit.storage.command_lines import command
from skelfit.storage.locations import Location
from skelfit.verification.integrity.damage import Damage

SHARD_FILE = re.compile(r"(.+)-\d{6}\.(?:tar|rows\.jsonl|done\.json)")


@dataclass(frozen=True)
class Unfinished:
    """A run that is still going, or was interrupted."""

    running: bool  # as far as this machine can see
    writer: str  # the run that wrote last; '' where not known
    rows: int | None  # of the whole run; None: not known
    command: str = "command"  # that made its shards, where one is finished

    def damage(self, folder: Location, done: int, rows: int | None) -> Damage:
        """The message; `done` of `rows` rows are in finished shards."""
        so_far = f"{self.writer}: {done} of {rows or self.rows or 'all'} rows are in finished shards"
        if self.running:
            text = f"a run is writing here{so_far}; verify them again when it has finished"
        else:
            text = f"no {SUMMARY_NAME}, so the run is not finished{so_far}; the same {self.command} goes on"
        return Damage(None, None, "unfinished", f"{folder}: {text}")


@dataclass(frozen=True)
class RunFolder:
    """A folder, its subset and its shards."""

    path: Location
    subset: str
    shards: Sequence[ShardFiles]  # of an unfinished run, the finished ones
    unfinished: Unfinished | None


def open_run_folder(folder: Location) -> RunFolder:
    """The shards of a folder. Does not wait for a run that writes there. Raises ShardError without shards."""
    if not folder.is_dir():
        raise ShardError(folder, None, "a folder of shards", "no such folder")
    # First, because a run may finish while the files are listed.
    unfinished = _unfinished(folder)
    names = Counter(m[1] for path in folder.iterdir() if (m := SHARD_FILE.fullmatch(path.name)))
    record = read_record(folder)
    if names:
        subset = sorted(names, key=lambda name: (-names[name], name))[0]
    elif (folder / SUMMARY_NAME).exists():
        subset = str(read_json(folder / SUMMARY_NAME).get("subset"))
    elif record is not None:
        subset = record.subset
    else:
        raise ShardError(folder, None, "a folder of shards", "no shards")
    shards = [files for files in list_shards(folder, subset) if unfinished is None or files.marker.exists()]
    if unfinished is not None:
        unfinished = replace(unfinished, command=_made_by(shards))
    return RunFolder(folder, subset, shards, unfinished)


def _made_by(shards: Sequence[ShardFiles]) -> str:
    """The command that made finished shards, as the first marker that can be read tells."""
    for files in shards:
        with suppress(ShardError):
            return command("refine" if "refined" in read_marker(files).identity else "convert")
    return Unfinished.command


def _unfinished(folder: Location) -> Unfinished | None:
    running = is_written_to(folder)
    if not running and (folder / SUMMARY_NAME).exists():
        return None
    record = read_record(folder)
    if record is None:
        return Unfinished(running, "", None)
    return Unfinished(running, f" ({record.process}, since {record.started})", record.rows)
