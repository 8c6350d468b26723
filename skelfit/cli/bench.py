"""`skelfit bench`: speed and accuracy of the fit on this machine, as a table and JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from skelfit.benchmark.device.device_report import ReportConfig, ReportSubject, failures, make_report
from skelfit.benchmark.fit_speed import BenchConfig, run_bench
from skelfit.benchmark.text_table import table
from skelfit.bodies.model_set import find_models
from skelfit.cli.console import Console, pass_console
from skelfit.cli.path_types import FILE
from skelfit.cli.shared_options import (
    COUNT,
    FiniteRange,
    device_option,
    json_option,
    models_option,
    pipeline_option,
)
from skelfit.config.pipeline import load_pipeline
from skelfit.config.pipeline_choice import chosen_pipeline
from skelfit.errors import OutputError
from skelfit.executors.allocator import keep_freed_memory
from skelfit.executors.report_table import ReportTable
from skelfit.fitting.backends.compute_device import find_device
from skelfit.resources.catalog import PIPELINES
from skelfit.storage.locations import Location

# Of each kind of poses.
PEOPLE = {"cpu": 2048, "cuda": 32768}
BASELINE_PEOPLE = {"cpu": 16, "cuda": 1024}
BASELINE = "first-order"
BATCHES = {"cpu": (128, 256, 512), "cuda": (64, 256, 1024, 4096, 16384)}


@click.command("bench")
@json_option()
@click.option(
    "--report",
    "report_file",
    type=FILE,
    help="All there is to know of a device instead, compared with this CPU: Markdown here, and JSON beside it.",
)
@click.option("--seconds", type=FiniteRange(min=0), help="With --report: on end  [default: 60].")
@click.option("--converted", type=COUNT, help="With --report: people of the conversions  [default: 2000].")
@click.option(
    "--people", type=COUNT, help="Everyday poses, and as many extreme ones  [default: 2048, on a GPU 32768]."
)
@click.option(
    "--baseline-people",
    type=click.IntRange(min=0),
    help="How many of each the baseline fits, one at a time and in batches; 0: none  [default: 16, on a GPU 1024].",
)
@click.option("--batch", type=COUNT, multiple=True, help="People per solver call; may be repeated.")
@click.option(
    "--gender", type=click.Choice(["neutral", "male", "female"]), default="neutral", show_default=True
)
@device_option
@models_option
@pipeline_option
@click.option("--threads", type=COUNT, help="CPU threads  [default: all cores].")
@pass_console
def bench_command(
    console: Console,
    json_file: Path | None,
    report_file: Path | None,
    seconds: float | None,
    converted: int | None,
    people: int | None,
    baseline_people: int | None,
    batch: tuple[int, ...],
    gender: Any,
    device: str,
    models: Location | None,
    pipeline: Path,
    threads: int | None,
) -> None:
    """Measure the fit on this machine, beside the first-order baseline.

    Speed, accuracy and memory on made-up people; where the time goes; what the device could do.
    """
    keep_freed_memory()  # as workers do
    if threads is not None:
        torch.set_num_threads(threads)
    settings, kind = chosen_pipeline(pipeline), find_device(device)
    if settings.first_order is not None:
        raise click.BadParameter(
            "the baseline itself; give the pipeline to compare it with", param_hint="--pipeline"
        )
    for file in (json_file, report_file):
        if isinstance(file, Path) and not file.parent.is_dir():  # said before minutes are spent, not after
            raise OutputError(f"{file}: cannot be written: no such folder")
    if report_file is not None:
        if json_file or baseline_people is not None or gender != "neutral":
            raise click.UsageError("--report takes neither --json nor --baseline-people nor --gender")
        given = {"people": people, "batches": batch, "seconds": seconds, "converted": converted}
        subject = ReportSubject(find_models(models), models, settings, pipeline)
        _device_report(
            console, subject, kind, {name: value for name, value in given.items() if value}, report_file
        )
        return
    if seconds is not None or converted is not None:
        raise click.UsageError("--seconds and --converted belong to --report")
    people = people or PEOPLE[kind]
    few = min(BASELINE_PEOPLE[kind] if baseline_people is None else baseline_people, people)
    # A batch that is never full measures a smaller one.
    batches = batch or tuple(b for b in BATCHES[kind] if b <= people) or (people,)
    config = BenchConfig(kind, people, batches, few, gender)
    baseline = load_pipeline(PIPELINES.find(BASELINE))
    report = run_bench(
        find_models(models), settings, baseline, config, lambda text: console.note(f"... {text}")
    )
    for line in report_lines(report):
        console.say(line)
    best = max(report["fit"], key=lambda r: r["people_per_second"])
    console.in_short(
        f"{best['people_per_second']:.1f} people/s ({best['poses']} poses, batch {best['batch']})"
    )
    if json_file is not None:
        try:
            json_file.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{json_file}: cannot be written: {error}") from None
        console.say(f"all of it, for programs: {json_file}")


def _device_report(
    console: Console, subject: ReportSubject, device: str, given: dict[str, Any], file: Path
) -> None:
    """Exits with 1 when something is not as it has to be."""
    config = ReportConfig(device, **given)
    try:
        report = make_report(subject, config, file, lambda text: console.note(f"... {text}"))
    except OSError as error:
        raise OutputError(f"{file}: cannot be written: {error}") from None
    console.say(file.read_text(encoding="utf-8"))
    console.result(f"in {file}, and for programs in {file.with_suffix('.json')}")
    if failures(report):
        sys.exit(1)


def report_lines(report: dict[str, Any]) -> list[str | ReportTable]:
    """The report as lines and tables."""
    device = report["device"]
    lines: list[str | ReportTable] = [
        f"skelfit {report['skelfit']} on {device['kind']} ({device['name']}, {device['threads']} threads, "
        f"torch {device['torch']})",
        f"models: {report['models']['source']}; pipeline {report['pipeline']}; {report['gender']} labels; PVE in mm",
        "",
    ]
    heads = ("poses", "batch", "people", "people/s", "PVE mean", "p95", "max", "converged", "peak MiB")
    rows = [
        (r["poses"], r["batch"], r["people"], f"{r['people_per_second']:.1f}", *_mm(r["pve_mm"]))
        + (f"{100 * r['converged']:.2f} %", f"{r['peak_memory_mib']:.0f}")
        for r in sorted(report["fit"], key=lambda r: (r["poses"], r["batch"]))
    ]
    lines.append(_table(heads, rows))
    if report["baseline"]:
        lines += ["", "beside the first-order baseline, on the same people"]
        lines.append(_baseline_table(report["baseline"]))
    batch = report["breakdown"]["batch"]
    lines += ["", f"seconds per 1000 people, in batches of {batch} (on a CPU: one thread)"]
    lines += [
        _breakdown_table(report["breakdown"], report["roofline"]),
        "",
        _roofline_text(report["roofline"]),
    ]
    return lines


def _table(heads: Sequence[str], rows: Sequence[Sequence[object]]) -> ReportTable:
    cells = tuple(tuple(map(str, row)) for row in rows)
    return ReportTable(tuple(heads), cells, "\n".join(table(heads, rows)))


def _baseline_table(baseline: list[dict[str, Any]]) -> ReportTable:
    heads = ("poses", "fitted by", "batch", "people/s", "PVE mean", "p95", "max", "converged")
    rows: list[tuple[object, ...]] = []
    for r in baseline:
        ours = r["fit"]
        share = f"{100 * r['converged']:.2f} %"
        rows.append((r["poses"], "us", "", f"{ours['people_per_second']:.1f}", *_mm(ours["pve_mm"]), ""))
        rows.append(
            (r["poses"], r["method"], r["batch"], f"{r['people_per_second']:.3f}", *_mm(r["pve_mm"]), share)
        )
        ratio = [f"{ours['ratio'][name]:.3f}" for name in ("pve_mean", "pve_p95")]
        rows.append((r["poses"], "ratio", "", f"{ours['ratio']['people_per_second']:.0f}", *ratio, "", ""))
    return _table(heads, rows)


def _breakdown_table(breakdown: dict[str, Any], roof: dict[str, Any]) -> ReportTable:
    seconds = breakdown["seconds_per_1000_people"]
    bound = {**roof["seconds_per_1000_people"], "all": 1000 / roof["people_per_second"]}
    rows = [
        (part, *(f"{column[part]:.3f}" for column in seconds.values()))
        + (f"{bound[part]:.3f}" if part in bound else "",)
        for part in next(iter(seconds.values()))
    ]
    return _table(("part", *seconds, "roofline of all threads"), rows)


def _roofline_text(roof: dict[str, Any]) -> str:
    return (
        f"roofline: {roof['mflop_per_person']:.1f} MFLOP and {roof['mbyte_per_person']:.2f} MB per person; measured "
        f"here {roof['gflop_per_second']:.0f} GFLOP/s (matrix product) and {roof['gbyte_per_second']:.1f} GB/s (copy): "
        f"at most {roof['people_per_second']:.0f} people/s, of which {100 * roof['reached']:.1f} % are reached"
    )


def _mm(pve: dict[str, float]) -> tuple[str, ...]:
    return tuple(f"{pve[name]:.2f}" for name in ("mean", "p95", "max"))
