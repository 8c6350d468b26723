"""What is known of a label file before it is read: its keys, and its sha256.

The sha256 of a file is pinned in its manifest, or recorded at its first use in a file beside it, `NAME.sha256`, in
the form of sha256sum. A record is never changed here: whoever replaces a file on purpose removes its record.
"""

from __future__ import annotations

import re
import zipfile
from collections.abc import Sequence
from pathlib import Path

import h5py

from skelfit.config.manifest import LabelSource
from skelfit.errors import LabelError, OutputError
from skelfit.labels.files.array_files import open_label_file
from skelfit.labels.files.foreign_files import describe_archive, describe_by_keys
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.path_checks import require_regular_file


def check_keys(path: Path, keys: Sequence[str]) -> None:
    """Raise LabelError unless a label file has all these keys, as the file itself names them."""
    if path.is_dir() and keys:
        raise LabelError(
            path, None, "a label file, for the manifest's expected_keys", "a folder of sequences"
        )
    if not path.is_file() or not keys:
        return  # its reader says so
    if zipfile.is_zipfile(path):
        if instead := describe_archive(path):
            raise LabelError(path, None, "an .npz file with the keys of the manifest", instead)
        with zipfile.ZipFile(path) as archive:
            kind, found = "npz", [name.removesuffix(".npy") for name in archive.namelist()]
    elif h5py.is_hdf5(path):
        with h5py.File(path, "r", locking=False) as file:
            kind, found = "hdf5", list(file)
    else:
        with open_label_file(path) as arrays:
            kind, found = arrays.kind, [*arrays.keys, *arrays.names]
    for key in keys:
        if key not in found:
            have = ", ".join(sorted(found)[:20]) or "no keys at all"
            instead = describe_by_keys(path, kind, found) or f"none; the file has {have}"
            raise LabelError(path, key, "a key of this file (by the manifest)", instead)


def check_sha256(source: LabelSource, path: Path, found: str) -> None:
    """Raise LabelError unless a file's sha256 is that of the manifest and that of the record, where there are any."""
    if source.sha256 is not None and source.sha256.lower() != found:
        raise LabelError(path, None, f"sha256 {source.sha256} (by the manifest)", found)
    recorded = recorded_sha256(path)
    if recorded is not None and recorded != found:
        raise LabelError(
            path,
            None,
            f"sha256 {recorded}, as recorded in {record_path(path).name} beside it",
            f"{found}. If the file was replaced on purpose, remove {record_path(path)}",
        )


def record_path(path: Path) -> Path:
    """Where the sha256 of a label file is recorded."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Path) -> str | None:
    """The recorded sha256 of a label file; None where there is no record. Raises LabelError."""
    record = record_path(path)
    require_regular_file(record, "a readable file", LabelError)
    try:
        text = record.read_text("utf-8", errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise LabelError(record, None, "a readable file", str(error)) from None
    match = re.match(r"[0-9a-fA-F]{64}(?=\s|$)", text)
    if match is None:
        expected = "64 hexadecimal digits and a file name, as sha256sum writes them"
        raise LabelError(record, None, expected, f"{text[:40]!r}")
    return match[0].lower()


def record_sha256(path: Path, sha256: str) -> str:
    """Record the sha256 of a label file that has none; returns what to tell the user, '' where there is a record."""
    record = record_path(path)
    if record.exists():
        return ""
    try:
        with atomic_write(record) as temporary:
            temporary.write_text(f"{sha256}  {path.name}\n")
    except OutputError as error:
        return f"sha256 {sha256} of {path} could not be recorded ({error}): the next run will not notice a change"
    return f"sha256 of {path} recorded in {record.name}: later runs compare with it"
