"""Hashes of label files, and of those that another rank of a run has computed: to read a large file takes minutes."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from skelfit.errors import LabelError
from skelfit.storage.hashed_write import write_json
from skelfit.storage.path_checks import require_regular_file

NAME = ".hashes.json"


def file_sha256(path: str | Path) -> str:
    """sha256 (hex) of a file. Raises LabelError when it cannot be read."""
    require_regular_file(path, "a label file", LabelError)
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 22):
                digest.update(block)
    except FileNotFoundError:
        raise LabelError(path, None, "a label file", "no such file") from None
    except OSError as error:
        raise LabelError(path, None, "a readable label file", str(error)) from None
    return digest.hexdigest()


class KnownHashes:
    """The sha256 of files, kept in a folder with their size and time of change, by which they are known again."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / NAME
        self._known: dict[str, Any] = {}
        self._changed = False
        try:
            content = json.loads(self._path.read_bytes())
        except (OSError, ValueError):  # not there yet, or of no use
            return
        self._known = content if isinstance(content, dict) else {}

    def sha256(self, path: Path) -> str:
        """sha256 (hex) of a file, which is read only where it is not known. Raises LabelError."""
        key, state = str(path.absolute()), _state(path)
        known = self._known.get(key)
        if state is not None and isinstance(known, dict) and known.get("state") == state:
            return str(known["sha256"])
        sha256 = file_sha256(path)
        if state is not None and _state(path) == state:
            self._known[key] = {"state": state, "sha256": sha256}
            self._changed = True
        return sha256

    def save(self) -> None:
        """Keep what was computed. Raises OutputError."""
        if self._changed:
            write_json(self._path, self._known)


def _state(path: Path) -> list[int] | None:
    """Size and time of change, which all machines see; None where there is no file."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns]
