"""The speed of a device: in batches of each size, and over a minute of continuous fitting."""

from __future__ import annotations

import subprocess
import time
from dataclasses import replace
from typing import Any

import torch
import warp as wp

from skelfit.benchmark.fit_speed import Labels, accuracy, timed_fit
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.fitter import Fitter

_MIB = 2**20
_RUNS, _SECONDS = 3, 20.0  # limits of a batch: its runs, and the time after which no run starts
_QUERY = "clocks.sm,temperature.gpu,power.draw,utilization.gpu"


def repeated(labels: Labels, count: int) -> Labels:
    """`count` people: copies of some labels."""
    times = -(-count // len(labels))
    more = (x.repeat(times, *[1] * (x.ndim - 1))[:count] for x in (labels.pose, labels.betas, labels.transl))
    return Labels(labels.gender, *more)


def measure_batches(
    models: ModelSet, fit: FitConfig, device: str, labels: Labels, batches: tuple[int, ...]
) -> list[dict[str, Any]]:
    """People per second, accuracy and memory for one call of each size: the fastest of a few, and the first."""
    rows = []
    for batch in sorted(batches):
        fitter, people = Fitter(models, replace(fit, batch=batch), device), repeated(labels, batch)
        started = time.perf_counter()
        timed_fit(fitter, people.first(1), device)  # makes tables, and compiles what is not compiled
        ready = time.perf_counter() - started
        forget_peak(device)
        result, first = timed_fit(fitter, people, device)
        seconds = [first]
        while len(seconds) < _RUNS and sum(seconds) < _SECONDS:
            seconds.append(timed_fit(fitter, people, device)[1])
        rows.append(
            {
                "batch": batch,
                "people_per_second": batch / min(seconds),
                "seconds": seconds,
                "seconds_until_ready": ready,
                "pve_mm": accuracy(result),
                "converged": float(result.converged.double().mean()),
                "memory": memory(device),
            }
        )
    return rows


def measure_sustained(
    models: ModelSet, fit: FitConfig, device: str, labels: Labels, batch: int, seconds: float
) -> dict[str, Any]:
    """Calls of one size for so long: people per second in all, and in the first and the last quarter."""
    fitter, people = Fitter(models, replace(fit, batch=batch), device), repeated(labels, batch)
    timed_fit(fitter, people.first(1), device)
    before = gpu_state(device)
    calls: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(calls) < 4:
        calls.append(timed_fit(fitter, people, device)[1])
    quarter = max(1, len(calls) // 4)
    return {
        "batch": batch,
        "calls": len(calls),
        "seconds": sum(calls),
        "people_per_second": batch * len(calls) / sum(calls),
        "first_quarter": batch * quarter / sum(calls[:quarter]),
        "last_quarter": batch * quarter / sum(calls[-quarter:]),
        "gpu_before": before,
        "gpu_after": gpu_state(device),
        "memory": memory(device),
    }


def forget_peak(device: str) -> None:
    """Reset torch's peak of GPU memory; the peak of Warp's pool stays."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()


def memory(device: str) -> dict[str, float] | None:
    """MiB: peaks of torch and Warp, and the memory in use on the whole GPU; None on a CPU."""
    if device != "cuda":
        return None
    free, total = torch.cuda.mem_get_info()
    return {
        "torch_peak": torch.cuda.max_memory_allocated() / _MIB,
        "warp_peak": wp.get_mempool_used_mem_high("cuda:0") / _MIB,
        "gpu_used": (total - free) / _MIB,
        "gpu_total": total / _MIB,
    }


def gpu_state(device: str) -> dict[str, str] | None:
    """Clock, temperature, power and load by nvidia-smi; None without it."""
    if device != "cuda":
        return None
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader", "--id=0"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return dict(zip(_QUERY.split(","), (x.strip() for x in output.split(",")), strict=False))
