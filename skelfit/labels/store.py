"""Label files, checked once and kept as HDF5, so that every worker reads just its slice.

An `.npz` cannot be sliced: each of a thousand shard tasks would read the whole file. A store is immutable: it
is written under a temporary name and moved into place, and its name holds the hash of what it was made from,
so two processes that build it at once, or a source that has changed, do no harm.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from skelfit.config import LabelSource
from skelfit.errors import LabelError
from skelfit.files import replacing
from skelfit.labels import camerahmr
from skelfit.labels.batch import LabelBatch

_READERS: dict[str, tuple[str, Callable[..., LabelBatch]]] = {
    "camerahmr": (camerahmr.READER, camerahmr.read),
}
_TEXT = ("imgname", "gender", "bad")
_FORMAT = 1  # of the HDF5 layout


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
    sha256 = file_sha256(label_path)
    if source.sha256 is not None and source.sha256.lower() != sha256:
        raise LabelError(label_path, None, f"sha256 {source.sha256} (by the manifest)", sha256)
    reader, read = _READERS[source.source]
    options = f"{_FORMAT} {source.gender} {max_abs_beta!r}"
    tag = hashlib.sha256(options.encode()).hexdigest()[:8]
    path = store_dir / f"{reader}-{sha256[:16]}-{tag}.h5"
    rows = _valid_rows(path, sha256)
    if rows is None:
        batch = read(label_path, gender=source.gender, max_abs_beta=max_abs_beta)
        _write(path, batch, StoreInfo(len(batch), sha256, str(label_path), reader))
        rows = len(batch)
    if source.expected_rows is not None and rows != source.expected_rows:
        raise LabelError(label_path, None, f"{source.expected_rows} rows (by the manifest)", f"{rows} rows")
    return path


def read_rows(store_path: str | Path, start: int, stop: int) -> LabelBatch:
    """The people start..stop-1 of a store, exactly as the reader gave them. Raises LabelError."""
    with _open(store_path) as file:
        rows = int(file.attrs["rows"])
        if not 0 <= start <= stop <= rows:
            raise LabelError(store_path, None, f"a range within its {rows} rows", f"{start} to {stop}")
        values: dict[str, Any] = {}
        for field in fields(LabelBatch):
            if field.name in _TEXT:
                values[field.name] = file[field.name].asstr()[start:stop].tolist()
            else:
                values[field.name] = file[field.name][start:stop]
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
    with replacing(path) as temporary, h5py.File(temporary, "w") as file:
        for field in fields(LabelBatch):
            value = getattr(batch, field.name)
            if field.name in _TEXT:
                # An empty list has no type that h5py could find by itself.
                data = np.array(value, dtype=object)
                file.create_dataset(field.name, data=data, dtype=h5py.string_dtype())
            else:
                file.create_dataset(field.name, data=value)
        for name in ("rows", "sha256", "source_path", "reader"):
            file.attrs[name] = getattr(info, name)
