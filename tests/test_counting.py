"""What is counted of a fit, and of a kernel while it runs, on cases whose counts are known."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import programs
import torch

from skelfit.fit.counting import Recording, TorchCalls

KNOWN = """
import sys
from pathlib import Path
import kernel_work
kernel_work.start(Path(sys.argv[1]))
import numpy as np
import warp as wp
wp.config.log_level = wp.LOG_WARNING
from known_kernel import V, known
x, y = (wp.array(np.ones((1, n), np.float32), dtype=V) for n in (10, 2))
w = wp.array(np.ones((1, 10), np.float32), dtype=float)
for _ in range(2):
    kernel_work.begin_launch()
    wp.launch_tiled(known, dim=[1], inputs=[x, y, w], block_dim=1, device="cpu")
print(kernel_work.counted())
"""


class _Backend:
    """Counts what it is told, too."""

    def __init__(self) -> None:
        self.done: list[object] = []
        self.lanes = 8

    def launch(self, kernel: object, groups: int, inputs: list[object]) -> None:
        self.done.append((kernel, groups, inputs))

    def read(self, array: object) -> np.ndarray:
        return np.zeros(3, np.float32)


def test_launches_and_reads_are_counted_and_done() -> None:
    began: list[int] = []
    backend, kernels = _Backend(), [SimpleNamespace(key=key) for key in ("a", "b")]
    recording = Recording(backend, lambda: began.append(len(backend.done)))
    for k in (0, 1, 0):
        recording.launch(kernels[k], 5, [k])
    assert backend.done == [(kernels[k], 5, [k]) for k in (0, 1, 0)] and began == [0, 1, 2]
    assert recording.launches == {"a": 2, "b": 1} and set(recording.seconds) == {"a", "b"}
    assert len(recording.read("x")) == 3 and (recording.reads, recording.read_bytes) == (1, 12)
    assert recording.lanes == 8


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
    code, said, errors = programs.run("-c", KNOWN, tmp_path)
    assert code == 0, errors
    # 21 reads and 3 writes of a number; ten numbers had to come from memory, two to go there; and all of it twice.
    assert said.strip() == "Counted(flops=66, asked=192, read=80, written=16, lost=0)"
