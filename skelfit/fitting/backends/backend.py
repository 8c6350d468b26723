"""Where the kernels run: how many people share a group, how many threads share its work, and what is on the device.

A backend is made once for a device and handed down; nothing else in the fit asks what the device is.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.errors import DeviceError, OutputError, SkelfitError
from skelfit.fitting.backends import kernels
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.storage.atomic_write import atomic_write

_HEADER = Path(kernels.__file__).with_name("lanes.h")
_STARTING, _COMPILING = threading.Lock(), threading.Lock()
_NO_DRIVER = b"Warp CUDA warning: Could not find or load the NVIDIA CUDA driver"
# People of a group, and threads that share it: with one person, no kernel spills registers.
GPU_LANES, GPU_THREADS = 1, 128


@dataclass(frozen=True)
class Backend:
    """A device and how the kernels use it."""

    device: str  # as Warp and torch name it
    lanes: int  # people of a group
    threads: int  # that share a group's work
    chunk: int  # groups that go over a block of vertices one after the other
    block: int  # vertices of a block
    people: int  # per call of the fit: enough to keep the device busy, few enough for its memory or caches
    workers: int | None  # calls at once; None: as many as torch has threads
    parallel: bool  # whether groups run at once, so that each needs scratch of its own
    _lock: threading.Lock = field(default=_COMPILING, repr=False, compare=False)
    _rooms: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def kernels(self) -> Any:
        """The kernels for this many lanes."""
        return kernels_for(self.lanes)

    def compile(self) -> None:
        """Compile all kernels that have not been, for all processes of this machine; several files at a time.

        Processes that do so at once lose nothing but time: each renames what it has made to where it belongs.
        """
        device, modules = wp.get_device(self.device), kernel_modules(self.lanes)
        with self._lock, _kept_on_disk(), ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda module: module.load(device, self.threads), modules))
        _note(self).touch()

    def slots(self, groups: int) -> int:
        """For how many groups a launch needs scratch."""
        return groups if self.parallel else 1

    def room(self, make: Callable[..., Any], groups: int, *sizes: int) -> Any:
        """Scratch for so many groups, as make(slots, *sizes, device) makes it; what it holds is not defined.

        Kept for the next launch of this thread.
        """
        return self._kept(make, self.slots(groups), sizes)

    def skins(self, groups: int, vertices: int) -> Any:
        """Room for the skins (at least groups, vertices, 3) of a batch; the next batch of this thread gets the same."""
        return self._kept(self._make_skins, groups, (vertices,))

    def _make_skins(self, groups: int, vertices: int, device: str) -> Any:
        return self.lanes_of(groups, vertices, 3)

    def _kept(self, make: Callable[..., Any], count: int, sizes: tuple[int, ...]) -> Any:
        rooms = self._rooms.__dict__
        key = f"{make.__module__}.{make.__qualname__}{sizes}"
        if key not in rooms or rooms[key][0] < count:
            rooms.pop(key, None)
            rooms[key] = count, make(count, *sizes, self.device)
        return rooms[key][1]

    def launch(self, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        """Start a kernel on so many groups."""
        if groups:
            with self._lock, _kept_on_disk():  # one thread compiles, the others wait
                kernel.module.load(wp.get_device(self.device), self.threads)
            wp.launch_tiled(
                kernel, dim=[groups], inputs=list(inputs), block_dim=self.threads, device=self.device
            )

    def read(self, array: Any) -> Tensor:
        """What an array of the device holds, on the host: waits until everything before is done."""
        if isinstance(array, Tensor):
            return array.detach().to("cpu", copy=True)
        return torch.from_numpy(array.numpy().copy())

    def read_all(self, *arrays: Any) -> list[Tensor]:
        """What several arrays of floats hold, for one wait."""
        there = [x.detach() if isinstance(x, Tensor) else wp.to_torch(x) for x in arrays]
        host = self.read(torch.cat([x.reshape(-1) for x in there]))
        parts = host.split([x.numel() for x in there])
        return [part.view(x.shape) for part, x in zip(parts, there, strict=True)]

    def put(self, x: Tensor) -> Tensor:
        """Floats on the device, for kernels to change."""
        return x.to(self.device, torch.float32, copy=True).contiguous()

    def array(self, x: Tensor) -> Any:
        """A tensor of the device as a kernel takes it; not a copy."""
        return wp.from_torch(x.detach())

    def ints(self, x: NDArray[Any]) -> Any:
        """Whole numbers on the device."""
        array = np.ascontiguousarray(x, dtype=np.int32)
        return wp.array(array, dtype=int, ndim=array.ndim, device=self.device)

    def lanes_of(self, *shape: int) -> Any:
        """Room for lane vectors; what it holds is not defined."""
        return wp.empty(shape, dtype=self.kernels.lanes.V, device=self.device)

    def lanes_from(self, x: Tensor) -> Any:
        """Numbers of people (G L, ...), whole groups of them, as lane vectors (G, ...) on the device."""
        groups = x.reshape(-1, self.lanes, *x.shape[1:]).movedim(1, -1).contiguous()
        return wp.array(groups.numpy(), dtype=self.kernels.lanes.V, device=self.device)

    def people_of(self, array: Any, count: int) -> Tensor:
        """An array of lane vectors (G, ...) of all people in their order as (count, ...), on the host."""
        return by_person(self.read(array), count)


def by_person(found: Tensor, count: int) -> Tensor:
    """Numbers of groups (G, ..., L) as those of people (count, ...).

    In one order of memory however many groups there are: how torch adds up depends on it.
    """
    return found.movedim(-1, 1).flatten(0, 1)[:count].contiguous()


@lru_cache
def make_backend(
    device: str = "cpu", lanes: int | None = None, threads: int | None = None, target: str | None = None
) -> Backend:
    """The backend of "cpu" or "cuda"; lanes and threads: None: what suits the device; target: as `start_warp`.

    Raises DeviceError where there is no such device, OutputError where compiled kernels cannot be kept.
    """
    start_warp(target)
    if torch.device(device).type == "cpu":
        several = threads is not None and threads > 1
        if several:  # how a GPU shares the work of a group, played by one core
            wp.config.enable_cpu_blocks = True
        return Backend(
            device="cpu",
            lanes=lanes or cpu_lanes(),
            threads=threads or 1,
            chunk=8,
            block=32,
            people=512,
            workers=None,
            parallel=False,
        )
    try:
        name = str(wp.get_device(device))
        # What torch and Warp ask of the GPU is done in one order.
        wp.set_stream(wp.stream_from_torch(torch.device(name)), name)
    # A torch without CUDA fails an assertion.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise DeviceError(f"device {device}: {error}") from error
    return Backend(
        device=name,
        lanes=lanes or GPU_LANES,
        threads=threads or GPU_THREADS,
        chunk=1,
        block=4 * (threads or GPU_THREADS),  # a thread poses four at a time
        people=16384,
        workers=1,
        parallel=True,
    )


def kernel_modules(lanes: int) -> list[Any]:
    """The Warp modules that hold kernels, in the order of the files' names."""
    files = sorted(path.stem for path in _HEADER.parent.glob("*.py") if path.stem != "__init__")
    found = [wp.get_module(getattr(kernels_for(lanes), name).__name__) for name in files]
    return [module for module in found if module.kernels]


