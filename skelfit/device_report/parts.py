"""Where the time of a fit goes, kernel by kernel, and what each kernel takes of a GPU."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import asdict, replace
from typing import Any

import torch
import warp as wp

from skelfit.bench import Labels, timed_fit
from skelfit.body.models import ModelSet
from skelfit.config import FitConfig
from skelfit.device_report.speed import repeated
from skelfit.fit.fitter import Fitter
from skelfit.fit.occupancy import MULTIPROCESSORS, kernel_report


def measure_parts(models: ModelSet, fit: FitConfig, device: str, labels: Labels, batch: int) -> dict[str, Any]:
    """Milliseconds and number of each kernel, copy and clearing in one call of this size, by the GPU's own events."""
    fitter, people = Fitter(models, replace(fit, batch=batch), device), repeated(labels, batch)
    timed_fit(fitter, people, device)
    wp.timing_begin(wp.TIMING_ALL)
    try:
        _, seconds = timed_fit(fitter, people, device)
    finally:
        events = wp.timing_end()
    milliseconds: dict[str, float] = defaultdict(float)
    number: dict[str, int] = defaultdict(int)
    for event in events:
        milliseconds[event.name] += event.elapsed
        number[event.name] += 1
    order = sorted(milliseconds, key=lambda name: -milliseconds[name])
    return {
        "batch": batch,
        "milliseconds": 1000 * seconds,
        "in_events": sum(milliseconds.values()),
        "events": [{"name": n, "number": number[n], "milliseconds": milliseconds[n]} for n in order],
    }


def kernel_uses(lanes: int, block: int) -> list[dict[str, Any]]:
    """What the kernels take of this GPU, or of the nearest one below that is known."""
    major, minor = torch.cuda.get_device_capability()
    arch = max((a for a in MULTIPROCESSORS if a <= 10 * major + minor), default=min(MULTIPROCESSORS))
    return [asdict(use) for use in kernel_report(arch, lanes, block)]
