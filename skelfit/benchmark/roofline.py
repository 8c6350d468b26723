"""Operations and bytes of one person's fit, and the device's speed in both.

The roofline is the speed of a fit whose parts all run at the device's best: at the rate of a matrix product or of a
copy, whichever takes longer.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_JOINT, STAGE_JOINTS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import corrective_sources
from skelfit.config.fit_settings import FitConfig
from skelfit.config.manifest import Gender
from skelfit.fitting.backends.skin_tables import part_vertices
from skelfit.fitting.fitter import PROGRESS_STRIDE


def wait_for(device: str) -> None:
    """Wait until the device has finished."""
    if device == "cuda":
        torch.cuda.synchronize()


@dataclass(frozen=True)
class OperationCount:
    """Floating-point operations and bytes to and from memory, of one person."""

    flops: float
    bytes: float

    def __add__(self, other: OperationCount) -> OperationCount:
        return OperationCount(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> OperationCount:
        return OperationCount(times * self.flops, times * self.bytes)


def count_work(models: ModelSet, fit: FitConfig, gender: Gender) -> dict[str, OperationCount]:
    """Operations and bytes of the method per person, in float32, counted from sizes; a multiply-add counts twice.

    All steps that the pipeline allows, no extra passes and no retries. V vertices of a pass, K = 1 + 10 betas + 9 per
    corrective joint, s skinning weights that are not zero, s_J of them of active joints, p pairs of active joints at a
    vertex, P pairs of active joints in all; J joints and n DoFs of a stage. Tables and cached data are free: many
    people share them.

    target_skin   6V(1 + 10 + 207) shape and correctives, 24s + 18V skinning;   12V bytes written
    posed skin    6VK rest skin, 24s skinning, 21V residual;   12V read
    moments       a posed skin, 21V products and value, 24s_J + 18p sums;   10P + 24J numbers written
    shaped_moments  the same, 18V turned shapes, 60V products, 18V + 24s betas' derivatives and sums
    errors        a posed skin, 7V
    a step        192P slope, 192P + 32J^2 second moments, 27nJ + 6n^2 normal matrix, n^3/3 + 4n^2 solution;
                  10P + 24J numbers read, the normal matrix written and read
    """
    work: dict[str, OperationCount] = {}
    for gendered in fit.skel_genders(gender):
        for part, one in _count_pair(models, fit, fit.target_gender(gender, gendered), gendered).items():
            work[part] = work.get(part, OperationCount(0, 0)) + one
    return work


def _count_pair(models: ModelSet, fit: FitConfig, gender: str, gendered: str) -> dict[str, OperationCount]:
    """As `count_work`, for one SKEL body."""
    skel = models.skel_of(gendered)
    weights, target = np.asarray(skel.skin_weights), np.asarray(models.smpl_of(gender).weights)
    columns = 1 + skel.shapedirs.shape[2] + 9 * len(corrective_sources()[0])

    def posed(chosen: NDArray[np.int64]) -> OperationCount:
        skinning = 24 * int(np.count_nonzero(weights[chosen]))
        return OperationCount(len(chosen) * (6 * columns + 21) + skinning, 12 * len(chosen))

    all_vertices = np.arange(len(weights))
    progress = all_vertices[::PROGRESS_STRIDE]

    def free_betas(chosen: NDArray[np.int64]) -> OperationCount:
        """Operations of free betas beyond the moments."""
        return OperationCount(96 * len(chosen) + 24 * int(np.count_nonzero(weights[chosen])), 0)

    nothing = OperationCount(0, 0)
    work = {
        "target_skin": OperationCount(
            (6 * 218 + 18) * len(weights) + 24 * int(np.count_nonzero(target)), 12 * len(weights)
        ),
        "shaped_moments": nothing,
        "moments": nothing,
        "solve": nothing,
    }
    for stage in fit.stages:
        joints = list(STAGE_JOINTS[stage.dofs])
        coarse = stage.coarse_stride or stage.stride
        free = stage.refine_betas and gender != gendered
        for k, stride in enumerate([coarse] * (stage.refreshes - 1) + [stage.stride]):
            chosen = part_vertices(weights, stage.vertices, stride)
            pass_count = posed(chosen) + _sums(weights[chosen][:, joints])
            # Betas are free in all passes but the last, if it is not the only one.
            if free and (k < stage.refreshes - 1 or stage.refreshes == 1):
                work["shaped_moments"] += pass_count + free_betas(chosen)
            else:
                work["moments"] += pass_count
        # Each pass evaluates its start, too.
        work["solve"] += _step(joints, weights[:, joints]) * (stage.steps + stage.refreshes)
    work["errors"] = posed(all_vertices) + OperationCount(7 * len(weights), 0)
    work["errors"] += (posed(progress) + OperationCount(7 * len(progress), 0)) * (len(fit.stages) - 1)
    return work


def _sums(weights: NDArray[np.float32]) -> OperationCount:
    """Operations of moments beyond the posed skin; weights (V, J) of the active joints."""
    touched = np.count_nonzero(weights, axis=1)
    pairs = (touched * (touched + 1) // 2).sum()
    return OperationCount(21 * len(weights) + 24 * touched.sum() + 18 * pairs, _moments_bytes(weights))


def _pairs(weights: NDArray[np.float32]) -> int:
    """How many pairs of joints share a vertex."""
    touches = (weights > 0).astype(np.float64)
    return int(np.count_nonzero(np.triu(touches.T @ touches)))


def _moments_bytes(weights: NDArray[np.float32]) -> int:
    return 4 * (10 * _pairs(weights) + 24 * weights.shape[1])


def _step(joints: list[int], weights: NDArray[np.float32]) -> OperationCount:
    """One evaluation and solution of a stage with these joints; weights (V, J)."""
    n, count, pairs = sum(j in joints for j in DOF_JOINT), len(joints), _pairs(weights)
    flops = 384 * pairs + 32 * count**2 + 27 * n * count + 10 * n**2 + n**3 / 3
    return OperationCount(flops, _moments_bytes(weights) + 8 * n**2)


def measure_device(device: str) -> OperationCount:
    """Operations and bytes per second: the best of a few float32 matrix products, and of a few copies."""
    size, count = (8192, 2**28) if device == "cuda" else (2048, 2**25)
    a, b = torch.rand(2, size, size, device=device)
    source, copy = torch.rand(count, device=device), torch.empty(count, device=device)

    def best(function: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            wait_for(device)
            started = time.perf_counter()
            function()
            wait_for(device)
            times.append(time.perf_counter() - started)
        return min(times)

    return OperationCount(2 * size**3 / best(lambda: a @ b), 2 * 4 * count / best(lambda: copy.copy_(source)))


def roofline(
    work: dict[str, OperationCount], speed: OperationCount, people_per_second: float
) -> dict[str, Any]:
    """The time of each part at the measured speeds, and the share of that speed that the fit reaches."""
    seconds = {name: max(w.flops / speed.flops, w.bytes / speed.bytes) for name, w in work.items()}
    bound = 1 / sum(seconds.values())
    return {
        "gflop_per_second": speed.flops / 1e9,
        "gbyte_per_second": speed.bytes / 1e9,
        "mflop_per_person": sum(w.flops for w in work.values()) / 1e6,
        "mbyte_per_person": sum(w.bytes for w in work.values()) / 1e6,
        "seconds_per_1000_people": {name: 1000 * value for name, value in seconds.items()},
        "people_per_second": bound,
        "reached": people_per_second / bound,
    }
