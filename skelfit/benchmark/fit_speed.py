"""Speed and accuracy of the fit, the time of its parts, and the distance from the device's roofline.

Made-up people in everyday and in extreme poses are fitted in batches of several sizes, and a part of them by the
first-order baseline too. All figures of a report come from one run on one device.
"""

from __future__ import annotations

import ctypes
import resource
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skelfit import __version__
from skelfit.benchmark.device.launch_counter import recording
from skelfit.benchmark.roofline import count_work, measure_device, roofline, wait_for
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import Pipeline
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.baseline.first_order import FirstOrderFitter
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.labels.demo_people import sample_labels

REPORT_VERSION = 1
POSES = {"everyday": 0.0, "extreme": 1.0}  # share of people with a pose anywhere in the joints' ranges
_SEED = 20_000  # no person of the demo
_MAX_BATCHES = 16  # batches that a batch size is timed on, at most
_MIB = 2**20


@dataclass(frozen=True)
class BenchConfig:
    """What is measured."""

    device: str
    people: int  # of each kind of poses
    batches: tuple[int, ...]
    baseline_people: int  # of each kind; 0: no baseline
    gender: Gender = "neutral"  # of the labels


@dataclass(frozen=True)
class Labels:
    """SMPL labels of N people, as a fitter takes them."""

    gender: Gender
    pose: Tensor  # (N, 24, 3) rad
    betas: Tensor  # (N, 10)
    transl: Tensor  # (N, 3) m

    def first(self, count: int) -> Labels:
        """The first people only."""
        return Labels(self.gender, self.pose[:count], self.betas[:count], self.transl[:count])

    def __len__(self) -> int:
        return len(self.pose)


