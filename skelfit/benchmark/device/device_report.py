"""The report: it is written to two files after each of its sections."""

from __future__ import annotations

import json
import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import warp as wp

from skelfit import __version__
from skelfit.benchmark.device.agreement import Tolerances, as_dict, compare
from skelfit.benchmark.device.conversion_speed import measure_conversion
from skelfit.benchmark.device.device_speed import measure_batches, measure_sustained
from skelfit.benchmark.device.kernel_times import kernel_uses, measure_parts
from skelfit.benchmark.device.report_text import as_markdown
from skelfit.benchmark.fit_speed import Labels, describe_device, make_labels, timed_fit
from skelfit.bodies.model_set import ModelSet
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import Pipeline
from skelfit.fitting.fitter import Fitter
from skelfit.storage.locations import Location

REPORT_VERSION = 1
GENDERS: tuple[Gender, ...] = ("neutral", "female", "male")


@dataclass(frozen=True)
class ReportConfig:
    """What is measured; the defaults take a GPU less than ten minutes."""

    device: str
    people: int = 512  # of each gender and kind of poses, compared with a CPU
    batches: tuple[int, ...] = (1024, 4096, 16384, 65536)
    seconds: float = 60.0  # of continuous fitting
    converted: int = 2000
    different: int = 4096  # different people in a batch; the others are copies
    tolerances: Tolerances = Tolerances()


@dataclass(frozen=True)
class ReportSubject:
    """The models and the pipeline."""

    models: ModelSet
    folder: Location | None  # of the models, if one was given
    pipeline: Pipeline
    pipeline_file: Path


def make_report(
    subject: ReportSubject, config: ReportConfig, file: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Measure everything and write `file`, in Markdown, and the same as JSON beside it; both after each section.

    A section that fails is reported as failed, and the others follow: GPU time is scarce.
    """
    fit, device, models = subject.pipeline.fit, config.device, subject.models
    started = time.perf_counter()
    report: dict[str, Any] = {
        "version": REPORT_VERSION,
        "skelfit": __version__,
        "device": describe_device(device) | _more_of(device),
        "models": {"source": models.source, "sha256": models.sha256},
        "pipeline": subject.pipeline.name,
        "sections": {},
    }
    sections = report["sections"]

    def people() -> Labels:
        count = min(config.different, max(config.batches))
        return make_labels(count, "neutral")["everyday"]

    def best_batch() -> int:
        measured = sections.get("batches", {}).get("found", [])
        if not measured:
            return min(config.batches)
        return max(measured, key=lambda row: row["people_per_second"])["batch"]

    measures: dict[str, Callable[[], Any]] = {
        "agreement": lambda: measure_agreement(subject, config),
        "batches": lambda: measure_batches(models, fit, device, people(), config.batches),
        "parts": lambda: measure_parts(models, fit, device, people(), best_batch()),
        "sustained": lambda: measure_sustained(models, fit, device, people(), best_batch(), config.seconds),
        "conversion": lambda: measure_conversion(
            models, subject.folder, subject.pipeline_file, device, config.converted
        ),
        "kernels": lambda: kernel_uses(device),
    }
    for name, measure in measures.items():
        say(f"{name}: {QUESTIONS[name]}")
        begun = time.perf_counter()
        try:
            section: dict[str, Any] = {"found": measure()}
        except Exception as error:  # an untested device may raise anything
            section = {"error": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
            say(f"{name} failed: {section['error']}")
        sections[name] = section | {"seconds": time.perf_counter() - begun}
        report["seconds"] = time.perf_counter() - started
        write(report, file)
    return report


QUESTIONS = {
    "agreement": "the same people as on a CPU?",
    "batches": "people per second in calls of each size",
    "parts": "the time of each kernel",
    "sustained": "people per second of continuous fitting",
    "conversion": "label files to shards, by the command",
    "kernels": "what they take of the device",
}


def measure_agreement(subject: ReportSubject, config: ReportConfig) -> list[dict[str, Any]]:
    """How far the device is from a CPU, by gender and kind of poses; and whether it gives the same bits twice.

    Fits them in two orders, to detect results that depend on the other people of a batch.
    """
    fitters = {
        device: Fitter(subject.models, subject.pipeline.fit, device) for device in ("cpu", config.device)
    }
    rows = []
    for gender in GENDERS:
        for poses, labels in make_labels(config.people, gender).items():
            expected, cpu_seconds = timed_fit(fitters["cpu"], labels, "cpu")
            result, _ = timed_fit(fitters[config.device], labels, config.device)
            order = torch.arange(len(labels)).flip(0)
            reordered = Labels(gender, labels.pose[order], labels.betas[order], labels.transl[order])
            again, _ = timed_fit(fitters[config.device], reordered, config.device)
            rows.append(
                {
                    "gender": gender,
                    "poses": poses,
                    "cpu_people_per_second": len(labels) / cpu_seconds,
                    "same_bits_in_other_order": bool(
                        torch.equal(again.poses[order], result.poses)
                        and torch.equal(again.betas[order], result.betas)
                    ),
                }
                | as_dict(compare(expected, result), config.tolerances)
            )
    return rows


def failures(report: dict[str, Any]) -> list[str]:
    """Sections that failed and devices that disagree, a sentence each."""
    sentences = []
    for name, section in report["sections"].items():
        if "error" in section:
            sentences.append(f"{name} failed: {section['error']}")
    for row in report["sections"].get("agreement", {}).get("found", []):
        group = f"{row['gender']} labels, {row['poses']} poses"
        sentences += [f"{group}: {text}" for text in row["beyond"]]
        if not row["same_bits_in_other_order"]:
            sentences.append(f"{group}: other bits in another order")
    return sentences


def write(report: dict[str, Any], file: Path) -> None:
    """The Markdown, and JSON beside it."""
    file.write_text(as_markdown(report, failures(report)), encoding="utf-8")
    file.with_suffix(".json").write_text(json.dumps(_finite(report), indent=1) + "\n", encoding="utf-8")


def _finite(value: Any) -> Any:
    """The value with None for NaN and infinities, which JSON lacks."""
    if isinstance(value, dict):
        return {key: _finite(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _more_of(device: str) -> dict[str, Any]:
    facts: dict[str, Any] = {"warp": wp.__version__}
    if device == "cuda":
        has = torch.cuda.get_device_properties(0)
        facts |= {
            "capability": f"{has.major}.{has.minor}",
            "multiprocessors": has.multi_processor_count,
            "memory_gib": has.total_memory / 2**30,
            "cuda": torch.version.cuda,
        }
    return facts
