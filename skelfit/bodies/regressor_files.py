"""Files of regressors, which hold weights of posed skin vertices for each joint: read without running them."""

from __future__ import annotations

import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelfit.bodies.assets import Float32, write_npz
from skelfit.bodies.model_set import write_provenance
from skelfit.bodies.official_files import file_sha256
from skelfit.errors import ModelError
from skelfit.storage.path_checks import require_regular_file
from skelfit.storage.unpickle import as_array, read_pickle

_NOTED_OFF = 1e-3


@dataclass(frozen=True)
class RegressorRecord:
    """An imported regressor: its source file and its asset."""

    source: Path
    source_sha256: str
    asset: Path
    asset_sha256: str
    notes: tuple[str, ...]


def read_regressor(path: Path, what: str, key: str) -> Any:
    """The array of a file, read without running code from it; of several in an npz, the one of `key`.

    what: the file holds this, for messages. Raises ModelError.
    """
    ending = path.suffix.lower()
    require_regular_file(path, what, ModelError)
    try:
        if ending == ".pkl":
            with open(path, "rb") as stream:
                return as_array(read_pickle(stream, path, None))
        if ending not in (".npy", ".npz"):
            raise ModelError(path, None, f"{what} (.npy, .npz or .pkl)", f"the ending '{ending}'")
        loaded = np.load(path, allow_pickle=False)
        if ending == ".npy":
            return loaded
        with loaded as archive:
            if key in archive.files:
                return archive[key]
            if len(archive.files) != 1:
                names = ", ".join(archive.files) or "none"
                raise ModelError(path, key, "that array, or one array alone", names)
            return archive[archive.files[0]]
    except FileNotFoundError:
        raise ModelError(path, None, what, "no such file") from None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise ModelError(path, None, f"{what} that can be read", str(error)) from None


def notes_on_sums(array: np.ndarray[Any, Any]) -> tuple[str, ...]:
    """What is unusual of a regressor (J, V): rows that do not sum to 1."""
    off = float(np.abs(array.sum(axis=1, dtype=np.float64) - 1).max())
    return (f"rows sum to 1 only within {off:.2g}",) if off > _NOTED_OFF else ()


def write_regressor(
    kind: str, regressor: Float32, source: Path, target: Path, notes: tuple[str, ...]
) -> RegressorRecord:
    """Write a checked regressor as an asset of a models folder, with its provenance. Raises OutputError."""
    write_npz(target, {kind: regressor})
    sha256 = hashlib.sha256(regressor.tobytes()).hexdigest()
    record = RegressorRecord(source, file_sha256(source), target, sha256, notes)
    entry = {"kind": kind, "source": source.name, "asset": target.name, "notes": "; ".join(notes)}
    entry |= {"source_sha256": record.source_sha256, "asset_sha256": record.asset_sha256}
    write_provenance(target.parent, [entry])
    return record
