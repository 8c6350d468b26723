"""The device that the kernels run on: people per group, threads per group, and memory on the device.

A backend is made once for a device and handed down; no other part of the fit asks for the device.
"""

from __future__ import annotations

import hashlib
import os
import platform
import sys
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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
_START_LOCK, _COMPILE_LOCK = threading.Lock(), threading.Lock()
_NO_DRIVER_WARNING = b"Warp CUDA warning: Could not find or load the NVIDIA CUDA driver"
# People in a group, and threads that share it: with one person, no kernel spills registers.
GPU_LANES, GPU_THREADS = 1, 128
# The files of kernels that a job launches: a fit of labels, of meshes, of sequences, a refinement, SMPL from SKEL.
FIT = ("closed_form_start", "levenberg_marquardt", "moments", "regressed_points", "skin_errors")
FREE_BETAS = ("betas_moments",)  # besides
MESHES = ("betas_moments", "levenberg_marquardt", "mesh_alignment", "skin_errors")
SEQUENCES = ("cyclic_reduction", "frame_steps", "temporal_terms", *FIT)
REFINEMENT = ("cyclic_reduction", "refinement_frames", "refinement_solver", "temporal_terms")
TO_SMPL = ("moments", "skin_errors", "smpl_solver", "smpl_start")


@dataclass(frozen=True)
class Backend:
    """A device and how the kernels use it. docs/how-to-add-a-backend.md says how to add one."""

    device: str  # Warp's and torch's name for it
    lanes: int  # people in a group
    threads: int  # that share a group
    chunk: int  # groups that pass over a block of vertices one after the other
    block: int  # vertices in a block
    batch_size: int  # people per call: enough to keep the device busy, few enough for its memory or caches
    workers: int | None  # calls at once; None: one for each of torch's threads
    parallel: bool  # whether groups run at once, so that each needs scratch of its own
    _lock: threading.Lock = field(default=_COMPILE_LOCK, repr=False, compare=False)
    _buffers: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    @property
    def kernels(self) -> Any:
        """The kernels for this many lanes."""
        return kernels_for(self.lanes)

    def compile(self, files: tuple[str, ...]) -> None:
        """Compile kernels that are not compiled yet, several files at a time, for all processes of this machine.

        files: which, without .py. Processes may compile at once: each writes a file of its own and renames it.
        """
        device, modules = wp.get_device(self.device), kernel_modules(self.lanes, files)
        with self._lock, _cache_errors(), ThreadPoolExecutor(os.cpu_count()) as pool:
            list(pool.map(lambda module: module.load(device, self.threads), modules))
        _marker(self, files).touch()

    def slots(self, groups: int) -> int:
        """The number of groups that a launch needs scratch for."""
        return groups if self.parallel else 1

    def scratch(self, make: Callable[..., Any], groups: int, *sizes: int) -> Any:
        """Scratch for so many groups, made by make(slots, *sizes, device), with undefined content.

        The next launch of this thread gets the same.
        """
        return self._reused(make, self.slots(groups), sizes)

    def target_skins(self, groups: int, vertices: int) -> Any:
        """Scratch for the target skins (at least groups, vertices, 3) of a batch; this thread reuses it."""
        return self._reused(self._make_skins, groups, (vertices,))

    def _make_skins(self, groups: int, vertices: int, device: str) -> Any:
        return self.lanes_of(groups, vertices, 3)

    def _reused(self, make: Callable[..., Any], count: int, sizes: tuple[int, ...]) -> Any:
        buffers = self._buffers.__dict__
        key = f"{make.__module__}.{make.__qualname__}{sizes}"
        if key not in buffers or buffers[key][0] < count:
            buffers.pop(key, None)
            buffers[key] = count, make(count, *sizes, self.device)
        return buffers[key][1]

    def launch(self, kernel: Any, groups: int, inputs: Sequence[Any]) -> None:
        """Start a kernel on so many groups."""
        if groups:
            with self._lock, _cache_errors():  # one thread compiles, the others wait
                kernel.module.load(wp.get_device(self.device), self.threads)
            wp.launch_tiled(
                kernel, dim=[groups], inputs=list(inputs), block_dim=self.threads, device=self.device
            )

    def read(self, array: Any) -> Tensor:
        """Copy an array of the device to the host, after all launches before."""
        if isinstance(array, Tensor):
            return array.detach().to("cpu", copy=True)
        return torch.from_numpy(array.numpy().copy())

    def read_all(self, *arrays: Any) -> list[Tensor]:
        """Copy several arrays of floats to the host, with one wait."""
        on_device = [x.detach() if isinstance(x, Tensor) else wp.to_torch(x) for x in arrays]
        host = self.read(torch.cat([x.reshape(-1) for x in on_device]))
        parts = host.split([x.numel() for x in on_device])
        return [part.view(x.shape) for part, x in zip(parts, on_device, strict=True)]

    def upload(self, x: Tensor) -> Tensor:
        """A copy of floats on the device, which kernels may change."""
        return x.to(self.device, torch.float32, copy=True).contiguous()

    def array(self, x: Tensor) -> Any:
        """A tensor of the device as an array for a kernel; not a copy."""
        return wp.from_torch(x.detach())

    def ints(self, x: NDArray[Any]) -> Any:
        """Whole numbers on the device."""
        array = np.ascontiguousarray(x, dtype=np.int32)
        return wp.array(array, dtype=int, ndim=array.ndim, device=self.device)

    def lanes_of(self, *shape: int) -> Any:
        """New lane vectors on the device, with undefined content."""
        return wp.empty(shape, dtype=self.kernels.lanes.V, device=self.device)

    def lanes_from(self, x: Tensor) -> Any:
        """Numbers of people (G L, ...), in whole groups, as lane vectors (G, ...) on the device."""
        groups = x.reshape(-1, self.lanes, *x.shape[1:]).movedim(1, -1).contiguous()
        return wp.array(groups.numpy(), dtype=self.kernels.lanes.V, device=self.device)

    def people_of(self, array: Any, count: int) -> Tensor:
        """Lane vectors (G, ...) of all people in order as numbers (count, ...) on the host."""
        return by_person(self.read(array), count)


