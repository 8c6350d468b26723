"""How the loops that CPUs run are compiled, and kept on disk under what they mean.

numba keeps a compiled function under its file's time and the function's line, and does not look into the functions
that it calls. Here the key is a hash of all that the machine code is made of: bytecode, constants and options of the
function and of every function and constant that it refers to. So an edited comment, docstring or line number compiles
nothing, and a changed constant compiles just the functions that use it.
"""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, TypeVar, cast

import numba
import numpy as np
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numpy.typing import NDArray

# Off by default; what is done to the eight problems of a group at once is a scalar operation each without it.
numba.config.SLP_VECTORIZE = 1  # type: ignore[attr-defined]

# `contract` lets a product and a sum be one instruction; nothing else may be rearranged, so that a result depends on
# nothing but the arguments. While compiled code runs, other threads do too.
_OPTIONS: dict[str, Any] = {"nogil": True, "fastmath": {"contract"}, "error_model": "numpy"}

F = TypeVar("F", bound=Callable[..., Any])
Array = NDArray[Any]

_KEPT: list[_Kept] = []


class _Kept(FunctionCache):
    """numba's files of one function, named after its meaning."""

    def __init__(self, function: FunctionType) -> None:
        super().__init__(function)
        self.function = function
        del self._cache_file  # numba's own name for it; the property below makes ours

    @cached_property
    def index(self) -> Path:
        """The file that says what is kept. Asked for late: a function may call others that stand below it."""
        name, python = f"{self.function.__module__}.{self.function.__qualname__}", sys.version_info
        key = f"{name}-{meaning_sha256(self.function)[:16]}.py{python[0]}{python[1]}"
        return Path(self._cache_path) / f"{key}.nbi"

    @cached_property
    def _cache_file(self) -> IndexDataCacheFile:  # type: ignore[override]
        # The name says it all: no stamp of the source beside it.
        return IndexDataCacheFile(self._cache_path, self.index.stem, source_stamp="")


def compiled(function: F) -> F:
    """Compile at the first call, for the types of its arguments, and keep the result on disk."""
    dispatcher = numba.njit(**_OPTIONS)(function)
    dispatcher._cache = _Kept(cast("FunctionType", function))
    _KEPT.append(dispatcher._cache)
    return cast("F", dispatcher)


def is_compiled() -> bool:
    """Whether everything that has been imported and can be compiled is kept on this machine."""
    return all(kept.index.exists() for kept in _KEPT)


def meaning_sha256(function: FunctionType) -> str:
    """A hash of all that the machine code of a function follows from, but for the types of its arguments."""
    digest = hashlib.sha256(repr(sorted(_OPTIONS.items(), key=str)).encode())
    for part in _meaning(function, set()):
        digest.update(part.encode() + b"\0")
    return digest.hexdigest()


def _meaning(function: FunctionType, seen: set[FunctionType]) -> Iterator[str]:
    """The bytecode and constants of a function, then those of what it refers to; each function once."""
    if function in seen:
        return
    seen.add(function)
    yield from _code(function.__code__, function.__doc__)
    yield f"{function.__defaults__} {function.__kwdefaults__}"
    if function.__closure__:
        raise TypeError(f"{function.__qualname__}: expected a function without a closure, which has no key")
    for name in sorted(_names(function.__code__) & set(function.__globals__)):
        yield name
        yield from _value(function.__globals__[name], seen)


def _code(code: CodeType, doc: str | None) -> Iterator[str]:
    yield code.co_code.hex()
    yield f"{code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _code(constant, None)
        elif constant is not doc:
            yield repr(constant)


def _names(code: CodeType) -> set[str]:
    inner = (constant for constant in code.co_consts if isinstance(constant, CodeType))
    return set(code.co_names).union(*map(_names, inner))


def _value(value: Any, seen: set[FunctionType]) -> Iterator[str]:
    """What a global stands for: another compiled function, a table, a number."""
    function = getattr(value, "py_func", value)
    if isinstance(function, FunctionType):
        yield from _meaning(function, seen)
    elif isinstance(value, np.ndarray):
        yield f"{value.dtype} {value.shape} {value.tobytes().hex()}"
    elif isinstance(value, ModuleType):
        yield value.__name__
    elif isinstance(value, (bool, int, float, str, tuple, type)) or value is None:
        yield repr(value)
    else:
        raise TypeError(f"{value!r}: expected a number, an array or a function in compiled code")
