"""A pickle module for `torch.load` that makes tensors and plain containers, and nothing else.

Files from elsewhere hold objects beside their tensors: configurations (omegaconf, yacs, argparse), random states,
paths. Arrays of numpy become records that `unpickle.as_array` reads. Every other class or function that a file names
becomes an `InertObject`, which takes whatever the file does with it and does nothing.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import IO, Any, cast

from torch._utils import _rebuild_tensor

from skelfit.storage.inert_object import inert_class
from skelfit.storage.unpickle import GlobalError, Passive, PassiveUnpickler


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


class Unpickler(PassiveUnpickler):
    """What `torch.load` reads its pickles with, when this module is its pickle_module."""

    dispatch = dict(PassiveUnpickler.dispatch)

    def __init__(self, stream: IO[bytes], **_: object) -> None:
        super().__init__(stream, Path(), None)

    def find_class(self, module: str, name: str) -> Any:
        """What stands for a class or function."""
        full = f"{_OLD_MODULES.get(module, module)}.{name}"
        if full in _GLOBALS:
            return _GLOBALS[full]
        try:
            return super().find_class(module, name)
        except GlobalError:
            return inert_class(full)

    def load_build(self) -> None:
        """Drop the state of objects but arrays: attributes mean nothing, and some might be set on what is shared."""
        unpickler: Any = self  # its stack is no public part
        if isinstance(unpickler.stack[-2], Passive):
            PassiveUnpickler.dispatch[pickle.BUILD[0]](unpickler)
        else:
            unpickler.stack.pop()

    dispatch[pickle.BUILD[0]] = cast(Any, load_build)


def load(stream: IO[bytes], **options: Any) -> Any:
    """`torch.load` reads files of its old form with this. There are none here."""
    raise pickle.UnpicklingError("a file in the form of torch before 1.6")
