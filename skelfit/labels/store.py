"""Label files, checked once and kept as HDF5, so that every worker reads just its slice.

An `.npz` cannot be sliced: each of a thousand shard tasks would read the whole file. A store is immutable: it
is written under a temporary name and moved into place, and its name holds the hash of what it was made from,
so two processes that build it at once, or a source that has changed, do no harm. Its chunks carry checksums.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skelfit.config import LabelSource
from skelfit.errors import LabelError
from skelfit.files import remove, replacing
from skelfit.labels import camerahmr
from skelfit.labels.batch import LabelBatch
from skelfit.labels.expected import check_keys, check_sha256

_READERS: dict[str, tuple[str, Callable[..., LabelBatch]]] = {
    "camerahmr": (camerahmr.READER, camerahmr.read),
}
_TEXT = ("imgname", "gender", "bad")
_FORMAT = 2  # of the HDF5 layout
_SLACK = 1 << 16  # what HDF5 adds to the arrays, and some room
_CHUNK_ROWS = 1024  # about one shard: few chunks are read in vain


@dataclass(frozen=True)
class StoreInfo:
    """What a store holds and what it was made from."""

    rows: int
    sha256: str  # of the source file
    source_path: str
    reader: str  # name and version of the reader


def build_store(
    source: LabelSource, label_path: str | Path, store_dir: str | Path, max_abs_beta: float = 10.0
) -> Path:
    """The store of a label file below `store_dir`: built when it is not there, else reused.

    Raises LabelError when the file cannot be used or is not the one of `source` (sha256, row count), OutputError
    when the store cannot be written.
    """
    label_path, store_dir = Path(label_path), Path(store_dir)
    before = _signature(label_path)
    sha256 = file_sha256(label_path)
    check_sha256(source, label_path, sha256)
    check_keys(label_path, source.expected_keys)
    reader, read = _READERS[source.source]
    options = f"{_FORMAT} {source.gender} {max_abs_beta!r}"
    tag = hashlib.sha256(options.encode()).hexdigest()[:8]
    path = store_dir / f"{reader}-{sha256[:16]}-{tag}.h5"
    rows = _valid_rows(path, sha256)
    if rows is None:
        batch = read(label_path, gender=source.gender, max_abs_beta=max_abs_beta)
        if _signature(label_path) != before:
            raise LabelError(label_path, None, "a file that stays the same", "one that was changed meanwhile")
        _write(path, batch, StoreInfo(len(batch), sha256, str(label_path), reader))
        rows = len(batch)
    if source.expected_rows is not None and rows != source.expected_rows:
        raise LabelError(label_path, None, f"{source.expected_rows} rows (by the manifest)", f"{rows} rows")
    return path


def clear_temporaries(store_dir: str | Path) -> None:
    """Remove what killed builders left, of any kind of file. Nobody may be building there. Raises OutputError."""
    for path in Path(store_dir).glob(".*.tmp"):
        remove(path)


def read_rows(store_path: str | Path, start: int, stop: int) -> LabelBatch:
    """The people start..stop-1 of a store, exactly as the reader gave them. Raises LabelError."""
    values: dict[str, Any] = {}
    with _open(store_path) as file:
        rows = int(file.attrs["rows"])
        if not 0 <= start <= stop <= rows:
            raise LabelError(store_path, None, f"a range within its {rows} rows", f"{start} to {stop}")
        for field in fields(LabelBatch):
            try:
                found = file[field.name][start:stop]
                values[field.name] = [t.decode() for t in found.tolist()] if field.name in _TEXT else found
            except (OSError, KeyError, ValueError) as error:
                expected = "a whole label store (remove it and start again: it is made anew)"
                raise LabelError(store_path, field.name, expected, f"a damaged one ({error})") from None
    return LabelBatch(**values)


def store_info(store_path: str | Path) -> StoreInfo:
    """What a store holds and what it was made from. Raises LabelError."""
    with _open(store_path) as file:
        attrs = file.attrs
        return StoreInfo(
            int(attrs["rows"]), str(attrs["sha256"]), str(attrs["source_path"]), str(attrs["reader"])
        )


def file_sha256(path: str | Path) -> str:
    """sha256 (hex) of a file. Raises LabelError when it cannot be read."""
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


def _signature(path: Path) -> tuple[int, ...] | None:
    """What changes when a file is written to or replaced; None when it is not there."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns


def _open(path: str | Path) -> Any:
    try:
        # No lock: the file never changes, and many file systems of clusters have no locks.
        file = h5py.File(path, "r", locking=False)
    except OSError as error:
        raise LabelError(path, None, "a label store (HDF5)", f"an unreadable file ({error})") from None
    if "rows" not in file.attrs:
        file.close()
        raise LabelError(path, "rows", "a label store (HDF5)", "an HDF5 file of another kind")
    return file


def _valid_rows(path: Path, sha256: str) -> int | None:
    """Rows of the store, or None when it has to be built. The short hash in its name is not trusted alone."""
    if not path.exists():
        return None
    try:
        info = store_info(path)
    except LabelError:
        return None
    return info.rows if info.sha256 == sha256 else None


def _write(path: Path, batch: LabelBatch, info: StoreInfo) -> None:
    # Text of a fixed length, because HDF5 has no checksums for other; an empty list has no type.
    texts = {
        name: np.array([t.encode() for t in getattr(batch, name)] or [b""])[: len(batch)] for name in _TEXT
    }
    columns = {field.name: texts.get(field.name, getattr(batch, field.name)) for field in fields(LabelBatch)}
    rows = max(1, min(len(batch), _CHUNK_ROWS))
    with replacing(path) as temporary:
        _reserve(temporary, sum(column.nbytes + rows * column.strides[0] for column in columns.values()))
        try:
            with h5py.File(temporary, "w") as file:
                for name, column in columns.items():
                    file.create_dataset(
                        name,
                        data=column,
                        chunks=(rows, *column.shape[1:]),
                        maxshape=(None, *column.shape[1:]),  # no rows could not be cut into chunks otherwise
                        fletcher32=True,
                    )
                for name in ("rows", "sha256", "source_path", "reader"):
                    file.attrs[name] = getattr(info, name)
        except RuntimeError as error:  # what HDF5 makes of a failed write on closing a file
            raise OSError(f"HDF5: {error}") from error


def _reserve(path: Path, size: int) -> None:
    """Raise OSError unless the disk has room for a store: HDF5 may crash the process on a full one."""
    with open(path, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size + size // 100 + _SLACK)
