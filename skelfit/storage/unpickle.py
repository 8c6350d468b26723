"""Reading official pickles without running them.

Official SMPL and SKEL files are pickles, some from Python 2, of numpy and scipy.sparse arrays and of objects
of the abandoned chumpy. Here every class and function that such a file names becomes a passive record of its
arguments and its state; nothing of numpy, scipy or chumpy is called while unpickling. `as_array` then reads
the records that are wanted. Any other global is an error that names it.
"""

from __future__ import annotations

import math
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from skelfit.errors import ModelError
from skelfit.storage.path_checks import require_regular_file

_MAX_DEPTH = 16
_DTYPE_CODE = re.compile(r"b1|[iu][1248]|f(2|4|8|16)|[SU][0-9]{1,6}|O[48]?")
_MAX_DENSE = 2**28  # numbers in a sparse array once dense; SKEL's largest has 0.6 million


class Passive:
    """What a pickle says about one object: the arguments it is made with, and its state."""

    __slots__ = ("args", "state")
    args: tuple[Any, ...]
    state: Any

    def __new__(cls, *args: Any) -> Any:
        self = super().__new__(cls)
        self.args, self.state = args, None
        return self

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _NdArray(Passive):
    """numpy.ndarray."""

    __slots__ = ()


class _Reconstruct(_NdArray):
    """numpy's `_reconstruct(ndarray, (0,), b'b')`, state (version, shape, dtype, is_fortran, content)."""

    __slots__ = ()


class FromBuffer(_NdArray):
    """numpy's `_frombuffer(content, dtype, shape, order)` of pickle protocol 5."""

    __slots__ = ()


class _Scalar(_NdArray):
    """numpy's `scalar(dtype, content)`."""

    __slots__ = ()


class _Dtype(Passive):
    """numpy.dtype: arguments ('f8', ...), state (version, byte order, ...)."""

    __slots__ = ()


class _Encode(Passive):
    """Bytes in protocols 0 to 2: `_codecs.encode(text, 'latin1')`, `bytes()`, `bytearray(...)`."""

    __slots__ = ()


class _Sparse(Passive):
    """A compressed or coordinate array of scipy.sparse; the state is its attributes."""

    __slots__ = ()
    layout = ""


class _Chumpy(Passive):
    """Any class of chumpy; the state is its attributes."""

    __slots__ = ()
    name = ""