def by_person(grouped: Tensor, count: int) -> Tensor:
    """Numbers of groups (G, ..., L) as numbers of people (count, ...).

    Contiguous, for any number of groups: the order of torch's sums depends on the strides.
    """
    return grouped.movedim(-1, 1).flatten(0, 1)[:count].contiguous()


@lru_cache
def make_backend(
    device: str = "cpu", lanes: int | None = None, threads: int | None = None, target: str | None = None
) -> Backend:
    """The backend for "cpu" or "cuda"; lanes and threads None: the best for the device; target: see `start_warp`.

    Raises DeviceError if there is no such device, OutputError if compiled kernels cannot be written.
    """
    start_warp(target)
    if torch.device(device).type == "cpu":
        if threads is not None and threads > 1:  # one core plays the threads of a GPU
            wp.config.enable_cpu_blocks = True
        return Backend(
            device="cpu",
            lanes=lanes or cpu_lanes(),
            threads=threads or 1,
            chunk=8,
            block=32,
            batch_size=512,
            workers=None,
            parallel=False,
        )
    try:
        name = str(wp.get_device(device))
        # One stream orders the work of torch and of Warp.
        wp.set_stream(wp.stream_from_torch(torch.device(name)), name)
    # torch without CUDA fails an assertion.
    except (RuntimeError, ValueError, AssertionError) as error:
        raise DeviceError(f"device {device}: {error}") from error
    return Backend(
        device=name,
        lanes=lanes or GPU_LANES,
        threads=threads or GPU_THREADS,
        chunk=1,
        block=4 * (threads or GPU_THREADS),  # a thread poses four at a time
        batch_size=16384,
        workers=1,
        parallel=True,
    )


