"""The report of a device: what it compares and finds wrong, on a CPU too, and what it says without a GPU."""

from __future__ import annotations

import json
import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner

import skelfit.cli.bench
from skelfit.benchmark.device import device_report as report_module
from skelfit.benchmark.device.agreement import Tolerances, compare
from skelfit.benchmark.device.device_report import ReportConfig, ReportSubject, failures, make_report
from skelfit.benchmark.fit_speed import make_labels
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.fit_result import FitResult
from skelfit.fitting.fitter import Fitter
from skelfit.resources.catalog import PIPELINES

SECTIONS = ["agreement", "batches", "parts", "sustained", "conversion", "kernels"]


def _results(people: int) -> FitResult:
    flags = torch.ones(people, dtype=torch.bool)
    shapes = {
        "poses": (46,),
        "betas": (10,),
        "trans": (3,),
        "stage_pve_mm": (3,),
        "betas_mm": (2,),
        "joints": (24, 3),
    }
    tensors: dict[str, Any] = {
        f.name: torch.zeros(people, *shapes.get(f.name, ())) for f in fields(FitResult)
    }
    return FitResult(**tensors | {"converged": flags, "finite": flags, "keypoints3d": None})


def test_people_are_compared_by_their_largest_difference() -> None:
    one, other = _results(400), _results(400)
    other.poses[0, 5] = 2 * math.pi + math.radians(3)  # a whole turn is none
    other.pve_mm[1] = -0.05
    other.betas[2:7, 3] = 0.5  # more than one in a hundred
    agreement = compare(one, other)
    assert agreement.people == agreement.compared == 400
    assert agreement.angle_deg_max == pytest.approx(3, abs=1e-4) and agreement.angle_deg_p99 == 0
    assert agreement.pve_mm_max == pytest.approx(0.05) and agreement.beta_p99 == pytest.approx(0.5)
    assert agreement.beyond(Tolerances()) == ["beta_p99 is 0.5, at most 0.01 expected"]


def test_people_that_converge_on_one_device_are_counted_only() -> None:
    one, other = _results(100), _results(100)
    other = replace(other, converged=torch.arange(100) >= 1)
    other.poses[0] = math.nan
    sections = compare(one, other)
    assert sections.compared == 99 and sections.other_status == 0.01 and sections.angle_deg_max == 0
    assert [text.split()[0] for text in sections.beyond(Tolerances())] == ["other_status"]
    no_people = compare(one, replace(other, converged=torch.zeros(100, dtype=torch.bool)))
    assert len(no_people.beyond(Tolerances())) == len(fields(Tolerances))  # what is not a number is not near


def test_nan_is_beyond_any_tolerance() -> None:
    one, other = _results(4), _results(4)
    other.trans[3] = math.nan
    assert [t.split()[0] for t in compare(one, other).beyond(Tolerances())] == ["trans_mm_p99"]


@pytest.mark.soak
def test_a_report_of_this_cpu(models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(skelfit.cli.bench, "find_models", lambda _: models)
    file = tmp_path / "cpu.md"
    sizes = ("--people", 2, "--batch", 4, "--batch", 8, "--seconds", 0.5, "--converted", 3)
    done = CliRunner().invoke(main, ["bench", "--device", "cpu", "--report", str(file), *map(str, sizes)])
    assert done.exit_code == 0, done.output
    report = json.loads(file.with_suffix(".json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert list(report["sections"]) == SECTIONS
    sections = {name: section["found"] for name, section in report["sections"].items()}
    assert len(sections["agreement"]) == 6
    for row in sections["agreement"]:
        assert row["found"]["people"] == 2 and row["beyond"] == [] and row["same_bits_in_other_order"]
    assert [row["batch"] for row in sections["batches"]] == [4, 8]
    parts = sections["parts"]
    assert parts["launches"] == sum(kernel["number"] for kernel in parts["kernels"]) > 5
    assert 0 < parts["in_kernels"] <= parts["milliseconds"] and parts["reads"] > 0
    assert sections["sustained"]["calls"] >= 4 and sections["sustained"]["people_per_second"] > 0
    assert [row["what"] for row in sections["conversion"]] == ["labels only", "with images"]
    assert all(row["people_per_second"] > 0 for row in sections["conversion"]) and sections["kernels"] == []
    text = file.read_text()
    assert text in done.output and "Nothing failed" in text
    for words in ("## Where the time goes", "| solve |", "| labels only | 3 |"):
        assert words in text


def test_a_failed_section_is_reported_and_the_others_follow(
    models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise RuntimeError("an illegal address")

    for name in ("measure_batches", "measure_parts", "measure_conversion", "measure_agreement"):
        monkeypatch.setattr(report_module, name, fails)
    pipeline = PIPELINES.find("hmr-skel")
    subject = ReportSubject(models, None, load_pipeline(pipeline), pipeline)
    config, said = ReportConfig("cpu", batches=(2,), seconds=0.0, different=2), list[str]()
    report = make_report(subject, config, tmp_path / "a.md", said.append)
    assert list(report["sections"]) == SECTIONS and "found" in report["sections"]["sustained"]
    assert len(failures(report)) == 4 and "an illegal address" in failures(report)[0]
    assert "**Failures:**" in (tmp_path / "a.md").read_text()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_missing_gpu_is_one_message(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["bench", "--device", "cuda", "--report", str(tmp_path / "gpu.md")])
    assert done.exit_code == 2 and "device cuda:" in done.output and "has no CUDA device" in done.output
    assert list(tmp_path.iterdir()) == []


def test_options_that_do_not_apply_are_refused(tmp_path: Path) -> None:
    report = ["bench", "--device", "cpu", "--report", str(tmp_path / "a.md")]
    done = CliRunner().invoke(main, [*report, "--baseline-people", "2"])
    assert done.exit_code == 2 and "--baseline-people" in done.output
    done = CliRunner().invoke(main, ["bench", "--device", "cpu", "--seconds", "2"])
    assert done.exit_code == 2 and "belong to --report" in done.output


@pytest.mark.gpu
def test_a_gpu_fits_the_same_people_as_a_cpu(models: ModelSet) -> None:
    pipeline = PIPELINES.find("hmr-skel")
    subject = ReportSubject(models, None, load_pipeline(pipeline), pipeline)
    for row in report_module.measure_agreement(subject, ReportConfig("cuda", people=128)):
        assert row["beyond"] == [] and row["same_bits_in_other_order"], row


@pytest.mark.gpu
def test_a_gpu_result_does_not_depend_on_the_batch(models: ModelSet) -> None:
    fitter = Fitter(models, load_pipeline(PIPELINES.find("hmr-skel")).fit, "cuda")
    labels = make_labels(64, "neutral")["extreme"]
    few = fitter.fit("neutral", labels.pose, labels.betas, labels.transl)
    many = fitter.fit(
        "neutral", labels.pose.repeat(64, 1, 1), labels.betas.repeat(64, 1), labels.transl.repeat(64, 1)
    )
    assert torch.equal(many.poses, few.poses.repeat(64, 1)) and torch.equal(
        many.betas, few.betas.repeat(64, 1)
    )
