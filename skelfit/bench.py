"""How fast and how well people are fitted, where the time goes, and how far that is from what the device can do.

Made-up people of two kinds, everyday and extreme poses, are fitted in batches of several sizes, and some of them by
the first-order baseline too. All figures of a report come from one run on one device.
"""

from __future__ import annotations

import resource
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from skelfit import __version__
from skelfit.body.dofs import DOF_JOINT, STAGE_JOINTS
from skelfit.body.models import ModelSet
from skelfit.body.skel import corrective_sources
from skelfit.body.smpl import SmplModel
from skelfit.config import FitConfig, Gender, Pipeline
from skelfit.fit import fitter as fit_module
from skelfit.fit.fitter import FitResult, Fitter
from skelfit.fit.moments import part_vertices
from skelfit.labels.demo import sample_labels

REPORT_VERSION = 1
POSES = {"everyday": 0.0, "extreme": 1.0}  # share of people with a pose anywhere in the joints' ranges
_SEED = 20_000  # no person of the demo
_MAX_BATCHES = 16  # a small batch is timed on so many of its size: more only takes longer
_MIB = 2**20


@dataclass(frozen=True)
class BenchConfig:
    """What is measured."""

    device: str
    people: int  # of each kind of poses
    batches: tuple[int, ...]
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


