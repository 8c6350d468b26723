"""Files of nested dictionaries, as estimators write their results: torch files, JSON, npz and npy of Python objects.

Each becomes a tree of dictionaries and lists whose leaves are arrays, or records that `as_array` reads. Nothing of a
file is run.
"""

from __future__ import annotations

import json
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from skelfit.errors import LabelError, ModelError
from skelfit.storage.pickled_arrays import as_numpy, open_packed_pickle, read_object_array, read_results
from skelfit.storage.tensor_files import read_tensor_file

_HEAD = 2**16
_MARKS = (b'"Rh"', b'"Th"', b'"poses"')  # keys of EasyMocap's people, in the first bytes of its files


def pickled_tree(path: Path) -> Any:
    """The content of a pickle, compressed or not, of joblib or not. Raises ModelError."""
    with open(path, "rb") as raw:
        return read_results(open_packed_pickle(raw) or raw, path, None)


def is_packed_pickle(path: Path) -> bool:
    """Whether a file is a compressed pickle, as joblib writes it."""
    with open(path, "rb") as raw:
        return open_packed_pickle(raw) is not None


def torch_tree(path: Path) -> Any:
    """The content of a torch file; its tensors are functions that give arrays. Raises LabelError."""
    expected = "a torch file of tensors and plain data"
    content = read_tensor_file(path, expected, LabelError, mapped=zipfile.is_zipfile(path), objects=True)
    return _plain(content)


def _plain(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    return partial(as_numpy, content) if hasattr(content, "detach") else content


def is_motion_json(path: Path) -> bool:
    """Whether a file is JSON with the keys of EasyMocap's people."""
    with open(path, "rb") as stream:
        head = stream.read(_HEAD)
    return head.lstrip()[:1] in (b"[", b"{") and all(mark in head for mark in _MARKS)


def json_tree(path: Path) -> Any:
    """The content of a JSON file. Raises ValueError."""
    return json.loads(path.read_bytes())


def object_of_npy(path: Path) -> Any:
    """The dictionary that an .npy of Python objects holds; None for any other array. Raises ModelError."""
    with open(path, "rb") as stream:
        return _dictionary(stream, path, None)


def objects_of_npz(path: Path) -> dict[str, Any]:
    """The dictionaries among the members of an .npz, by their names."""
    found = {}
    with zipfile.ZipFile(path) as archive:
        for member in archive.namelist():
            name = member.removesuffix(".npy")
            with archive.open(member) as stream:
                try:
                    content = _dictionary(stream, path, name)
                except ModelError:
                    continue  # other objects, which are refused when a reader asks for them
                if content is not None:
                    found[name] = content
    return found


def _dictionary(stream: Any, path: Path, key: str | None) -> dict[Any, Any] | None:
    start = stream.tell()
    try:
        version = np.lib.format.read_magic(stream)
        header = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(stream)
    except Exception:  # a damaged member, which the reader of the array reports
        return None
    if not dtype.hasobject or shape != ():
        return None
    stream.seek(start)
    content = read_object_array(stream, path, key)
    return content if isinstance(content, dict) else None
