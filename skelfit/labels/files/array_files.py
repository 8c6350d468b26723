"""The named arrays of a label file: npz, npy, HDF5, torch, JSON, or a pickle, which is read without being run.

The first bytes of a file tell its kind, not its name. Nested names become their last part: `pred_smpl_params.betas` is
`betas`. Arrays are read when they are used, so unused keys may hold anything. Readers of tracks take the tree of nested
names as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from copy import copy
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

import h5py
import numpy as np
from numpy.typing import DTypeLike, NDArray

from skelfit.errors import LabelError, ModelError
from skelfit.labels.files import content_trees as trees
from skelfit.labels.files import foreign_files as foreign
from skelfit.labels.files.file_signatures import describe_file
from skelfit.labels.files.foreign_files import OBJECT_ARRAY
from skelfit.labels.files.hdf5_probe import fatal_fault
from skelfit.storage.inert_object import InertObject
from skelfit.storage.path_checks import require_regular_file
from skelfit.storage.surface_files import ENDINGS as SURFACES
from skelfit.storage.surface_files import read_surface
from skelfit.storage.unpickle import as_array, as_key, as_texts, kind_of

NPY_KEY = "array"  # the key of what an .npy file holds
FILE_KINDS = "an .npz, .npy, HDF5, torch or pickle file"
T = TypeVar("T")
Shape = tuple[int | str, ...]  # after the number of people; '44+' is 44 or more

_MAGIC = {b"PK": "npz", b"\x93NUMPY": "npy", b"\x89HDF\r\n\x1a\n": "hdf5", b"\x80": "pickle"}


class LabelArrays:
    """The named arrays of a file, each checked when it is read. All methods raise LabelError."""

    def __init__(
        self,
        path: Path,
        kind: str,
        arrays: Mapping[str, Any],
        describe_contents: Callable[[], str],
        names: Iterable[str] = (),
        tree: Any = None,
        prefix: str = "",
        shown: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        self.path, self.kind = path, kind
        self._arrays = arrays
        self.tree = arrays if tree is None else tree  # the content with its nested names
        self._prefix = prefix  # of the keys in messages: the track, in a file of several
        self._shown = shown  # keys that a reader made -> what the file calls them
        # What kind of file this is, for the error about a missing key; '' where its keys do not tell.
        self.describe_contents = describe_contents
        # All keys with a value. A pickled list of people may have keys that some people lack: they tell the body model.
        self.names = frozenset(names or arrays)
        self.rows: int | None = None  # set by the first column that has one row per person
        self._rows_of = ""
        self.used_options: set[str] = set()  # the reading options that a reader asked for

    @property
    def keys(self) -> list[str]:
        """All keys, sorted."""
        return sorted(self._arrays)

    def __contains__(self, key: str) -> bool:
        return key in self._arrays

    def first_key(self, *keys: str) -> str | None:
        """The first of the keys that the file has, or None."""
        return next((key for key in keys if key in self), None)

    def numbers(
        self, key: str, *shapes: Shape, dtype: DTypeLike = np.float32, expected: str = ""
    ) -> NDArray[Any]:
        """Numbers (N, ...) of one of the shapes; those beyond the range of the dtype become inf.

        expected: what the shapes are, for a message; '' lists them.
        """
        value = self._checked(key, expected or f"numbers of shape {_either(shapes)}", shapes, "fiub")
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
        """An array of any shape and dtype but object."""
        if key not in self._arrays:
            raise self.error(
                key, expected, self.describe_contents() or f"no such key; the file has {self.list_keys()}"
            )
        if isinstance(self._arrays[key], InertObject):
            raise self.error(key, expected, foreign.describe_global(self._arrays[key].name, self.path))
        try:
            value = load_array(self._arrays[key])
        except Exception as error:  # a damaged file can raise anything
            # Loading an array of objects would run a pickle, that is, code from the file.
            actual = (
                OBJECT_ARRAY if "Object arrays" in str(error) else f"a damaged array ({_one_line(error)})"
            )
            raise self.error(key, expected, actual) from None
        if value.dtype.hasobject:
            raise self.error(key, expected, OBJECT_ARRAY)
        return value

    def use_option(self, name: str, value: T) -> T:
        """The value of a reading option; records that the reader uses the option."""
        self.used_options.add(name)
        return value

    def error(self, key: str | None, expected: str, actual: str) -> LabelError:
        """An error about this file."""
        return LabelError(
            self.path, key if key is None else f"{self._prefix}{self.shown(key)}", expected, actual
        )

    def shown(self, key: str) -> str:
        """What the file calls a key, for messages."""
        return self._shown.get(key, key)

    def part(
        self, arrays: Mapping[str, Any], prefix: str = "", shown: Mapping[str, str] = MappingProxyType({})
    ) -> LabelArrays:
        """Some arrays of this file as if they were alone in one.

        In messages the prefix goes before their keys; `shown` are the names of keys that the file calls otherwise.
        """
        prefix = f"{self._prefix}{prefix}"
        part = LabelArrays(self.path, self.kind, arrays, lambda: "", tree=arrays, prefix=prefix, shown=shown)
        part.used_options = self.used_options
        return part

    def replaced(self, key: str, value: NDArray[Any]) -> LabelArrays:
        """This file with another array in the place of one."""
        other = copy(self)
        other._arrays = {**self._arrays, key: value}
        return other

    def list_keys(self) -> str:
        """The first keys, for a message."""
        return ", ".join(self.keys[:20]) + (", ..." if len(self.keys) > 20 else "") or "no keys at all"

    def describe_keys(self) -> str:
        """The same, as what was found."""
        return f"the keys {self.list_keys()}" if self.keys else "no keys at all"

    def _checked(self, key: str, expected: str, shapes: Iterable[Shape], kinds: str) -> NDArray[Any]:
        value, shapes = self.raw(key, expected), tuple(shapes)
        if value.shape == (0,):  # `np.array([])`: no rows, of any shape
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
def open_label_file(path: str | Path) -> Iterator[LabelArrays]:
    """The arrays of a label file, while it is open. Raises LabelError."""
    path = Path(path)
    require_regular_file(path, f"a label file ({FILE_KINDS})", LabelError)
    try:
        with open(path, "rb") as stream:
            head = stream.read(8)
    except FileNotFoundError:
        raise LabelError(path, None, f"a label file ({FILE_KINDS})", "no such file") from None
    except OSError as error:
        raise LabelError(path, None, "a readable label file", error.strerror or str(error)) from None
    kind = next((kind for magic, kind in _MAGIC.items() if head.startswith(magic)), "")
    with ExitStack() as stack:
        try:
            named, valued, tree = _opened(path, kind, stack)
        except ModelError as error:
            raise LabelError(path, error.key, error.expected, error.found) from None
        except LabelError:
            raise
        except _UnusableError as error:
            raise LabelError(path, None, FILE_KINDS, str(error)) from None
        except Exception as error:  # a damaged file can raise anything
            actual = f"a damaged {kind} file ({_one_line(error)})"
            raise LabelError(path, None, FILE_KINDS, actual) from None
        arrays = {short: named[name] for short, name in _leaves(named).items()}
        describe_contents = partial(foreign.describe_by_keys, path, kind, list(named))
        inert = [value.name for value in named.values() if isinstance(value, InertObject)]
        if inert:  # what is missed may be in it
            describe_contents = partial(foreign.describe_global, inert[0], path)
        yield LabelArrays(path, kind, arrays, describe_contents, valued, tree)


def _opened(path: Path, kind: str, stack: ExitStack) -> tuple[dict[str, Any], set[str], Any]:
    """The arrays of a file, by full names, while the stack is open; the names with a value, if these are others; and
    the tree of its content, if names are nested.

    A damaged file may raise any error.
    """
    if kind == "npz":
        if description := foreign.describe_archive(path):
            raise _UnusableError(description)
        if foreign.is_torch_archive(path):
            return _named(trees.torch_tree(path), path)
        archive = stack.enter_context(np.load(path, allow_pickle=False))
        plain = {name: partial(archive.__getitem__, name) for name in archive.files}
        objects = trees.objects_of_npz(path)
        return flatten(plain | objects), set(), plain | objects
    if kind == "npy":
        if (content := trees.object_of_npy(path)) is not None:
            return _named(content, path)
        if description := foreign.describe_object_arrays(path):
            raise _UnusableError(description)
        return {NPY_KEY: np.load(path, allow_pickle=False, mmap_mode="r")}, set(), None
    if kind == "hdf5":
        if fault := fatal_fault(path):
            raise _UnusableError(f"a damaged hdf5 file ({fault})")
        return _datasets(stack.enter_context(h5py.File(path, "r", locking=False))), set(), None
    if kind == "pickle":
        if description := foreign.describe_pickle(path):
            raise _UnusableError(description)
        tree = trees.torch_tree(path) if foreign.is_old_torch(path) else trees.pickled_tree(path)
        return _named(tree, path)
    if path.suffix.lower() in SURFACES and kind == "":
        return {"vertices": read_surface(path, LabelError)[0][None]}, set(), None
    if trees.is_packed_pickle(path):
        return _named(trees.pickled_tree(path), path)
    if trees.is_motion_json(path):
        return _named(trees.json_tree(path), path)
    with open(path, "rb") as stream:
        begins = f"a file of another kind, or a damaged one (it begins with {stream.read(8)!r})"
    raise _UnusableError(describe_file(path) or begins)


class _UnusableError(Exception):
    """A file that holds no arrays; says what it is."""


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _leaves(names: Iterable[str]) -> dict[str, str]:
    """Last parts of dotted or slashed names -> the names; a last part that occurs twice keeps its whole name."""
    names = list(names)
    short = [name.replace("/", ".").rsplit(".", 1)[-1] for name in names]
    count = Counter(short)
    return {s if count[s] == 1 else name: name for s, name in zip(short, names, strict=True)}


def _datasets(file: h5py.File) -> dict[str, Any]:
    datasets: dict[str, Any] = {}
    file.visititems(
        lambda name, item: datasets.update({name: item}) if isinstance(item, h5py.Dataset) else None
    )
    return datasets


def _named(content: Any, path: Path) -> tuple[dict[str, Any], set[str], Any]:
    """The arrays of a dictionary, or of a list of one per person; all names with a value; the content itself."""
    if isinstance(content, InertObject):
        raise _UnusableError(foreign.describe_global(content.name, path))
    if isinstance(content, dict):
        flat = flatten(content)
        return flat, _valued(flat), content
    if isinstance(content, list) and not content:
        raise _UnusableError("a pickled list without an entry: no person was seen")
    if isinstance(content, list) and all(isinstance(person, dict) for person in content):
        people = [flatten(person) for person in content]
        shared = [name for name in people[0] if all(name in person for person in people)]
        if not shared:
            one, other = (
                ", ".join(sorted(set(names))[:5]) for names in (people[0], set().union(*people[1:]))
            )
            raise _UnusableError(
                f"a list of {len(people)} dictionaries that share no key: the first has {one or 'none'}; "
                f"the others have {other or 'none'}"
            )
        arrays = {name: [person[name] for person in people] for name in shared}
        return arrays, set().union(*map(_valued, people)), content
    raise _UnusableError(f"a pickled {kind_of(content)}, and neither a dictionary nor a list of dictionaries")


def _valued(flat: Mapping[str, Any]) -> set[str]:
    return {name for name, value in flat.items() if value is not None}


def flatten(content: Mapping[Any, Any], above: str = "") -> dict[str, Any]:
    """The leaves of nested dictionaries, by their names, which are joined by dots."""
    flat: dict[str, Any] = {}
    for key, value in content.items():
        name = f"{above}{as_key(key)}"
        flat |= flatten(value, f"{name}.") if isinstance(value, dict) else {name: value}
    return flat


def load_array(value: Any) -> NDArray[Any]:
    """The array of a leaf of a file's content. Raises ValueError, or what a damaged file makes of it."""
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
    """The array of a pickled value: an array, a number, a text, or a list of them."""
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


def _fits(actual: tuple[int, ...], expected: Shape) -> bool:
    if len(actual) != len(expected) + 1:
        return False
    return all(
        a >= _least(b) if isinstance(b, str) else a == b for a, b in zip(actual[1:], expected, strict=True)
    )


def _least(size: int | str) -> int:
    return int(size[:-1]) if isinstance(size, str) else size


def _either(shapes: Iterable[Shape]) -> str:
    return " or ".join("(" + ", ".join(["N", *map(str, shape)]) + ")" for shape in shapes)