def cpu_lanes() -> int:
    """The floats of a CPU's vector register, or two of them where that is short."""
    return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def start_warp(target: str | None = None) -> None:
    """Start Warp, whose CPU code is for a target: `native`, this machine's, or one that LLVM names, as `x86-64-v3`.

    A process has one target; None: the one that there is, or else `native`.
    """
    with _STARTING:
        started = "/skelfit_lanes_" in str(wp.config.cpu_compiler_flags)
        if started and target is None:
            return
        wp.config.log_level = wp.LOG_ERROR
        with _without_word_of_a_driver(), _kept_on_disk():
            wp.init()
            flags = cpu_flags(target or "native")
        if started and flags != wp.config.cpu_compiler_flags:
            raise ValueError(f"target {target}: this process compiles by {wp.config.cpu_compiler_flags}")
        wp.config.cpu_compiler_flags = flags


def cpu_flags(target: str) -> str:
    """How kernels are compiled for a CPU. Code is kept under its flags.

    They name a copy of lanes.h beside what is compiled, and the copy is named after its content: an edited header makes
    other flags, and those of two installations are alike. As to products and sums, none are fused, so that all
    processors round alike.
    """
    text = _HEADER.read_bytes()
    name = f"skelfit_lanes_{hashlib.sha256(text).hexdigest()[:16]}.h"
    copy = _cache() / name
    if len(str(copy).split()) > 1:
        raise SkelfitError(f"WARP_CACHE_PATH: expected a folder without spaces, found {copy.parent}")
    if not copy.exists():
        with atomic_write(copy) as temporary:
            temporary.write_bytes(text)
    processor = "-march=native" if target == "native" else f"-target-cpu {target}"
    if platform.machine() in ("x86_64", "AMD64"):
        # psabi: warnings of how functions hand over wide vectors; none of ours does.
        processor += " -mprefer-vector-width=512 -Wno-psabi"
    return f"{processor} -include {copy}"


@contextmanager
def _kept_on_disk() -> Iterator[None]:
    """What writes compiled kernels. Raises OutputError when that cannot be done."""
    try:
        yield
    except OSError as error:
        folder = wp.config.kernel_cache_dir or "the folder of compiled kernels"
        raise OutputError(
            f"{folder}: compiled kernels cannot be kept there ({error}); WARP_CACHE_PATH names another folder"
        ) from error


@contextmanager
def _without_word_of_a_driver() -> Iterator[None]:
    """Without the line that Warp's C++ writes to stderr where there is no GPU; no setting of Warp's leaves it out."""
    if sys.stderr is None:  # there is none
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as said:
        os.dup2(said.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            said.seek(0)
            os.write(2, b"".join(line for line in said if not line.startswith(_NO_DRIVER)))


def is_compiled(device: str) -> bool:
    """Whether all kernels have been compiled for this machine's device, by `Backend.compile`."""
    return _note(make_backend(device)).exists()


def _note(backend: Backend) -> Path:
    """A file beside the compiled kernels, named after all that they are made of."""
    arch = wp.get_device(backend.device).arch
    made_of = [wp.get_cpu_kernel_cache_key(), str(wp.config.cpu_compiler_flags)]
    made_of += [str(number) for number in (arch, backend.lanes, backend.threads)]
    made_of += [path.read_text(encoding="utf-8") for path in sorted(_HEADER.parents[2].rglob("*.py"))]
    key = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]
    return _cache() / f"skelfit_{backend.device.replace(':', '')}_{key}"


def _cache() -> Path:
    """The folder of what is compiled, which Warp has chosen at its start."""
    return Path(str(wp.config.kernel_cache_dir))