class Fits(Protocol):
    """What is measured of a fitter."""

    def fit(self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit N people."""


def make_labels(people: int, gender: Gender) -> dict[str, Labels]:
    """The people of a report, by kind of poses; the first ones are the same for any number."""
    found = {}
    for name, extreme in POSES.items():
        pose, betas, transl = (torch.from_numpy(x) for x in sample_labels(people, _SEED, extreme))
        found[name] = Labels(gender, pose, betas, transl)
    return found


def run_bench(
    models: ModelSet, pipeline: Pipeline, config: BenchConfig, say: Callable[[str], None]
) -> dict[str, Any]:
    """The whole report, as it goes to JSON; `say` is told what is being measured."""
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
    say(f"breakdown at batch {batch}")
    breakdown = {
        name: measure_breakdown(
            models, replace(pipeline.fit, batch=batch), config.device, labels.first(4 * batch)
        )
        for name, labels in people.items()
    }
    say("roofline")
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
        "roofline": roof,
    }


def describe_device(device: str) -> dict[str, Any]:
    """Name of the device, and the threads that torch uses."""
    name = torch.cuda.get_device_name() if device == "cuda" else _cpu_name()
    return {"kind": device, "name": name, "threads": torch.get_num_threads(), "torch": torch.__version__}


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as lines:
            return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return "unknown CPU"


def _wait(device: str) -> None:
    """Until the device has done what it was given."""
    if device == "cuda":
        torch.cuda.synchronize()


def timed_fit(fitter: Fits, labels: Labels, device: str) -> tuple[FitResult, float]:
    """A fit and its seconds."""
    _wait(device)
    started = time.perf_counter()
    result = fitter.fit(labels.gender, labels.pose, labels.betas, labels.transl)
    _wait(device)
    return result, time.perf_counter() - started


def accuracy(result: FitResult) -> dict[str, float]:
    """Mean, 95th percentile and maximum of people's mean vertex errors, mm; NaN where a person is not finite."""
    pve = result.pve_mm.double().numpy()
    return {"mean": float(pve.mean()), "p95": float(np.quantile(pve, 0.95)), "max": float(pve.max())}


def measure_batch(
    models: ModelSet, fit: FitConfig, device: str, batch: int, labels: Labels
) -> dict[str, Any]:
    """Speed, accuracy and memory of the fit in batches of one size, after a batch to warm up."""
    labels = labels.first(_MAX_BATCHES * batch)
    fitter = Fitter(models, replace(fit, batch=batch), device)
    timed_fit(fitter, labels.first(1), device)  # makes the tables
    before = _memory(device, start=True)
    timed_fit(fitter, labels.first(batch), device)
    result, seconds = timed_fit(fitter, labels, device)
    return {
        "people": len(labels),
        "seconds": seconds,
        "people_per_second": len(labels) / seconds,
        "pve_mm": accuracy(result),
        "converged": float(result.converged.double().mean()),
        "peak_memory_mib": (_memory(device) - before) / _MIB,
    }


def _memory(device: str, start: bool = False) -> int:
    """Peak bytes since the last start, of the GPU's memory or of this process."""
    if device == "cuda":
        if start:
            torch.cuda.reset_peak_memory_stats()
        return torch.cuda.max_memory_allocated()
    if start:
        # Linux forgets the peak of a process on request. Elsewhere it never falls, which is why batches ascend.
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak * (1 if sys.platform == "darwin" else 1024)


# --- where the time goes ---------------------------------------------------------------------------------------


def measure_breakdown(models: ModelSet, fit: FitConfig, device: str, labels: Labels) -> dict[str, float]:
    """Seconds per 1000 people of each part of the fit; `other` is the rest of the whole."""
    fitter = Fitter(models, fit, device)
    timed_fit(fitter, labels.first(1), device)
    with timed_parts([stage.name for stage in fit.stages], device) as parts:
        _, seconds = timed_fit(fitter, labels, device)
    found = {"all": seconds, **parts, "other": seconds - sum(parts.values())}
    return {name: 1000 * value / len(labels) for name, value in found.items()}


@contextmanager
def timed_parts(stages: Sequence[str], device: str) -> Iterator[dict[str, float]]:
    """While it is open, the functions that the fitter calls are timed: seconds by part, of all calls.

    Waits for the device before and after each call, which costs a GPU some speed.
    """
    seconds: dict[str, float] = dict.fromkeys(["target mesh", "warm start", "moments"], 0.0)
    seconds |= {f"LM {name}": 0.0 for name in stages} | {"metrics": 0.0}
    plans: list[int] = []  # of the stages, in the order in which they are first used
    latest = [0]

    def timed(function: Callable[..., Any], part: str | None) -> Callable[..., Any]:
        def call(*args: Any, **kwargs: Any) -> Any:
            _wait(device)
            started = time.perf_counter()
            result = function(*args, **kwargs)
            _wait(device)
            seconds[part or f"LM {stages[latest[0]]}"] += time.perf_counter() - started
            return result

        return call

    def moments(plan: Any, *args: Any, **kwargs: Any) -> Any:
        if id(plan) not in plans:
            plans.append(id(plan))
        latest[0] = plans.index(id(plan))
        return timed_moments(plan, *args, **kwargs)

    places: list[tuple[Any, str, str | None]] = [
        (SmplModel, "vertices", "target mesh"),
        (fit_module, "body_angles", "warm start"),
        (fit_module, "moments", "moments"),
        (fit_module, "levenberg_marquardt", None),
        (fit_module, "errors", "metrics"),
    ]
    originals = [getattr(owner, name) for owner, name, _ in places]
    timed_moments = timed(originals[2], "moments")
    try:
        for (owner, name, part), original in zip(places, originals, strict=True):
            setattr(owner, name, moments if name == "moments" else timed(original, part))
        yield seconds
    finally:
        for (owner, name, _), original in zip(places, originals, strict=True):
            setattr(owner, name, original)


# --- what the device could do ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Work:
    """Floating-point operations and bytes to and from memory, of one person."""

    flops: float
    bytes: float

    def __add__(self, other: Work) -> Work:
        return Work(self.flops + other.flops, self.bytes + other.bytes)

    def __mul__(self, times: float) -> Work:
        return Work(times * self.flops, times * self.bytes)


def count_work(models: ModelSet, fit: FitConfig, gender: Gender) -> dict[str, Work]:
    """What the method asks for per person, in float32, counted from sizes: a multiply-add is two operations.

    V vertices, K = 1 + 10 betas + 9 per corrective joint, s skinning weights that are not zero, p of joint pairs at a
    vertex, J joints and n DoFs of the stage. Tables and whatever fits a cache are free: many people share them.

    target mesh   6V(10 + 207) correctives, 2*24*16V + 24V skinning;   12V written
    vertex pass   6VK rest skin, 24s skinning, 21V residual, 15V products, 24s_J + 18p sums, 6V value;  12V read,
                  and (4J)^2 + 12J numbers written
    metrics       6VK + 24s + 21V + 7V;   12V read
    LM step       6(4J)^2 slope, 2*3n(4J)^2 and 2n^2*12J normal matrix, n^3/3 + 4n^2 solution;   M and, twice, the
                  3n x 4J Jacobian and its product with M
    """
    skel = models.skel_of(fit.skel_gender if gender == "neutral" else gender)
    weights = np.asarray(skel.skin_weights)
    columns = 1 + skel.shapedirs.shape[2] + 9 * len(corrective_sources()[0])
    vertices = len(weights)

    def posed(chosen: Any) -> float:
        return 6 * len(chosen) * columns + 24 * np.count_nonzero(weights[chosen]) + 21 * len(chosen)

    work = {"target mesh": Work((6 * 217 + 2 * 24 * 16 + 24) * vertices, 12 * vertices)}
    for stage in fit.stages:
        joints = list(STAGE_JOINTS[stage.dofs])
        chosen = part_vertices(weights, stage.vertices, stage.stride)
        touched = np.count_nonzero(weights[chosen][:, joints], axis=1)
        pairs = (touched * (touched + 1) // 2).sum()
        rows, n = 4 * len(joints), sum(j in joints for j in DOF_JOINT)
        sums = 21 * len(chosen) + 24 * touched.sum() + 18 * pairs
        one_pass = Work(posed(chosen) + sums, 12 * len(chosen) + 4 * (rows**2 + 3 * rows))
        step = Work(
            (6 + 6 * n) * rows**2 + 6 * n**2 * rows + n**3 / 3 + 4 * n**2, 4 * (rows**2 + 4 * 3 * n * rows)
        )
        work["moments"] = work.get("moments", Work(0, 0)) + one_pass * stage.refreshes
        # Each pass evaluates its start, too.
        work[f"LM {stage.name}"] = step * (stage.steps + stage.refreshes)
    work["metrics"] = Work(posed(np.arange(vertices)) + 7 * vertices, 12 * vertices)
    return work


def measure_device(device: str) -> Work:
    """Operations and bytes per second: the best of a few float32 matrix products, and of a few copies."""
    size, count = (8192, 2**28) if device == "cuda" else (2048, 2**25)
    a, b = torch.rand(2, size, size, device=device)
    source, copy = torch.rand(count, device=device), torch.empty(count, device=device)

    def best(function: Callable[[], object]) -> float:
        times = []
        for _ in range(5):
            _wait(device)
            started = time.perf_counter()
            function()
            _wait(device)
            times.append(time.perf_counter() - started)
        return min(times)

    return Work(2 * size**3 / best(lambda: a @ b), 2 * 4 * count / best(lambda: copy.copy_(source)))


def roofline(work: dict[str, Work], speed: Work, people_per_second: float) -> dict[str, Any]:
    """What the device could do at the measured speeds, part by part, and the share of it that the fit reaches."""
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
