"""What a fit asks of its device: launches, synchronisations, and the time of each kernel.

A backend has one method for launches and one for reading what is on the device; a `Recording` stands in for it and
counts both. Torch's own operations are launches too: `TorchCalls` counts them, and those that have to wait.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

# They bring a number or a length to the host.
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal", "bincount")


class Backend(Protocol):
    """What is counted: everything that is launched and read goes through these two."""

    def launch(self, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        """Start a kernel on so many groups."""

    def read(self, array: Any) -> Any:
        """What a device's array holds, on the host: waits until everything before is done."""


class Recording:
    """Stands in for a backend, does what it does, and keeps count.

    before is called before each launch. The seconds are those of a CPU, where a launch returns when it is done.
    """

    def __init__(self, backend: Backend, before: Callable[[], object] = lambda: None) -> None:
        self.backend, self.before = backend, before
        self.launches: Counter[str] = Counter()
        self.seconds: Counter[str] = Counter()
        self.reads = 0
        self.read_bytes = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self.backend, name)

    def launch(self, kernel: Any, *given: Any, **named: Any) -> Any:
        """Launch it, counted by its name."""
        self.before()
        started = time.perf_counter()
        found = self.backend.launch(kernel, *given, **named)
        self.seconds[kernel.key] += time.perf_counter() - started  # type: ignore[assignment]
        self.launches[kernel.key] += 1
        return found

    def read(self, array: Any, *given: Any, **named: Any) -> Any:
        """Read it, counted."""
        found = self.backend.read(array, *given, **named)
        self.reads += 1
        self.read_bytes += int(getattr(found, "nbytes", 8))
        return found


class TorchCalls(TorchDispatchMode):
    """While it is open, torch's operations of this thread are counted by name; views, which start nothing, are not."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.waits: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func.overloadpacket.__name__
        if not func.is_view:
            self.calls[name] += 1
        by_mask = name in ("index", "index_put", "index_put_") and any(
            isinstance(x, Tensor) and x.dtype == torch.bool for x in args[1]
        )
        if name in _WAITING or by_mask:
            self.waits[name] += 1
        return func(*args, **(kwargs or {}))
