"""Counts what a fit does on its device: launches, copies from and to it, and the time of each kernel."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any

from numpy.typing import NDArray
from torch import Tensor

from skelfit.fitting.backends.backend import Backend


@dataclass(frozen=True)
class Recording(Backend):
    """A backend that counts its calls. `before` is called before each launch, `after` after it with the kernel's name.

    The seconds are valid on a CPU, where a launch returns when it is done, and do not include compilation.
    """

    before: Callable[[], object] = field(default=lambda: None, compare=False)
    after: Callable[[str], object] = field(default=lambda kernel: None, compare=False)
    launches: Counter[str] = field(default_factory=Counter, compare=False)  # of each kernel
    seconds: dict[str, float] = field(default_factory=lambda: defaultdict(float), compare=False)
    reads: list[int] = field(default_factory=list, compare=False)  # bytes of each; the host waits for it
    writes: list[int] = field(default_factory=list, compare=False)  # bytes of each

    def launch(self, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        """Start a kernel on some groups, or on none; counted by its name."""
        self.before()
        started = time.perf_counter()
        super().launch(kernel, groups, inputs)
        if groups:
            self.seconds[kernel.key] += time.perf_counter() - started
            self.launches[kernel.key] += 1
            self.after(kernel.key)

    def read(self, array: Any) -> Tensor:
        """Read an array from the device, counted."""
        values = super().read(array)
        self.reads.append(values.nbytes)
        return values

    def upload(self, x: Tensor) -> Tensor:
        """Floats on the device, counted."""
        self.writes.append(4 * x.numel())
        return super().upload(x)

    def ints(self, x: NDArray[Any]) -> Any:
        """Whole numbers on the device, counted."""
        self.writes.append(4 * x.size)
        return super().ints(x)

    def forget(self) -> None:
        """Count from zero."""
        for count in (self.launches, self.seconds, self.reads, self.writes):
            count.clear()


def recording(
    backend: Backend,
    before: Callable[[], object] = lambda: None,
    after: Callable[[str], object] = lambda kernel: None,
) -> Recording:
    """A backend that counts the calls of another."""
    own = {f.name: getattr(backend, f.name) for f in fields(Backend)}
    return Recording(**own, before=before, after=after)
