"""What is counted of a fit, and of a kernel while it runs, on cases whose counts are known."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import known_kernel
import numpy as np
import programs
import torch
import warp as wp

from skelfit.fit.backend import make_backend
from skelfit.fit.counting import TorchCalls, recording

KNOWN = """
import sys
from pathlib import Path
import kernel_work
kernel_work.start(Path(sys.argv[1]))
import numpy as np
import warp as wp
from known_kernel import V, known
x, y = (wp.array(np.ones((1, n), np.float32), dtype=V) for n in (10, 2))
w = wp.array(np.ones((1, 10), np.float32), dtype=float)
for _ in range(2):
    kernel_work.begin_launch()
    wp.launch_tiled(known, dim=[1], inputs=[x, y, w], block_dim=1, device="cpu")
print(kernel_work.counted())
"""


def kernel_program(text: str, *arguments: object) -> str:
    """What a program says; one that starts from nothing, as its kernels must not be compiled before it does."""
    command = [sys.executable, "-c", text, *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": programs.PATHS}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_launches_and_reads_are_counted_and_done() -> None:
    began: list[int] = []
    counted = recording(make_backend("cpu", lanes=1), lambda: began.append(sum(counted.launches.values())))
    assert counted.lanes == 1 and counted.kernels is make_backend("cpu", lanes=1).kernels
    x, y = counted.lanes_of(2, 10), counted.lanes_of(2, 2)
    x.fill_(1.0)
    weights = wp.array(np.ones((2, 10), np.float32), dtype=float)
    for groups in (2, 0, 1):  # on no group there is nothing to launch
        counted.launch(known_kernel.known, groups, [x, y, weights])
    assert counted.launches == {"known": 2} and set(counted.seconds) == {"known"} and began == [0, 1, 1]
    assert counted.people_of(y, 2)[:, 0].tolist() == [-10.0, -10.0]
    assert counted.reads == [2 * 2 * 4]


def test_operations_of_torch_are_counted_and_those_that_wait() -> None:
    x = torch.arange(6.0)
    with TorchCalls() as counted:
        y = x.view(2, 3)[0] + 1  # views start nothing
        assert float(y.sum()) == 6
        assert len(x[x > 2]) == 3
    assert counted.calls["add"] == 1 and counted.calls["sum"] == 1 and counted.calls["gt"] == 1
    assert not {"view", "select", "slice"} & set(counted.calls)
    assert sum(counted.waits.values()) == 2, counted.waits


def test_operations_and_bytes_of_a_kernel_are_counted_while_it_runs(tmp_path: Path) -> None:
    said = kernel_program(KNOWN, tmp_path)
    # 21 reads and 3 writes of a number; ten numbers had to come from memory, two to go there; and all of it twice.
    assert said.strip() == "Counted(flops=66, asked=192, read=80, written=16, lost=0)"
