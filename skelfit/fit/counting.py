"""What a fit asks of its device: launches, synchronisations, and the time of each kernel.

A backend has one method for launches and one for reading what is on the device; a `Recording` is one that counts
both. Torch's own operations are launches too: `TorchCalls` counts them, and those that have to wait.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from skelfit.fit.backend import Backend

# They bring a number or a length to the host.
_WAITING = ("_local_scalar_dense", "nonzero", "masked_select", "unique_dim", "_unique2", "equal", "bincount")


@dataclass(frozen=True)
class Recording(Backend):
    """A backend that keeps count of what it does. `before` is called before each launch, `after` with its name.

    The seconds are those of a CPU, where a launch returns when it is done; not those that compiling takes.
    """

    before: Callable[[], object] = field(default=lambda: None, compare=False)
    after: Callable[[str], object] = field(default=lambda kernel: None, compare=False)
    launches: Counter[str] = field(default_factory=Counter, compare=False)  # of each kernel
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float), compare=False)
    reads: list[int] = field(default_factory=list, compare=False)  # bytes of each

    def launch(self, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        """Start a kernel, if on any group; counted by its name."""
        self.before()
        started = time.perf_counter()
        super().launch(kernel, groups, inputs)
        if groups:
            self.seconds[kernel.key] += time.perf_counter() - started
            self.launches[kernel.key] += 1
            self.after(kernel.key)

    def read(self, array: Any) -> Tensor:
        """Read it, counted."""
        found = super().read(array)
        self.reads.append(found.nbytes)
        return found

    def forget(self) -> None:
        """Count from zero."""
        for count in (self.launches, self.seconds, self.reads):
            count.clear()


def recording(
    backend: Backend,
    before: Callable[[], object] = lambda: None,
    after: Callable[[str], object] = lambda kernel: None,
) -> Recording:
    """The same backend, counting."""
    own = {f.name: getattr(backend, f.name) for f in fields(Backend)}
    return Recording(**own, before=before, after=after)


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