def kernel_modules(lanes: int, files: Iterable[str] | None = None) -> list[Any]:
    """The Warp modules of these files, or of all files that contain kernels, by name."""
    names = sorted(path.stem for path in _HEADER.parent.glob("*.py") if path.stem != "__init__")
    modules = [wp.get_module(getattr(kernels_for(lanes), name).__name__) for name in files or names]
    return [module for module in modules if module.kernels]


def cpu_lanes() -> int:
    """The floats in a vector register of this CPU, or in two registers if they are short."""
    return 16 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 8


def start_warp(target: str | None = None) -> None:
    """Start Warp. Its CPU code is for a target: `native`, this machine, or a name of LLVM's, such as `x86-64-v3`.

    A process has one target; None: the one it has, or else `native`. Raises ValueError for a second target.
    """
    with _START_LOCK:
        started = "/skelfit_lanes_" in str(wp.config.cpu_compiler_flags)
        if started and target is None:
            return
        wp.config.log_level = wp.LOG_ERROR
        with _without_driver_warning(), _cache_errors():
            wp.init()
            flags = cpu_flags(target or "native")
        if started and flags != wp.config.cpu_compiler_flags:
            raise ValueError(f"target {target}: this process compiles by {wp.config.cpu_compiler_flags}")
        wp.config.cpu_compiler_flags = flags


def cpu_flags(target: str) -> str:
    """The compiler flags for kernels on a CPU. Compiled code is cached under its flags.

    They name a copy of lanes.h in the cache, and the copy is named after its content. So an edited header changes the
    flags, and two installations share them. No flag fuses products and sums, so that all processors round alike.
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
        # psabi: warns of functions that pass wide vectors; ours do not.
        processor += " -mprefer-vector-width=512 -Wno-psabi"
    return f"{processor} -include {copy}"


@contextmanager
def _cache_errors() -> Iterator[None]:
    """Around code that writes compiled kernels: raises OutputError for an OSError."""
    try:
        yield
    except OSError as error:
        folder = wp.config.kernel_cache_dir or "the folder of compiled kernels"
        raise OutputError(
            f"{folder}: cannot write compiled kernels there ({error}); set WARP_CACHE_PATH to another folder"
        ) from error


@contextmanager
def _without_driver_warning() -> Iterator[None]:
    """Filter the line that Warp's C++ writes to stderr if there is no GPU; Warp has no setting for it."""
    if sys.stderr is None:
        yield
        return
    sys.stderr.flush()
    stderr = os.dup(2)
    with tempfile.TemporaryFile() as written:
        os.dup2(written.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(stderr, 2)
            os.close(stderr)
            written.seek(0)
            os.write(2, b"".join(line for line in written if not line.startswith(_NO_DRIVER_WARNING)))


def compile_once(device: str, files: tuple[str, ...], say: Callable[[str], object]) -> None:
    """Compile kernels, after a line that says so, if no process of this machine has compiled them."""
    backend = make_backend(device)
    if not _marker(backend, files).exists():
        say("compiling the kernels of the fit for this machine; that takes up to a minute, once")
        backend.compile(files)


def _marker(backend: Backend, files: tuple[str, ...]) -> Path:
    """A file in the cache that says that kernels are compiled; named after all that they depend on."""
    arch = wp.get_device(backend.device).arch
    inputs = [wp.get_cpu_kernel_cache_key(), str(wp.config.cpu_compiler_flags), *files]
    inputs += [str(number) for number in (arch, backend.lanes, backend.threads)]
    inputs += [path.read_text(encoding="utf-8") for path in sorted(_HEADER.parents[2].rglob("*.py"))]
    key = hashlib.sha256("\0".join(inputs).encode()).hexdigest()[:16]
    return _cache() / f"skelfit_{backend.device.replace(':', '')}_{key}"


def _cache() -> Path:
    """The folder of compiled kernels, chosen by Warp at its start."""
    return Path(str(wp.config.kernel_cache_dir))
