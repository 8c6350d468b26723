"""What is known of a label file before it is read: its keys and its sha256.

The sha256 of a file is pinned in its manifest, or recorded at its first use in a file beside it, `NAME.sha256`, in the
format of sha256sum. A record is never changed here: users who replace a file on purpose remove its record.
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
from skelfit.labels.files.foreign_files import describe_archive, describe_by_keys, is_torch_archive
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.locations import Location, is_writable
from skelfit.storage.path_checks import require_regular_file


def check_keys(path: Path, keys: Sequence[str]) -> None:
    """Raise LabelError unless a label file has all these keys."""
    if path.is_dir() and keys:
        raise LabelError(
            path, None, "a label file, for the manifest's expected_keys", "a folder of sequences"
        )
    if not path.is_file() or not keys:
        return  # a missing file is reported by its reader
    if zipfile.is_zipfile(path) and not is_torch_archive(path):
        if actual := describe_archive(path):
            raise LabelError(path, None, "an .npz file with the keys of the manifest", actual)
        with zipfile.ZipFile(path) as archive:
            kind, names = "npz", [name.removesuffix(".npy") for name in archive.namelist()]
    elif h5py.is_hdf5(path):
        with h5py.File(path, "r", locking=False) as file:
            kind, names = "hdf5", list(file)
    else:
        with open_label_file(path) as arrays:
            kind, names = arrays.kind, [*arrays.keys, *arrays.names]
    for key in keys:
        if key not in names:
            listed = ", ".join(sorted(names)[:20]) or "no keys at all"
            actual = describe_by_keys(path, kind, names) or f"none; the file has {listed}"
            raise LabelError(path, key, "a key of this file (by the manifest)", actual)


def check_sha256(source: LabelSource, path: Location, actual: str) -> None:
    """Raise LabelError unless a file's sha256 agrees with the manifest and with the record, where they exist."""
    if source.sha256 is not None and source.sha256.lower() != actual:
        raise LabelError(path, None, f"sha256 {source.sha256} (by the manifest)", actual)
    recorded = recorded_sha256(path)
    if recorded is not None and recorded != actual:
        raise LabelError(
            path,
            None,
            f"sha256 {recorded}, as recorded in {record_path(path).name} beside it",
            f"{actual}. If the file was replaced on purpose, remove {record_path(path)}",
        )


def record_path(path: Location) -> Location:
    """The file that records the sha256 of a label file."""
    return path.with_name(f"{path.name}.sha256")


def recorded_sha256(path: Location) -> str | None:
    """The recorded sha256 of a label file; None where there is no record. Raises LabelError."""
    if not is_writable(path):
        return None
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


def record_sha256(path: Location, sha256: str) -> str:
    """Record the sha256 of a label file without a record; returns a message for the user, '' where one exists."""
    record = record_path(path)
    if not is_writable(path) or record.exists():
        return ""
    try:
        with atomic_write(record) as temporary:
            temporary.write_text(f"{sha256}  {path.name}\n")
    except OutputError as error:
        return f"sha256 {sha256} of {path} could not be recorded ({error}): the next run will not notice a change"
    return f"sha256 of {path} recorded in {record.name}: later runs compare with it"