class _DefaultDict(Passive):
    """collections.defaultdict: a dictionary, whatever it would fill in."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        return {}


class _NewObject(Passive):
    """`copyreg._reconstructor(cls, object, None)` of pickle protocols 0 and 1: a bare object of a class."""

    __slots__ = ()

    def __new__(cls, *args: Any) -> Any:
        if len(args) != 3 or not (isinstance(args[0], type) and issubclass(args[0], Passive)):
            raise pickle.UnpicklingError("copyreg._reconstructor of something that is no array")
        return args[0]()


# Only immutable builtins stand for themselves, so that a pickle cannot leave anything changed behind it.
_GLOBALS: dict[str, Any] = {
    "builtins.object": object,
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "builtins.bytes": _Encode,
    "builtins.bytearray": _Encode,
    "collections.OrderedDict": dict,
    "collections.defaultdict": _DefaultDict,
    "copyreg._reconstructor": _NewObject,
    "_codecs.encode": _Encode,
    "numpy.ndarray": _NdArray,
    "numpy.dtype": _Dtype,
    "numpy.core.multiarray._reconstruct": _Reconstruct,
    "numpy.core.multiarray.scalar": _Scalar,
    "numpy.core.numeric._frombuffer": FromBuffer,
}
_SPARSE = {
    f"{layout}_{kind}": type(layout, (_Sparse,), {"__slots__": (), "layout": layout})
    for layout in ("csr", "csc", "coo")
    for kind in ("matrix", "array")
}
_SPARSE_MODULE = re.compile(r"scipy\.sparse(\._?(csr|csc|coo))?")
_OLD_MODULES = {"__builtin__": "builtins", "copy_reg": "copyreg"}


class GlobalError(ModelError):
    """A pickle that names a class or function other than those of arrays; it was not run."""

    name = ""  # 'package.module.name'


# The unpickler in Python: the one in C grows its memo to gigabytes at a damaged index.
class PassiveUnpickler(pickle._Unpickler):
    def __init__(self, stream: IO[bytes], path: Path, key: str | None) -> None:
        super().__init__(stream, encoding="latin1")
        self.path, self.key = path, key

    def find_class(self, module: str, name: str) -> Any:
        known = _OLD_MODULES.get(module, module).replace("numpy._core", "numpy.core")
        if f"{known}.{name}" in _GLOBALS:
            return _GLOBALS[f"{known}.{name}"]
        if _SPARSE_MODULE.fullmatch(module) and name in _SPARSE:
            return _SPARSE[name]
        if module.split(".")[0] == "chumpy":
            return type(name, (_Chumpy,), {"__slots__": (), "name": f"{module}.{name}"})
        expected = "a pickle of nothing but numpy, scipy.sparse and chumpy arrays"
        error = GlobalError(self.path, self.key, expected, f"the global '{module}.{name}', which is not run")
        error.name = f"{module}.{name}"
        raise error


def load_pickle(path: str | Path) -> dict[str, Any]:
    """The dictionary in a pickle file; read its entries with `as_array` and `as_texts`. Raises ModelError."""
    path = Path(path)
    require_regular_file(path, "a pickle file", ModelError)
    try:
        with open(path, "rb") as stream:
            content = read_pickle(stream, path, None)
    except OSError as error:
        raise ModelError(path, None, "a pickle file", error.strerror or str(error)) from error
    if not isinstance(content, dict):
        raise ModelError(path, None, "a pickled dictionary", f"a {type(content).__name__.lstrip('_')}")
    return content


def read_pickle(
    stream: IO[bytes], path: Path, key: str | None, unpickler: type[PassiveUnpickler] = PassiveUnpickler
) -> Any:
    """The content of a pickle stream as passive records; `path` and `key` go into its ModelErrors."""
    try:
        return unpickler(stream, path, key).load()
    except (ModelError, OSError):
        raise
    except Exception as error:  # a damaged pickle can raise anything
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        actual = f"one that is cut off, damaged or no pickle at all ({reason})"
        raise ModelError(path, key, "a whole pickle", actual) from error


def as_array(value: Any) -> npt.NDArray[Any]:
    """The dense array that a record, a sparse array, a list or an array holds.

    Raises ValueError when it holds none; the message says what was found.
    """
    try:
        return _array(value, _MAX_DEPTH)
    except (TypeError, AttributeError, LookupError, OverflowError) as error:  # records of a damaged file
        raise ValueError(f"a damaged array ({error})") from error


def as_texts(value: Any) -> tuple[str, ...]:
    """The strings of a list, a tuple or an array of strings. Raises ValueError."""
    items = value if isinstance(value, (list, tuple)) else as_array(value).tolist()
    texts = [item.decode("latin1") if isinstance(item, bytes) else item for item in items]
    texts = [str(as_array(text)) if isinstance(text, Passive) else text for text in texts]
    if not all(isinstance(text, str) for text in texts):
        raise ValueError("something else than strings")
    return tuple(str(text) for text in texts)


def as_key(key: Any) -> str:
    """The text of a dictionary's key, of whatever kind: a numpy integer as its digits."""
    if isinstance(key, tuple):
        return f"({', '.join(map(as_key, key))})"
    if isinstance(key, _NdArray):
        try:
            return str(as_array(key))
        except ValueError:
            return kind_of(key)
    if isinstance(key, Passive):
        return kind_of(key)
    return key.decode("utf-8", "replace") if isinstance(key, bytes) else str(key)


def kind_of(value: Any) -> str:
    """What a part of a pickle is, for a message: 'numpy array', 'list'."""
    names = {_Scalar: "numpy number", _Dtype: "numpy dtype", _Encode: "bytes"}
    if isinstance(value, _NdArray):
        return names.get(type(value), "numpy array")
    if isinstance(value, _Sparse):
        return "sparse array"
    return value.name if isinstance(value, _Chumpy) else names.get(type(value), type(value).__name__)


def _array(value: Any, depth: int) -> npt.NDArray[Any]:
    if depth == 0:
        raise ValueError("objects nested too deep")
    if isinstance(value, _NdArray):
        array = _from_record(value)
    elif isinstance(value, _Sparse):
        array = _from_sparse(value.layout, _attributes(value), depth - 1)
    elif isinstance(value, _Chumpy):
        array = _from_chumpy(value, depth - 1)
    elif hasattr(value, "toarray"):
        array = np.asarray(value.toarray())
    elif isinstance(value, (np.ndarray, np.generic, int, float, str)):
        array = np.asarray(value)
    elif isinstance(value, (list, tuple)):
        array = np.array([_array(item, depth - 1) for item in value])
    else:
        raise ValueError(f"a {type(value).__name__.lstrip('_')}")
    if array.dtype == object and array.ndim == 0:  # how np.savez stores a sparse array
        return _array(array.item(), depth - 1)
    return array


def _attributes(record: Passive) -> dict[str, Any]:
    if not isinstance(record.state, dict):
        raise ValueError(f"a {type(record).__name__.lstrip('_')} without attributes")
    return record.state


