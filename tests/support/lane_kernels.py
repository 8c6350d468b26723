"""Shared by tests of the lane kernels: compilation for this CPU, and the people in each lane."""

from typing import Any

import numpy as np
import pytest
import warp as wp

from skelfit.fitting.backends.backend import cpu_lanes, start_warp

# Lanes of a group on this processor, and on others.
LANES = cpu_lanes()
OTHERS = pytest.param(24 - LANES, 1, marks=pytest.mark.soak)
# Lanes of a group, and threads that share it: those of processors, and one lane and several threads as on a GPU. Each
# shape compiles its kernels, so those of other processors are left to `make soak`.
SHAPES = [(LANES, 1), (1, 4), OTHERS]


def prepare() -> None:
    """Compile for this CPU; groups may be shared by several threads."""
    start_warp()
    wp.config.enable_cpu_blocks = True


def rows_of(people: int, lanes: int) -> Any:
    """The person in each lane of each group, (G, lanes); the last person repeats until the last group is whole."""
    rows = np.arange(-(-people // lanes) * lanes, dtype=np.int32).clip(max=people - 1)
    return wp.array(rows.reshape(-1, lanes), dtype=int, device="cpu")
