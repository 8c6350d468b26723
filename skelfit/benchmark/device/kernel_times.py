"""The time of each kernel of a fit, and the GPU resources of each."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import torch
import warp as wp

from skelfit.benchmark.device.device_speed import repeated
from skelfit.benchmark.device.launch_counter import recording
from skelfit.benchmark.device.occupancy import MULTIPROCESSORS, kernel_report
from skelfit.benchmark.fit_speed import Labels, timed_fit
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.fitter import Fitter


def measure_parts(
    models: ModelSet, fit: FitConfig, device: str, labels: Labels, batch: int
) -> dict[str, Any]:
    """Number and milliseconds of each kernel in one call of this size, and how often the host waits.

    On a GPU by its own events, with copies and clearings of Warp; on a CPU by the clock.
    """
    counted = recording(make_backend(device))
    fitter = Fitter(models, replace(fit, batch=batch), device, counted)
    people = repeated(labels, batch)
    timed_fit(fitter, people, device)
    counted.forget()
    if device == "cuda":
        wp.timing_begin(wp.TIMING_ALL)
    try:
        _, seconds = timed_fit(fitter, people, device)
    finally:
        events = wp.timing_end() if device == "cuda" else []
    milliseconds: dict[str, float] = defaultdict(float)
    number: dict[str, int] = defaultdict(int)
    for event in events:
        milliseconds[event.name] += event.elapsed
        number[event.name] += 1
    if device != "cuda":
        milliseconds.update({name: 1000 * value for name, value in counted.seconds.items()})
        number.update(counted.launches)
    order = sorted(milliseconds, key=lambda name: -milliseconds[name])
    return {
        "batch": batch,
        "milliseconds": 1000 * seconds,
        "in_kernels": sum(milliseconds.values()),
        "launches": sum(counted.launches.values()),
        "reads": len(counted.reads),
        "read_bytes": sum(counted.reads),
        "writes": len(counted.writes),
        "written_bytes": sum(counted.writes),
        "kernels": [{"name": n, "number": number[n], "milliseconds": milliseconds[n]} for n in order],
    }


def kernel_uses(device: str) -> list[dict[str, Any]]:
    """GPU resources of the kernels, on this GPU or the nearest known older one; none on a CPU."""
    if device != "cuda":
        return []
    backend, (major, minor) = make_backend(device), torch.cuda.get_device_capability()
    arch = max((a for a in MULTIPROCESSORS if a <= 10 * major + minor), default=min(MULTIPROCESSORS))
    return [asdict(use) for use in kernel_report(arch, backend.lanes, backend.threads)]
