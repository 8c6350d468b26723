"""The bench: what a report holds, that its numbers agree with each other, and that measuring leaves no trace."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result

import skelfit.benchmark.fit_speed
import skelfit.cli.bench
from skelfit.benchmark.fit_speed import REPORT_VERSION, make_labels, measure_breakdown
from skelfit.benchmark.roofline import OperationCount, count_work, roofline
from skelfit.bodies.model_set import ModelSet
from skelfit.cli import main
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting.backends.backend import make_backend

ROOT = Path(__file__).parents[2]
PIPELINE = ROOT / "pipelines" / "hmr-skel.yaml"
BenchCommand = Callable[..., Result]
BASELINE = """
name: short
fit:
  retries: 0
  stages:
    - {name: lower_body, dofs: lower_body, vertices: lower_body, steps: 1, refreshes: 1}
    - {name: full, dofs: all, vertices: all, steps: 2, refreshes: 1}
first_order: {}
"""


@pytest.fixture
def bench(models: ModelSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> BenchCommand:
    """The command, with a baseline of a few iterations."""
    (tmp_path / "short.yaml").write_text(BASELINE)
    monkeypatch.setattr(skelfit.cli.bench, "BASELINE", tmp_path / "short.yaml")
    monkeypatch.setattr(skelfit.cli.bench, "find_models", lambda _: models)

    def run(*args: object) -> Result:
        return CliRunner().invoke(main, ["bench", "--device", "cpu", *(str(a) for a in args)])

    return run


def test_report(bench: BenchCommand, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = bench("--people", 5, "--batch", 4, "--batch", 2, "--baseline-people", 2, "--json", path)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert report["version"] == REPORT_VERSION
    assert set(report) == {
        "version", "skelfit", "device", "models", "pipeline", "gender", "fit", "breakdown", "baseline", "roofline",
    }  # fmt: skip
    assert report["device"]["kind"] == "cpu" and report["device"]["threads"] == torch.get_num_threads()

    rows = report["fit"]
    assert {(r["poses"], r["batch"]) for r in rows} == {
        (p, b) for p in ("everyday", "extreme") for b in (2, 4)
    }
    for r in rows:
        assert r["people"] == 5 and r["people_per_second"] == pytest.approx(5 / r["seconds"])
        assert 1 < r["pve_mm"]["mean"] <= r["pve_mm"]["p95"] <= r["pve_mm"]["max"] < 60
        assert 0 <= r["converged"] <= 1 and r["peak_memory_mib"] >= 0
    best = {p: max(r["people_per_second"] for r in rows if r["poses"] == p) for p in ("everyday", "extreme")}

    for kind, parts in report["breakdown"]["seconds_per_1000_people"].items():
        assert list(parts)[0] == "all" and list(parts)[-1] == "other"
        assert set(parts) - {"all", "other"} == {
            "start",
            "locate",
            *report["roofline"]["seconds_per_1000_people"],
        }
        assert parts["all"] == pytest.approx(sum(v for k, v in parts.items() if k != "all"))
        # A part that is never called would show as zero.
        assert all(seconds > 0 for seconds in parts.values()), kind

    expected = [(p, b) for p in ("everyday", "extreme") for b in (1, 2)]
    assert [(r["poses"], r["batch"]) for r in report["baseline"]] == expected
    for r in report["baseline"]:
        ours = r["fit"]
        assert r["people"] == 2 and r["people_per_second"] == pytest.approx(2 / r["seconds"])
        assert ours["people_per_second"] == best[r["poses"]]
        ratio = ours["ratio"]
        assert ratio["people_per_second"] == pytest.approx(best[r["poses"]] * r["seconds"] / 2)
        assert ratio["pve_mean"] == pytest.approx(ours["pve_mm"]["mean"] / r["pve_mm"]["mean"])
        assert ratio["pve_p95"] == pytest.approx(ours["pve_mm"]["p95"] / r["pve_mm"]["p95"])
        assert ratio["pve_mean"] < 0.95  # after three iterations

    roof = report["roofline"]
    assert roof["people_per_second"] == pytest.approx(1000 / sum(roof["seconds_per_1000_people"].values()))
    assert roof["reached"] == pytest.approx(best["everyday"] / roof["people_per_second"])

    for text in ("everyday", "extreme", "lbfgs", "ratio", "solve", "roofline:"):
        assert text in result.output


def test_baseline_can_be_left_out(bench: BenchCommand, tmp_path: Path) -> None:
    path = tmp_path / "bench.json"
    result = bench("--people", 2, "--baseline-people", 0, "--json", path)
    assert result.exit_code == 0, result.output
    report = json.loads(path.read_text())
    assert report["baseline"] == [] and "lbfgs" not in result.output
    assert {r["batch"] for r in report["fit"]} == {2}


def test_invalid_options_are_refused(bench: BenchCommand, tmp_path: Path) -> None:
    result = bench("--pipeline", ROOT / "pipelines" / "first-order.yaml")
    assert result.exit_code == 2 and "--pipeline" in result.output
    result = bench("--people", 2, "--baseline-people", 0, "--json", tmp_path / "no" / "such.json")
    assert result.exit_code == 2 and "such.json: cannot be written" in result.output


def test_the_first_people_do_not_depend_on_the_number() -> None:
    few, more = make_labels(3, "male"), make_labels(5, "male")
    for kind in ("everyday", "extreme"):
        for name in ("pose", "betas", "transl"):
            assert torch.equal(getattr(few[kind], name), getattr(more[kind].first(3), name))
    spread = {kind: labels.pose[:, 1:].norm(dim=-1).mean() for kind, labels in more.items()}
    assert spread["extreme"] > 1.3 * spread["everyday"]


def test_timing_restores_the_threads(models: ModelSet, monkeypatch: pytest.MonkeyPatch) -> None:
    """The shared backend is not changed, whatever fails."""
    before, threads = dict(vars(make_backend("cpu"))), torch.get_num_threads()

    def fail(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(skelfit.benchmark.fit_speed, "timed_fit", fail)
    with pytest.raises(RuntimeError):
        measure_breakdown(models, load_pipeline(PIPELINE).fit, "cpu", make_labels(1, "male")["everyday"])
    assert dict(vars(make_backend("cpu"))) == before and torch.get_num_threads() == threads


def test_operations_scale_with_the_sizes(models: ModelSet) -> None:
    fit = load_pipeline(PIPELINE).fit
    last = replace(fit.stages[-1], stride=1, coarse_stride=None, refreshes=1, steps=3)

    def count(gender: Gender, **changes: Any) -> dict[str, OperationCount]:
        return count_work(models, replace(fit, stages=(replace(last, **changes),)), gender)

    one, twice = count("male"), count("male", steps=7)  # an evaluation more than steps
    assert twice["solve"].flops == pytest.approx(2 * one["solve"].flops)
    assert twice["moments"] == one["moments"]
    assert count("male", refreshes=4)["moments"].flops == pytest.approx(4 * one["moments"].flops)
    assert count("male", stride=10)["moments"].flops == pytest.approx(one["moments"].flops / 10, rel=0.05)
    # The matrix product that makes the rest skin is most of a pass.
    assert 6 * 6890 * 200 < one["moments"].flops < 4 * 6 * 6890 * 218
    # Betas of a neutral label are free, but not in the last of several passes.
    alone, several = count("neutral"), count("neutral", refreshes=4)
    assert one["shaped_moments"].flops == alone["moments"].flops == 0
    assert several["shaped_moments"].flops == pytest.approx(3 * alone["shaped_moments"].flops)
    assert several["moments"] == one["moments"]
    assert one["moments"].flops < alone["shaped_moments"].flops < 2 * one["moments"].flops


def test_roofline_takes_the_slower_of_both() -> None:
    work = {
        "counting": OperationCount(flops=100.0, bytes=1.0),
        "moving": OperationCount(flops=1.0, bytes=30.0),
    }
    report = roofline(work, OperationCount(flops=10.0, bytes=3.0), people_per_second=0.01)
    assert report["seconds_per_1000_people"] == {"counting": 10_000.0, "moving": 10_000.0}
    assert report["people_per_second"] == pytest.approx(1 / 20) and report["reached"] == pytest.approx(0.2)
