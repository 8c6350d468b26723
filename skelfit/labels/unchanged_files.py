"""Whether label files stay the same while they are read."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from skelfit.errors import LabelError
from skelfit.labels.label_batch import LabelBatch


def file_signature(path: Path) -> tuple[int, ...] | None:
    """Numbers that change when a file is written to or replaced; None when it does not exist."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def unchanged_pieces(
    pieces: Iterable[LabelBatch], files: list[Path], before: list[tuple[int, ...] | None]
) -> Iterator[LabelBatch]:
    """The pieces, a file each, or one of all files; raises LabelError where a file was changed meanwhile."""
    left = zip(files, before, strict=True)
    for piece in pieces:
        _check_unchanged(*next(left))
        yield piece
    for path, signature in left:
        _check_unchanged(path, signature)


def _check_unchanged(path: Path, before: tuple[int, ...] | None) -> None:
    if file_signature(path) != before:
        raise LabelError(path, None, "a file that stays the same", "one that was changed meanwhile")
