"""Reading pickles of results without running them: arrays as joblib writes them, and torch's tensors.

joblib pickles an array as a record of its class `NumpyArrayWrapper`, and writes the numbers behind it, into the pickle.
A tensor is pickled as a call of `torch._utils._rebuild_tensor_v2` on a storage, whose bytes are an old torch file.
Facts: joblib's numpy_pickle.py, torch's _utils.py and storage.py. Nothing of joblib is imported, and no class or
function that a file names is run.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import math
import pickle
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from skelfit.errors import ModelError
from skelfit.storage.inert_object import inert_class
from skelfit.storage.unpickle import FromBuffer, GlobalError, Passive, PassiveUnpickler, read_pickle

_MOST = 2**33  # bytes of one array, or of a file that is unpacked at once
_WRAPPER = "joblib.numpy_pickle.NumpyArrayWrapper"
_CHUNK = 2**20


class _ArrayWrapper:
    """joblib's record of an array whose numbers follow in the stream."""

    state: Any = None

    def __setstate__(self, state: Any) -> None:
        self.state = state


class _StorageBytes(Passive):
    """torch's `_load_from_bytes(content)`: the storage of a tensor, as an old torch file."""

    __slots__ = ()


class _Tensor(Passive):
    """torch's `_rebuild_tensor_v2(storage, offset, size, stride, ...)`."""

    __slots__ = ()

    def toarray(self) -> npt.NDArray[Any]:
        """The numbers of the tensor. Raises ValueError."""
        import torch

        try:
            storage, offset, size, stride = self.args[:4]
            content = torch.load(io.BytesIO(storage.args[0]), map_location="cpu", weights_only=True)
            # The flat numbers of the storage, and a view of them as the tensor has it.
            flat = torch.empty(0, dtype=content.dtype).set_(content)
            return as_numpy(flat.as_strided(tuple(size), tuple(stride), offset))
        except Exception as error:  # a damaged pickle can raise anything
            raise ValueError(f"a damaged tensor ({' '.join(str(error).split())[:100]})") from None


def _parameter(tensor: Any, *_: object) -> Any:
    """torch's `_rebuild_parameter(tensor, ...)`."""
    return tensor


_TORCH = {
    "torch._utils._rebuild_tensor_v2": _Tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch.storage._load_from_bytes": _StorageBytes,
}


class _ResultUnpickler(PassiveUnpickler):
    """Reads joblib's pickles, and plain ones. An object of a class that is not read becomes an InertObject."""

    dispatch = dict(PassiveUnpickler.dispatch)

    def __init__(self, stream: IO[bytes], path: Path, key: str | None) -> None:
        super().__init__(stream, path, key)
        self.stream = stream

    def find_class(self, module: str, name: str) -> Any:
        full = f"{module}.{name}"
        if full == _WRAPPER:
            return _ArrayWrapper
        if full in _TORCH:
            return _TORCH[full]
        try:
            return super().find_class(module, name)
        except GlobalError:  # no fault, as long as the object is not needed
            return inert_class(full)

    def load_build(self) -> None:
        """As for any object; then the numbers of an array are read, and take the place of its record."""
        unpickler: Any = self  # its stack is no public part
        PassiveUnpickler.dispatch[pickle.BUILD[0]](unpickler)
        made = unpickler.stack[-1]
        if isinstance(made, _ArrayWrapper):
            unpickler.stack[-1] = self._array(made.state)

    dispatch[pickle.BUILD[0]] = cast(Any, load_build)

    def _array(self, state: Any) -> Any:
        shape, dtype = tuple(state["shape"]), state["dtype"]
        if dtype.args[0][0] == "O":  # a pickle of its own follows
            return read_pickle(self.stream, self.path, self.key, _ResultUnpickler)
        if state.get("numpy_array_alignment_bytes") is not None:
            self.stream.read(self.stream.read(1)[0])
        size = math.prod(shape) * dtype_size(dtype)
        if not 0 <= size <= _MOST:
            raise ValueError(f"an array of {size} bytes")
        content = self.stream.read(size)
        if len(content) != size:
            raise EOFError(f"an array of {size} bytes, of which {len(content)} are there")
        return FromBuffer(content, dtype, shape, state.get("order", "C"))


def dtype_size(dtype: Any) -> int:
    """Bytes of a number of a pickled dtype."""
    return np.dtype(str(dtype.args[0])).itemsize


def read_results(stream: IO[bytes], path: Path, key: str | None) -> Any:
    """The content of a pickle stream, joblib's or a plain one, as passive records. Raises ModelError."""
    return read_pickle(stream, path, key, _ResultUnpickler)


def as_numpy(tensor: Any) -> npt.NDArray[Any]:
    """A tensor's numbers; those of a type that numpy lacks as float32."""
    import torch

    plain = tensor.detach()
    if plain.dtype in (torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2):
        plain = plain.float()
    return cast("npt.NDArray[Any]", plain.resolve_conj().numpy())


def _inflate(stream: IO[bytes]) -> IO[bytes]:
    """A whole zlib stream. Raises ValueError when it holds too much."""
    packer, parts, size = zlib.decompressobj(), [], 0
    while block := stream.read(_CHUNK):
        while block:
            parts.append(packer.decompress(block, _CHUNK))
            block, size = packer.unconsumed_tail, size + len(parts[-1])
            if size > _MOST:
                raise ValueError(f"a compressed file of more than {_MOST} bytes")
    return io.BytesIO(b"".join(parts))


_OPENERS: tuple[tuple[re.Pattern[bytes], Callable[[IO[bytes]], Any]], ...] = (
    (re.compile(rb"\x1f\x8b"), lambda raw: gzip.GzipFile(fileobj=raw)),
    (re.compile(rb"BZh[1-9]1AY&SY"), lambda raw: bz2.BZ2File(raw)),
    (re.compile(rb"\xfd7zXZ\0|\x5d\0\0"), lambda raw: lzma.LZMAFile(raw)),  # noqa: SIM115
    (re.compile(rb"\x78[\x01\x5e\x9c\xda]"), _inflate),
)


def open_packed_pickle(raw: IO[bytes]) -> IO[bytes] | None:
    """The stream of the pickle that a compressed file holds, at its beginning; None for any other file."""
    head = raw.read(16)
    raw.seek(0)
    opener = next((opener for magic, opener in _OPENERS if magic.match(head)), None)
    if opener is None:
        return None
    try:
        stream: IO[bytes] = opener(raw)
        first = stream.read(1)
        stream.seek(0)
    except Exception:  # the bytes may be anything
        raw.seek(0)
        return None
    return stream if first == b"\x80" else None


def read_object_array(stream: IO[bytes], path: Path, key: str | None) -> Any:
    """What an .npy of Python objects holds: the one object, or a record of the array. Raises ModelError.

    The stream is at the magic bytes of the .npy.
    """
    version = np.lib.format.read_magic(stream)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(stream)
    if not dtype.hasobject:
        raise ModelError(path, key, "an array of objects", f"one of {dtype}")
    record = read_results(stream, path, key)
    content = record.state[-1] if shape == () and isinstance(getattr(record, "state", None), tuple) else None
    return content[0] if isinstance(content, (list, tuple)) and len(content) == 1 else record
