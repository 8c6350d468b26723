"""How well kernels fill a GPU, from code that was compiled without one."""

from __future__ import annotations

import known_kernel
import pytest
import warp as wp

from skelfit.benchmark.device import occupancy
from skelfit.benchmark.device.cubin import read_cubin
from skelfit.benchmark.device.occupancy import (
    MULTIPROCESSORS,
    as_text,
    kernel_report,
    module_report,
    resident_threads,
)


def test_threads_of_a_multiprocessor() -> None:
    """By hand: 512 warps of 32 registers a thread would fill it eight times over; 2048 threads are its most."""
    has = MULTIPROCESSORS[90]
    assert resident_threads(has, 128, 32, 0) == (2048, "threads")
    # 128 registers are 4096 a warp: 4 warps in each quarter of 16,384, so 16 warps.
    assert resident_threads(has, 128, 128, 0) == (512, "registers")
    # 129 are given as 136: 3 warps a quarter, 12 in all, 3 blocks of 4.
    assert resident_threads(has, 128, 129, 0) == (384, "registers")
    assert resident_threads(has, 32, 32, 0) == (1024, "blocks")
    # 57 KiB and the one reserved: 3 blocks in 228 KiB, and in 164 KiB two.
    assert resident_threads(has, 256, 32, 57 * 1024) == (3 * 256, "shared memory")
    assert resident_threads(MULTIPROCESSORS[80], 256, 32, 57 * 1024) == (2 * 256, "shared memory")
    assert resident_threads(MULTIPROCESSORS[80], 256, 32, 164 * 1024) == (0, "shared memory")


@pytest.mark.parametrize("arch", sorted(MULTIPROCESSORS))
def test_a_kernel_compiles_without_a_gpu(arch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    module = wp.get_module(known_kernel.__name__)
    before = module.options["block_dim"]
    (use,) = module_report(module, arch, 64)
    assert (use.kernel, use.arch, use.block) == ("known", arch, 64)
    assert 16 <= use.registers <= 64 and use.stack_bytes == 0 and use.occupancy == use.threads / 2048 > 0.4
    assert use.shared_bytes < 1024 and module.options["block_dim"] == before
    text = as_text([use])
    assert len(text) == 2 and f"sm_{arch}" in text[1] and "known" in text[1]


def test_spills_are_read_from_the_output_of_ptxas() -> None:
    said = """ptxas info    : Compiling entry function 'a' for 'sm_90'
ptxas info    : Function properties for a
    400 bytes stack frame, 36 bytes spill stores, 40 bytes spill loads
ptxas info    : Function properties for helper
    8 bytes stack frame, 4 bytes spill stores, 4 bytes spill loads
"""
    assert dict(occupancy.read_spills(said)) == {"a": 36}


def test_only_cubins_are_read() -> None:
    with pytest.raises(ValueError, match="expected a cubin"):
        read_cubin(b".version 9.4")


@pytest.mark.soak
@pytest.mark.parametrize("arch", sorted(MULTIPROCESSORS))
def test_all_kernels_compile_without_a_gpu(arch: int) -> None:
    """Minutes: the solver is large. One local array aside, of 48 bytes, no kernel needs memory of a thread's own."""
    uses = {use.kernel: use for use in kernel_report(arch)}
    kernels = {
        "start",
        "align_parts",
        "target_skin",
        "locate",
        "moments",
        "shaped_moments",
        "solve",
        "errors",
        "place",
        "posed_moments",
        "posed_errors",
        "start_smpl",
        "pose_smpl_people",
        "solve_smpl",
        "refine",
    }
    assert kernels <= set(uses)
    assert all(use.stack_bytes <= 48 and use.registers < 255 for use in uses.values()), as_text(
        list(uses.values())
    )
