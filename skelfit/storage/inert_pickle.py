"""A pickle module for `torch.load` that makes tensors and plain containers, and nothing else.

Checkpoints from elsewhere hold objects beside their tensors: configurations (omegaconf, yacs, argparse), numpy's random
states, paths. Their classes need not be installed here, and nothing of them may run. So every other class or function
that a file names becomes an `InertObject`, which takes whatever the file does with it and does nothing.
"""

from __future__ import annotations

import pickle
from typing import IO, Any

from torch._utils import _rebuild_tensor


class InertObject:
    """An object of a file that was not made; `name` is that of its class or function."""

    name = ""

    def __new__(cls, *_: object, **__: object) -> InertObject:
        return super().__new__(cls)

    def __call__(self, *_: object, **__: object) -> InertObject:
        return self

    def __setitem__(self, _: object, __: object) -> None:
        """Entries of dictionaries with a class of their own (yacs)."""

    def append(self, _: object) -> None:
        """Items of lists with a class of their own."""

    def extend(self, _: object) -> None:
        """As `append`."""


class _NamedValues(dict[Any, Any]):
    """collections.OrderedDict: what a state dict is."""


def _tensor(storage: Any, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: object) -> Any:
    return _rebuild_tensor(storage, offset, size, stride)


def _parameter(data: Any, *_: object) -> Any:
    return data


# What stands for itself is immutable, or is made here: a file leaves nothing changed behind it.
_GLOBALS: dict[str, Any] = {
    "builtins.dict": dict,
    "builtins.list": list,
    "builtins.tuple": tuple,
    "builtins.set": set,
    "builtins.frozenset": frozenset,
    "collections.OrderedDict": _NamedValues,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_parameter": _parameter,
    "torch._utils._rebuild_parameter_with_state": _parameter,
}
_OLD_MODULES = {"__builtin__": "builtins"}


# The unpickler in Python: the one in C grows its memo to gigabytes at a damaged index, and sets attributes (BUILD).
class Unpickler(pickle._Unpickler):
    """What `torch.load` reads its pickles with, when this module is its pickle_module."""

    dispatch = dict(pickle._Unpickler.dispatch)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function."""
        full = f"{_OLD_MODULES.get(module, module)}.{name}"
        return _GLOBALS[full] if full in _GLOBALS else type("InertObject", (InertObject,), {"name": full})

    def load_build(self) -> None:
        """Drop the state of an object: attributes mean nothing here, and some could be set on what others use."""
        self.stack.pop()  # type: ignore[attr-defined]

    dispatch[pickle.BUILD[0]] = load_build  # type: ignore[assignment]


def load(stream: IO[bytes], **options: Any) -> Any:
    """`torch.load` reads files of its old form with this. There are none here."""
    raise pickle.UnpicklingError("a file in the form of torch before 1.6")
