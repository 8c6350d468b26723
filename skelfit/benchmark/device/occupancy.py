"""Occupancy of a GPU by the kernels of the fit, computed without one: `python -m skelfit.benchmark.device.occupancy`.

Warp's compiler makes the code for any GPU on any machine. The code has the resources of a thread and a block, which
give the number of threads that a multiprocessor holds at once; they do not give the speed. Spilled registers are
counted if there is a `ptxas` (PyPI: nvidia-cuda-nvcc); otherwise the stack, which holds them, is their upper bound.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import warp as wp

from skelfit.benchmark.device.cubin import read_cubin
from skelfit.fitting.backends.backend import GPU_LANES, GPU_THREADS, kernel_modules, start_warp

_WARP = 32  # threads that run in step
_REGISTER_UNIT = 256  # registers are given to 32 threads in multiples of this
_SHARED_UNIT = 128  # bytes
_RESERVED = 1024  # bytes of shared memory that the system reserves in each block
_NAME = re.compile(r"(?P<kernel>.+)_[0-9a-f]{8}_cuda_kernel_forward")


@dataclass(frozen=True)
class Multiprocessor:
    """The resources of a multiprocessor."""

    threads: int
    blocks: int
    shared_bytes: int
    block_shared_bytes: int  # at most, of one block
    registers: int = 65536
    quarters: int = 4  # each with its own registers and threads


# By compute capability.
MULTIPROCESSORS = {
    80: Multiprocessor(threads=2048, blocks=32, shared_bytes=164 * 1024, block_shared_bytes=163 * 1024),
    90: Multiprocessor(threads=2048, blocks=32, shared_bytes=228 * 1024, block_shared_bytes=227 * 1024),
}


@dataclass(frozen=True)
class KernelUse:
    """The GPU resources of a kernel."""

    family: str  # its file
    kernel: str
    arch: int
    block: int  # threads
    registers: int  # of a thread
    spilled_bytes: int | None  # of a thread, stored; None without ptxas
    stack_bytes: int  # of a thread
    shared_bytes: int  # of a block, without what the system reserves
    threads: int  # of a multiprocessor at once
    occupancy: float  # of those that it can hold
    limit: str  # the resource that limits them
    seconds: float  # to compile its file


def kernel_report(arch: int, lanes: int = GPU_LANES, block: int = GPU_THREADS) -> list[KernelUse]:
    """All kernels of the fit, compiled for a GPU of this compute capability: groups of `lanes`, blocks of `block`.

    arch is one of MULTIPROCESSORS. Needs no GPU and no driver.
    """
    start_warp()
    return [use for module in kernel_modules(lanes) for use in module_report(module, arch, block)]


def module_report(module: Any, arch: int, block: int) -> list[KernelUse]:
    """The kernels of one Warp module."""
    before = module.options["block_dim"]
    wp.set_module_options({"block_dim": block}, module)
    try:
        with tempfile.TemporaryDirectory(prefix="skelfit-kernels-") as folder:
            started = time.perf_counter()
            (cubin,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=False)
            seconds = time.perf_counter() - started
            code = read_cubin(cubin.read_bytes())
            dynamic = json.loads(next(Path(folder).glob("*.meta")).read_text())
            spilled = _spilled(module, arch, Path(folder))
    finally:
        wp.set_module_options({"block_dim": before}, module)
    uses = []
    for name, of_thread in sorted(code.items()):
        named = _NAME.fullmatch(name)
        if named is None:
            raise ValueError(f"{module.name}: expected the name of a forward kernel, found {name}")
        reserved = (
            _RESERVED if arch >= 90 and of_thread.shared_bytes else 0
        )  # is in the code's own figure there
        shared = of_thread.shared_bytes - reserved + dynamic.get(f"{name}_smem_bytes", 0)
        threads, limit = resident_threads(MULTIPROCESSORS[arch], block, of_thread.registers, shared)
        uses.append(
            KernelUse(
                family=module.name.rpartition(".")[2],
                kernel=named["kernel"],
                arch=arch,
                block=block,
                registers=of_thread.registers,
                spilled_bytes=spilled.get(name) if spilled else None,
                stack_bytes=of_thread.stack_bytes,
                shared_bytes=shared,
                threads=threads,
                occupancy=threads / MULTIPROCESSORS[arch].threads,
                limit=limit,
                seconds=seconds,
            )
        )
    return uses


def resident_threads(sm: Multiprocessor, block: int, registers: int, shared_bytes: int) -> tuple[int, str]:
    """The threads that a multiprocessor holds at once, and the resource that limits them."""
    warps = -(-block // _WARP)
    shared = _round_up(shared_bytes + _RESERVED, _SHARED_UNIT)
    of_a_warp = _round_up(registers * _WARP, _REGISTER_UNIT)
    quarter = sm.registers // sm.quarters // of_a_warp  # warps
    blocks = {
        "threads": sm.threads // (_WARP * warps),
        "blocks": sm.blocks,
        "registers": quarter * sm.quarters // warps,
        "shared memory": sm.shared_bytes // shared if shared_bytes <= sm.block_shared_bytes else 0,
    }
    limit = min(blocks, key=lambda name: blocks[name])
    return blocks[limit] * block, limit


def _round_up(number: int, unit: int) -> int:
    return -(-number // unit) * unit


def find_ptxas() -> str | None:
    """The path of CUDA's assembler: on PATH, or of the PyPI package in this environment; None without one."""
    packaged = Path(sysconfig.get_path("purelib"), "nvidia").glob("*/bin/ptxas")
    return shutil.which("ptxas") or next((str(path) for path in packaged), None)


