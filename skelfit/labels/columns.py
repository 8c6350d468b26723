"""The columns of a label file, whatever holds them: npz, npy, HDF5, or a pickle, which is read without being run.

What a file is, its first bytes tell, not its name. Nested names become their last part: `pred_smpl_params.betas` is
`betas`. Arrays are read when they are asked for, so a key that nobody asks for may hold anything.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from skelfit.body.unpickle import as_array, as_texts, read_pickle
from skelfit.errors import LabelError, ModelError
from skelfit.files import regular_file
from skelfit.labels.hdf5 import fatal_fault

ARRAY = "array"  # the key of what an .npy file holds
KINDS = "an .npz, .npy, HDF5 or pickle file"
Shape = tuple[int | str, ...]  # after the number of people; '44+' is 44 or more

_OBJECTS = "an object array (it needs unpickling, which could run code; save plain arrays)"
_MAGIC = {b"PK": "npz", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5", b"\x80": "pickle"}


class Columns:
    """The named arrays of a file, each checked when it is read; raises LabelError for whatever is wrong."""

    def __init__(self, path: Path, kind: str, arrays: Mapping[str, Any]) -> None:
        self.path, self.kind = path, kind
        self._arrays = arrays
        self.rows: int | None = None  # set by the first column that has one row per person
        self._rows_of = ""

    @property
    def keys(self) -> list[str]:
        """What there is, sorted."""
        return sorted(self._arrays)

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def first_of(self, *keys: str) -> str | None:
        """The first of some keys that there is."""
        return next((key for key in keys if key in self), None)

    def numbers(self, key: str, *shapes: Shape, dtype: DTypeLike = np.float32) -> NDArray[Any]:
        """Numbers of N rows; beyond the range of the dtype they are inf."""
        value = self._checked(key, f"numbers of shape {_either(shapes)}", shapes, "fiub")
        with np.errstate(over="ignore"):
            return value.astype(dtype)

    def texts(self, key: str) -> list[str]:
        """N texts that can be stored as UTF-8; what cannot (an embedded zero, a lone surrogate) becomes '?'."""
        return to_texts(self._checked(key, "text of shape (N)", [()], "US"))

    def text(self, key: str) -> str:
        """One text for the whole file."""
        value = self.raw(key, "one text")
        if value.dtype.kind not in "US" or value.size != 1:
            raise self.error(key, "one text", f"dtype {value.dtype} of shape {value.shape}")
        return to_texts(value.reshape(1))[0]

    def number(self, key: str) -> float:
        """One number for the whole file."""
        value = self.raw(key, "one number")
        if value.dtype.kind not in "fiu" or value.size != 1:
            raise self.error(key, "one number", f"dtype {value.dtype} of shape {value.shape}")
        return float(value.reshape(()))

    def raw(self, key: str, expected: str) -> NDArray[Any]:
        """An array as it is, of no objects."""
        if key not in self._arrays:
            raise self.error(key, expected, f"no such key; the file has {self.listed()}")
        try:
            value = _load(self._arrays[key])
        except Exception as error:  # a damaged file can raise anything
            # Loading an array of objects would run a pickle, that is, code of whoever made the file.
            found = _OBJECTS if "Object arrays" in str(error) else f"a damaged array ({_one_line(error)})"
            raise self.error(key, expected, found) from None
        if value.dtype.hasobject:
            raise self.error(key, expected, _OBJECTS)
        return value

    def error(self, key: str | None, expected: str, found: str) -> LabelError:
        """A fault of this file."""
        return LabelError(self.path, key, expected, found)

    def listed(self) -> str:
        """The keys, for a message."""
        return ", ".join(self.keys[:20]) + (", ..." if len(self.keys) > 20 else "") or "no keys at all"

    def _checked(self, key: str, expected: str, shapes: Iterable[Shape], kinds: str) -> NDArray[Any]:
        value, shapes = self.raw(key, expected), tuple(shapes)
        if value.shape == (0,):  # how `np.array([])` stores no rows, whatever they would have been
            value = np.zeros((0, *map(_least, shapes[0])), "U1" if "U" in kinds else np.float64)
        if not any(_fits(value.shape, shape) for shape in shapes):
            raise self.error(key, expected, f"shape {value.shape}")
        if value.dtype.kind not in kinds:
            raise self.error(key, expected, f"dtype {value.dtype}")
        if self.rows is None:
            self.rows, self._rows_of = len(value), key
        if len(value) != self.rows:
            raise self.error(key, f"{self.rows} rows, as many as '{self._rows_of}' has", f"{len(value)} rows")
        return value


@contextmanager
def open_columns(path: str | Path) -> Iterator[Columns]:
    """The columns of a label file, while it is open. Raises LabelError."""
    path = Path(path)
    regular_file(path, f"a label file ({KINDS})", LabelError)
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except FileNotFoundError:
        raise LabelError(path, None, f"a label file ({KINDS})", "no such file") from None
    except OSError as error:
        raise LabelError(path, None, "a readable label file", error.strerror or str(error)) from None
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    arrays: dict[str, Any]
    with ExitStack() as stack:
        try:
            if kind == "npz":
                if not zipfile.is_zipfile(path):  # its table of contents stands at the end
                    raise _UnusableError("a truncated .npz file")
                archive = stack.enter_context(np.load(path, allow_pickle=False))
                names = _leaves(archive.files)
                arrays = {short: partial(archive.__getitem__, name) for short, name in names.items()}
            elif kind == "npy":
                arrays = {ARRAY: np.load(path, allow_pickle=False, mmap_mode="r")}
            elif kind == "hdf5":
                if fault := fatal_fault(path):
                    raise _UnusableError(f"a damaged hdf5 file ({fault})")
                arrays = _datasets(stack.enter_context(h5py.File(path, "r", locking=False)))
            elif kind == "pickle":
                arrays = _pickled(path)
            else:
                raise _UnusableError(f"a file of another kind, or a damaged one (it begins with {head!r})")
        except ModelError as error:
            raise LabelError(path, error.key, error.expected, error.found) from None
        except _UnusableError as error:
            raise LabelError(path, None, KINDS, str(error)) from None
        except Exception as error:  # a damaged file can raise anything
            found = (
                _OBJECTS if "Python objects" in str(error) else f"a damaged {kind} file ({_one_line(error)})"
            )
            raise LabelError(path, None, KINDS, found) from None
        yield Columns(path, kind, arrays)


class _UnusableError(Exception):
    """A file that holds no columns, and what it holds."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _leaves(names: Iterable[str]) -> dict[str, str]:
    """Last parts of dotted or slashed names -> the names; a last part that occurs twice keeps its whole name."""
    names = list(names)
    short = [name.replace("/", ".").rsplit(".", 1)[-1] for name in names]
    return {s if short.count(s) == 1 else name: name for s, name in zip(short, names, strict=True)}


