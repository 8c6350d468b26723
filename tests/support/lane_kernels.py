"""Shared by tests of the lane kernels: compilation for this CPU, and the people in each lane."""

from typing import Any

import numpy as np
import warp as wp

from skelfit.fitting.backends.backend import start_warp

# Lanes of a group, and threads that share it: those of processors, and one lane and several threads as on a GPU. Each
# shape compiles its kernels.
SHAPES = [(8, 1), (16, 1), (1, 4)]


def prepare() -> None:
    """Compile for this CPU; groups may be shared by several threads."""
    start_warp()
    wp.config.enable_cpu_blocks = True


def rows_of(people: int, lanes: int) -> Any:
    """The person in each lane of each group, (G, lanes); the last person repeats until the last group is whole."""
    rows = np.arange(-(-people // lanes) * lanes, dtype=np.int32).clip(max=people - 1)
    return wp.array(rows.reshape(-1, lanes), dtype=int, device="cpu")
