"""What the tests of the lane kernels share: how a CPU compiles them, and who is in which lane."""

import zlib
from pathlib import Path

import numpy as np
import warp as wp

import skelfit.fit.kernels as kernels

SHAPES = [(1, 1), (8, 1), (16, 1), (1, 4), (8, 4), (16, 4)]  # lanes of a group, threads that share it


def prepare() -> None:
    """Compile for this CPU; groups may be shared by several threads."""
    header = Path(kernels.__file__).with_name("lanes.h")
    wp.config.log_level = wp.LOG_WARNING
    wp.config.enable_cpu_blocks = True
    # What is compiled is kept under its flags: they have to tell one header from another.
    version = zlib.crc32(header.read_bytes())
    flags = f"-march=native -mprefer-vector-width=512 -include {header} -DSKELFIT_LANES_VERSION={version}"
    wp.config.cpu_compiler_flags = flags


def rows_of(people: int, lanes: int) -> wp.array:
    """Who is in each lane of each group, (G, lanes); the last person again and again, until the last group is whole."""
    rows = np.arange(-(-people // lanes) * lanes, dtype=np.int32).clip(max=people - 1)
    return wp.array(rows.reshape(-1, lanes), dtype=int, device="cpu")
