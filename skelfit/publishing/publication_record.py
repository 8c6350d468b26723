"""`publish.json`: which run a dataset holds, whether all of it is there, and which files are of skelfit."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from skelfit import __version__
from skelfit.storage.hashed_write import FileRecord

RECORD_NAME = "publish.json"
_VERSION = "skelfit-publication-1"


@dataclass(frozen=True)
class PublicationRecord:
    """What a dataset holds, or what is on its way there."""

    subset: str
    identity_sha256: str  # of the run
    complete: bool  # False: an upload is under way, or was interrupted
    files: Mapping[str, FileRecord]  # by path in the dataset, without this one

    def to_bytes(self) -> bytes:
        """The file, the same for the same dataset."""
        content = {
            "version": _VERSION,
            "skelfit": __version__,
            "subset": self.subset,
            "identity_sha256": self.identity_sha256,
            "complete": self.complete,
            "files": {name: vars(record) for name, record in sorted(self.files.items())},
        }
        return (json.dumps(content, indent=2) + "\n").encode()


def read_record(data: bytes) -> PublicationRecord | None:
    """The record in these bytes; None for another file."""
    try:
        content: Any = json.loads(data)
        files = {str(name): FileRecord(**record) for name, record in content["files"].items()}
        if content["version"] != _VERSION:
            return None
        texts = str(content["subset"]), str(content["identity_sha256"])
        return PublicationRecord(*texts, content["complete"] is True, files)
    except (ValueError, KeyError, TypeError, AttributeError):
        return None