def _spilled(module: Any, arch: int, folder: Path) -> dict[str, int]:
    """Bytes of registers that each kernel stores to memory, by its name in the code; empty without ptxas."""
    ptxas = find_ptxas()
    if ptxas is None:
        return {}
    (ptx,) = wp.compile_aot_module(module, arch=arch, module_dir=folder, use_ptx=True)
    ptx.write_bytes(ptx.read_bytes().rstrip(b"\0"))  # Warp ends it with a zero, which ptxas does not read
    command = [ptxas, "-v", f"-arch=sm_{arch}", str(ptx), "-o", str(folder / "spilled.cubin")]
    result = subprocess.run(command, capture_output=True, text=True)
    if result.returncode:
        if "Unsupported .version" in result.stderr:  # an older toolkit's than Warp's
            return {}
        raise RuntimeError(f"ptxas refuses the code that Warp made: {result.stderr.strip()}")
    return dict(read_spills(result.stderr))


def read_spills(output: str) -> Iterator[tuple[str, int]]:
    """Names and spilled bytes of the entry functions in the output of `ptxas -v`."""
    entries = set(re.findall(r"Compiling entry function '(\w+)'", output))
    pattern = r"Function properties for (\w+)\s+\d+ bytes stack frame, (\d+) bytes spill stores"
    yield from ((name, int(size)) for name, size in re.findall(pattern, output) if name in entries)


def as_text(uses: Sequence[KernelUse]) -> list[str]:
    """The lines of a table."""
    heads = (
        *(
            "family",
            "kernel",
            "arch",
            "block",
            "registers",
            "spilled B",
            "stack B",
            "shared B",
            "threads",
            "full",
        ),
        *("limit", "compiled in"),
    )
    rows = [
        (u.family, u.kernel, f"sm_{u.arch}", u.block, u.registers)
        + ("?" if u.spilled_bytes is None else u.spilled_bytes, u.stack_bytes, u.shared_bytes, u.threads)
        + (f"{100 * u.occupancy:.0f} %", u.limit, f"{u.seconds:.0f} s")
        for u in uses
    ]
    cells = [heads, *([str(x) for x in row] for row in rows)]
    widths = [max(len(row[k]) for row in cells) for k in range(len(heads))]
    return [
        "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
        for row in cells
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the kernels of the fit, a line each and GPU."""
    parser = argparse.ArgumentParser(
        prog="python -m skelfit.benchmark.device.occupancy", description=main.__doc__
    )
    parser.add_argument(
        "--arch", type=int, action="append", choices=sorted(MULTIPROCESSORS), help="default: all"
    )
    parser.add_argument("--lanes", type=int, default=GPU_LANES, help="people of a group")
    parser.add_argument("--block", type=int, default=GPU_THREADS, help="threads of a group")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args(arguments)
    archs = chosen.arch or sorted(MULTIPROCESSORS)
    uses = [use for arch in archs for use in kernel_report(arch, chosen.lanes, chosen.block)]
    if chosen.json:
        json.dump([asdict(use) for use in uses], sys.stdout, indent=1)
        print()
    else:
        print("\n".join(as_text(uses)))


if __name__ == "__main__":
    main()