def _datasets(file: h5py.File) -> dict[str, Any]:
    found: dict[str, Any] = {}
    file.visititems(lambda name, item: found.update({name: item}) if isinstance(item, h5py.Dataset) else None)
    return {short: found[name] for short, name in _leaves(found).items()}


def _pickled(path: Path) -> dict[str, Any]:
    """The arrays of a pickled dictionary, or of a list of one dictionary per person."""
    with open(path, "rb") as stream:
        content = read_pickle(stream, path, None)
    if isinstance(content, dict):
        flat = _flatten(content)
        return {short: flat[name] for short, name in _leaves(flat).items()}
    if isinstance(content, list) and content and all(isinstance(person, dict) for person in content):
        people = [_flatten(person) for person in content]
        shared = [name for name in people[0] if all(name in person for person in people)]
        return {short: [person[name] for person in people] for short, name in _leaves(shared).items()}
    found = type(content).__name__.lstrip("_")
    raise _UnusableError(f"a pickled {found}, and neither a dictionary nor a list of dictionaries")


def _flatten(content: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{above}{key}"
        flat |= _flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def _load(value: Any) -> NDArray[Any]:
    if callable(value):
        return np.asarray(value())
    if isinstance(value, h5py.Dataset):
        if h5py.check_string_dtype(value.dtype) is not None:
            return np.array(value.asstr(errors="replace")[()], dtype=np.str_)
        return np.asarray(value[()])
    if isinstance(value, np.ndarray):
        return value
    return _array(value)


def _array(value: Any) -> NDArray[Any]:
    """What a pickle has: arrays, numbers, texts, or lists of them."""
    if isinstance(value, (str, bytes)):
        return np.array(value if isinstance(value, str) else value.decode("utf-8", "replace"))
    if isinstance(value, (list, tuple)) and value and isinstance(value[0], (str, bytes)):
        return np.array(as_texts(value))
    return as_array(value)


def to_texts(column: NDArray[Any]) -> list[str]:
    """Text that can be stored as UTF-8; what cannot (an embedded zero, a lone surrogate) becomes '?'."""
    if column.dtype.kind == "S":
        column = np.char.decode(column, "utf-8", "replace")
    return [
        t.replace("\0", "?").encode("utf-8", "replace").decode("utf-8", "replace") for t in column.tolist()
    ]


def _fits(found: tuple[int, ...], expected: Shape) -> bool:
    if len(found) != len(expected) + 1:
        return False
    return all(
        a >= _least(b) if isinstance(b, str) else a == b for a, b in zip(found[1:], expected, strict=True)
    )


def _least(size: int | str) -> int:
    return int(size[:-1]) if isinstance(size, str) else size


def _either(shapes: Iterable[Shape]) -> str:
    return " or ".join("(" + ", ".join(["N", *map(str, shape)]) + ")" for shape in shapes)
