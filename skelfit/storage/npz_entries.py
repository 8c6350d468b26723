"""Entries of npz files that may hold Python objects, read without running them."""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from skelfit.errors import ModelError
from skelfit.storage.unpickle import read_pickle


def read_entries(path: Path, keys: Iterable[str]) -> dict[str, Any]:
    """Those of the entries that a file has; objects as passive records, for `as_array`. Raises ModelError."""
    values: dict[str, Any] = {}
    key = None
    try:
        with zipfile.ZipFile(path) as archive:
            for key in keys:
                if f"{key}.npy" in archive.namelist():
                    with archive.open(f"{key}.npy") as member:
                        values[key] = _read_npy(member, path, key)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, NotImplementedError) as error:
        raise ModelError(path, key, "an npz file that can be read", str(error)) from error
    return values


def _read_npy(member: Any, path: Path, key: str) -> Any:
    version = np.lib.format.read_magic(member)
    read_header = (
        np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    )
    if read_header(member)[2].hasobject:
        return read_pickle(member, path, key)
    member.seek(0)
    return np.lib.format.read_array(member, allow_pickle=False)
