"""Counts of launches, copies, operations and bytes: on cases with known counts, and their limits for a fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import known_kernel
import numpy as np
import programs
import pytest
import torch
import warp as wp

from skelfit.benchmark.device.launch_counter import recording
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.fitter import Fitter
from skelfit.resources.catalog import PIPELINES

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
    """The output of a program in a fresh process, because counters are compiled into its kernels."""
    code, said, errors = programs.run("-c", text, *arguments)
    assert code == 0, errors
    return said


def test_launches_and_copies_are_counted() -> None:
    launches_before: list[int] = []
    counted = recording(
        make_backend("cpu", lanes=1), lambda: launches_before.append(sum(counted.launches.values()))
    )
    assert counted.lanes == 1 and counted.kernels is make_backend("cpu", lanes=1).kernels
    x, y = counted.lanes_of(2, 10), counted.lanes_of(2, 2)
    x.fill_(1.0)
    weights: Any = wp.array(np.ones((2, 10), np.float32), dtype=float)
    for groups in (2, 0, 1):  # on no group there is nothing to launch
        counted.launch(known_kernel.known, groups, [x, y, weights])
    assert (
        counted.launches == {"known": 2}
        and set(counted.seconds) == {"known"}
        and launches_before == [0, 1, 1]
    )
    assert counted.people_of(y, 2)[:, 0].tolist() == [-10.0, -10.0]
    assert counted.reads == [2 * 2 * 4]
    pair, none, also = counted.read_all(torch.eye(3), wp.zeros((2, 0, 3), dtype=float), y)
    assert counted.reads[1:] == [9 * 4 + 2 * 2 * 4]  # one wait
    assert pair.tolist() == torch.eye(3).tolist() and none.shape == (2, 0, 3)
    assert also[0, :, 0].tolist() == counted.people_of(y, 2)[0].tolist()
    assert counted.upload(torch.ones(3, 2)).shape == (3, 2) and len(counted.ints(np.arange(5))) == 5
    assert counted.writes == [24, 20]
    counted.forget()
    assert not (counted.launches or counted.seconds or counted.reads or counted.writes)


def test_operations_and_bytes_of_a_kernel_are_counted_while_it_runs(tmp_path: Path) -> None:
    output = kernel_program(KNOWN, tmp_path)
    # 21 reads and 3 writes of a number; ten numbers had to come from memory, two to go there; and all of it twice.
    assert output.strip() == "KernelWork(flops=64, asked=192, read=80, written=16, lost=0)"


# A GPU takes a few microseconds per launch, and longer each time the host waits.
MOST_LAUNCHES, MOST_READS = 100, 20
# 27 of them are the three skins that every person needs.
MOST_MFLOP, MOST_MBYTE = {"everyday": 43.0, "extreme": 51.0}, 2.0


def test_a_fit_needs_few_launches_and_reads(models: ModelSet) -> None:
    counted = recording(make_backend("cpu"))
    fitter = Fitter(models, load_pipeline(PIPELINES.find("hmr-skel")).fit, backend=counted)
    kinds = make_labels(32, "neutral").values()
    pose, betas, transl = (
        torch.cat([getattr(k, name) for k in kinds]) for name in ("pose", "betas", "transl")
    )
    fitter.prepare("neutral")
    counted.forget()
    fitter.fit("neutral", pose, betas, transl)
    assert {"solve", "moments", "errors", "target_skin"} <= set(counted.launches)
    assert sum(counted.launches.values()) <= MOST_LAUNCHES, counted.launches
    assert len(counted.reads) <= MOST_READS


@pytest.mark.soak
def test_a_fit_needs_few_operations_and_bytes(tmp_path: Path) -> None:
    """Takes minutes: all kernels are compiled with counters."""
    output = kernel_program("import fit_work, sys; fit_work.main(*sys.argv[1:])", tmp_path, 8)
    for poses, work in json.loads(output).items():
        # The product that makes a skin: code that bypasses the counted functions would show here.
        for kernel in ("target_skin", "errors", "moments"):
            assert work["mflop_by_kernel"][kernel] > 6 * 6890 * 200 / 1e6, (poses, kernel, work)
        assert 1 < work["mflop"]["mean"] <= MOST_MFLOP[poses], (poses, work)
        assert 0.1 < work["mbyte"]["mean"] <= MOST_MBYTE, (poses, work)