def _from_record(record: _NdArray) -> npt.NDArray[Any]:
    order: Any
    try:
        if isinstance(record, _Reconstruct):
            shape, dtype, is_fortran, content = record.state[-4:]
            order = "F" if is_fortran else "C"
        elif isinstance(record, FromBuffer):
            content, dtype, shape, order = record.args
        else:
            (dtype, content), shape, order = record.args, (), "C"
    except (TypeError, ValueError) as error:
        raise ValueError("a damaged numpy array") from error
    if not (
        isinstance(shape, tuple) and all(isinstance(size, int) for size in shape) and order in ("C", "F")
    ):
        raise ValueError("a damaged numpy array")
    kind = _dtype(dtype)
    flat: npt.NDArray[Any]
    if kind.hasobject:
        flat = np.empty(len(content), dtype=object)
        flat[:] = content
    else:
        flat = np.frombuffer(_bytes(content), dtype=kind)
    if flat.size != math.prod(shape) or min(shape, default=0) < 0:
        raise ValueError(f"a numpy array of shape {shape} with {flat.size} numbers")
    array: npt.NDArray[Any] = np.reshape(flat, shape, order=order)
    return array


def _dtype(record: Any) -> np.dtype[Any]:
    code = record.args[0] if isinstance(record, _Dtype) and record.args else None
    if not (isinstance(code, str) and _DTYPE_CODE.fullmatch(code)):
        raise ValueError(f"an array of the unsupported dtype {code!r}")
    if code[0] == "O":
        return np.dtype(object)
    byte_order: Any = record.state[1] if isinstance(record.state, tuple) and len(record.state) > 1 else "="
    if byte_order not in ("<", ">", "=", "|"):
        raise ValueError(f"an array of byte order {byte_order!r}")
    dtype: np.dtype[Any] = np.dtype(code)
    ordered: np.dtype[Any] = dtype.newbyteorder(byte_order)
    return ordered


def _bytes(content: Any) -> bytes | bytearray:
    if isinstance(content, _Encode):
        if content.args[1:] not in ((), ("latin1",), ("latin-1",)):
            raise ValueError("bytes in an unsupported encoding")
        content = content.args[0] if content.args else b""
    if isinstance(content, str):  # Python 2 bytes
        return content.encode("latin1")
    if not isinstance(content, (bytes, bytearray)):
        raise ValueError("an array without bytes")
    return content


def _from_sparse(layout: str, state: dict[str, Any], depth: int) -> npt.NDArray[Any]:
    shape = state.get("_shape", state.get("shape"))
    if not (isinstance(shape, tuple) and len(shape) == 2):
        raise ValueError(f"a sparse array of shape {shape!r}")
    rows, columns = (int(_array(size, depth)) for size in shape)
    if min(rows, columns) < 0 or rows * columns > _MAX_DENSE:
        raise ValueError(f"a sparse array of shape {(rows, columns)}")
    try:
        data = _array(state["data"], depth)
        if layout == "coo":
            pair = state["coords"] if "coords" in state else (state["row"], state["col"])
            row, column = (_array(index, depth) for index in pair)
        else:
            starts, minor = _array(state["indptr"], depth).astype(np.int64), _array(state["indices"], depth)
            major = _major_indices(starts, rows if layout == "csr" else columns, len(minor))
            minor, data = minor[: len(major)], data[: len(major)]  # scipy may keep spare room at the end
            row, column = (major, minor) if layout == "csr" else (minor, major)
    except KeyError as error:
        raise ValueError(f"a sparse array without {error}") from error
    if not data.shape == row.shape == column.shape or data.ndim != 1 or data.dtype.kind not in "biuf":
        raise ValueError("a sparse array whose tables do not match")
    if row.dtype.kind not in "iu" or column.dtype.kind not in "iu":
        raise ValueError("a sparse array whose indices are no integers")
    if len(row) and (min(row.min(), column.min()) < 0 or row.max() >= rows or column.max() >= columns):
        raise ValueError("a sparse array with an index out of range")
    dense = np.zeros((rows, columns), dtype=data.dtype)
    np.add.at(dense, (row, column), data)
    return dense


def _major_indices(starts: npt.NDArray[np.int64], count: int, entries: int) -> npt.NDArray[np.int64]:
    """Row (or column) of each entry, from the `indptr` table of a compressed sparse array."""
    lengths = np.diff(starts)
    if starts.shape != (count + 1,) or starts[0] != 0 or starts[-1] > entries or (lengths < 0).any():
        raise ValueError("a sparse array with a damaged indptr")
    return np.repeat(np.arange(count), lengths)


def _from_chumpy(record: _Chumpy, depth: int) -> npt.NDArray[Any]:
    state, name = _attributes(record), record.name.rsplit(".", 1)[-1]
    try:
        if name == "Ch":
            return _array(state["x"], depth)
        if name == "Select":  # flat indices into `a`
            selected = _array(state["a"], depth).ravel()[_array(state["idxs"], depth)]
            return np.reshape(selected, _shape(state.get("preferred_shape", selected.shape)))
        if name == "Reshape":
            return np.reshape(_array(state["a"], depth), _shape(state["newshape"]))
    except LookupError as error:
        raise ValueError(f"a damaged {record.name} ({error})") from error
    raise ValueError(f"a {record.name}, which is a computation and not an array")


def _shape(value: Any) -> tuple[int, ...]:
    return tuple(int(size) for size in np.atleast_1d(as_array(value)))