class PeopleFitter(Protocol):
    """A fitter that can be measured."""

    def fit(self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit N people."""


def make_labels(people: int, gender: Gender) -> dict[str, Labels]:
    """The people of a report, by kind of poses; the first people are the same for any number."""
    labels = {}
    for name, extreme in POSES.items():
        pose, betas, transl = (torch.from_numpy(x) for x in sample_labels(people, _SEED, extreme))
        labels[name] = Labels(gender, pose, betas, transl)
    return labels


def run_bench(
    models: ModelSet,
    pipeline: Pipeline,
    baseline: Pipeline,
    config: BenchConfig,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """The whole report, as it goes to JSON; `say` is told what is being measured.

    baseline: a pipeline of the first-order fitter; its residuals are those of `pipeline`.
    """
    people = make_labels(config.people, config.gender)
    say(f"fitting {config.people} people of each kind on {config.device}")
    fit: list[dict[str, Any]] = [
        {"poses": name, "batch": batch} | measure_batch(models, pipeline.fit, config.device, batch, labels)
        for batch in sorted(config.batches)  # ascending: the peak of a process's memory never falls
        for name, labels in people.items()
    ]
    best = {
        name: max((r for r in fit if r["poses"] == name), key=lambda r: r["people_per_second"])
        for name in people
    }
    batch = best["everyday"]["batch"]
    say(f"timing its parts, in batches of {batch}")
    breakdown = {
        name: measure_breakdown(
            models, replace(pipeline.fit, batch=batch), config.device, labels.first(4 * batch)
        )
        for name, labels in people.items()
    }
    compared = []
    if config.baseline_people:
        say(f"fitting {config.baseline_people} people of each kind by the baseline; the longest part")
        for name, labels in people.items():
            few, speed = labels.first(config.baseline_people), best[name]["people_per_second"]
            for size in sorted({min(len(few), b) for b in (1, _MAX_BATCHES, len(few))}):
                batch_labels = few.first(size * _MAX_BATCHES)
                figures = measure_baseline(models, pipeline, baseline, config.device, batch_labels, size)
                ours = compare(models, pipeline, config.device, batch_labels, figures, speed)
                compared.append({"poses": name} | figures | {"fit": ours})
    say("measuring what the device can do")
    count = count_work(models, pipeline.fit, config.gender)
    roof = roofline(count, measure_device(config.device), best["everyday"]["people_per_second"])
    return {
        "version": REPORT_VERSION,
        "skelfit": __version__,
        "device": describe_device(config.device),
        "models": {"source": models.source, "sha256": models.sha256},
        "pipeline": pipeline.name,
        "gender": config.gender,
        "fit": fit,
        "breakdown": {"batch": batch, "seconds_per_1000_people": breakdown},
        "baseline": compared,
        "roofline": roof,
    }


def describe_device(device: str) -> dict[str, Any]:
    """The name of the device, and the number of torch's threads."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {"kind": device, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


def timed_fit(fitter: PeopleFitter, labels: Labels, device: str) -> tuple[FitResult, float]:
    """A fit and its seconds."""
    wait_for(device)
    started = time.perf_counter()
    result = fitter.fit(labels.gender, labels.pose, labels.betas, labels.transl)
    wait_for(device)
    return result, time.perf_counter() - started


def accuracy(result: FitResult) -> dict[str, float]:
    """Mean, 95th percentile and maximum of people's mean vertex errors, mm; NaN where a person is not finite."""
    pve = result.pve_mm.double().numpy()
    return {"mean": float(pve.mean()), "p95": float(np.quantile(pve, 0.95)), "max": float(pve.max())}


def measure_batch(
    models: ModelSet, fit: FitConfig, device: str, batch: int, labels: Labels
) -> dict[str, Any]:
    """Speed, accuracy and memory of the fit in batches of one size; the faster of two runs."""
    labels = labels.first(_MAX_BATCHES * batch)
    fitter = Fitter(models, replace(fit, batch=batch), device)
    timed_fit(fitter, labels.first(1), device)  # makes the tables
    before = _memory(device, start=True)
    runs = [timed_fit(fitter, labels, device) for _ in range(2)]  # the first may have to warm up
    result, seconds = min(runs, key=lambda run: run[1])
    return {
        "people": len(labels),
        "seconds": seconds,
        "people_per_second": len(labels) / seconds,
        "pve_mm": accuracy(result),
        "converged": float(result.converged.double().mean()),
        "peak_memory_mib": (_memory(device) - before) / _MIB,
    }


def same_objective(ours: FitConfig, baseline: FitConfig) -> FitConfig:
    """The baseline's configuration with our bodies, free variables and residuals."""
    joints = {stage.name: stage.joint_weight for stage in ours.stages}
    return replace(
        baseline,
        skel_gender=ours.skel_gender,
        neutral_target=ours.neutral_target,
        betas=ours.betas,
        root=ours.root,
        root_prior=ours.root_prior,
        limits=ours.limits,
        limit_weight=ours.limit_weight,
        spine=ours.spine,
        vertex_weights=ours.vertex_weights,
        beta_weight=ours.beta_weight,
        stages=tuple(replace(s, joint_weight=joints.get(s.name, 0.0)) for s in baseline.stages),
    )


def measure_baseline(
    models: ModelSet, pipeline: Pipeline, baseline: Pipeline, device: str, labels: Labels, batch: int
) -> dict[str, Any]:
    """Speed and accuracy of the first-order baseline in batches of one size.

    The published aligner fits unrelated images one at a time; in a batch people share an optimiser.
    """
    if baseline.first_order is None:
        raise ValueError(f"the baseline {baseline.name!r}: expected a first_order section, found none")
    same = replace(same_objective(pipeline.fit, baseline.fit), batch=batch)
    fitter = FirstOrderFitter(models, same, baseline.first_order, device)
    fitter.prepare(labels.gender)
    result, seconds = timed_fit(fitter, labels, device)
    return {
        "method": baseline.first_order.method,
        "batch": batch,
        "people": len(labels),
        "seconds": seconds,
        "people_per_second": len(labels) / seconds,
        "pve_mm": accuracy(result),
        "converged": float(result.converged.double().mean()),
    }


def compare(
    models: ModelSet,
    pipeline: Pipeline,
    device: str,
    labels: Labels,
    baseline: dict[str, Any],
    people_per_second: float,
) -> dict[str, Any]:
    """Our fit of the baseline's people, at the speed of full batches; the ratios are ours over the baseline's."""
    result = Fitter(models, pipeline.fit, device).fit(labels.gender, labels.pose, labels.betas, labels.transl)
    pve, theirs = accuracy(result), baseline["pve_mm"]
    return {
        "people_per_second": people_per_second,
        "pve_mm": pve,
        "ratio": {
            "people_per_second": people_per_second / baseline["people_per_second"],
            "pve_mean": pve["mean"] / theirs["mean"],
            "pve_p95": pve["p95"] / theirs["p95"],
        },
    }


def _memory(device: str, start: bool = False) -> int:
    """Peak memory in bytes since the last start, of the GPU or of this process."""
    if device == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if start:
        # On Linux: free memory, then reset the peak. Elsewhere the peak never falls, so batches ascend.
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
            Path("/proc/self/clear_refs").write_text("5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


def measure_breakdown(models: ModelSet, fit: FitConfig, device: str, labels: Labels) -> dict[str, float]:
    """Seconds per 1000 people of each kernel of the fit, on a CPU on one thread; `other` is the rest of the whole.

    Waits for the device before and after each kernel, which slows a GPU down.
    """
    parts: dict[str, float] = {}
    started = 0.0

    def before() -> None:
        nonlocal started
        wait_for(device)
        started = time.perf_counter()

    def after(kernel: str) -> None:
        wait_for(device)
        parts[kernel] = parts.get(kernel, 0.0) + time.perf_counter() - started

    fitter = Fitter(models, fit, device, recording(make_backend(device), before, after))
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        timed_fit(fitter, labels, device)  # compiles, and makes the tables
        parts.clear()
        _, seconds = timed_fit(fitter, labels, device)
    finally:
        torch.set_num_threads(threads)
    by_part = {"all": seconds, **parts, "other": seconds - sum(parts.values())}
    return {name: 1000 * value / len(labels) for name, value in by_part.items()}
