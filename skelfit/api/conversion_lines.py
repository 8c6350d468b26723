"""What is said of a conversion at its end."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from skelfit.conversion.planned_shard import PlannedShard, RunPlan, rows_of
from skelfit.conversion.rank import Rank
from skelfit.executors.report_table import ReportTable, table_of_counts
from skelfit.shards.row_status import ESTIMATED, remark_on_targets
from skelfit.storage.locations import Location, location_of


def summary_lines_of(summary: Mapping[str, Any]) -> Iterator[str | ReportTable]:
    """What became of the rows of a run."""
    yield f"{summary['rows_in']} rows in, {summary['rows_out']} people out"
    yield from _table("status", summary["statuses"])
    if summary["rejected"]:
        yield "rejected, by reason"
        yield from _table("reason", summary["rejected"])
    for rule, count in summary["filters"].items():
        keypoints = f", {count['keypoints']} keypoints" if "keypoints" in count else ""
        yield f"filter {rule} ({count['value']:g}): {count['rows']} rows{keypoints}"
    if absent := absent_images(summary):
        yield "people without an image"
        yield from _table("image", absent)
    if summary["pve_mm"]["mean"] is not None:
        stages = {name: mean for name, mean in summary["stage_pve_mm"].items() if mean is not None}
        yield f"PVE in mm: {_listed(summary['pve_mm'])}{_listed(stages, '; after each stage: ')}"
        if remark := remark_on_targets(summary["identity"]):
            yield f"  {remark}"
        steps = {s: d["mean"] for s, d in summary["betas_mm"].items() if d["mean"] is not None}
        bodies = ", ".join(f"{count} {gender}" for gender, count in summary["skel_genders"].items())
        yield f"SKEL bodies: {bodies}{_listed(steps, '; distance at rest in mm, betas ')}"
    if refinement := summary.get("refinement"):
        yield from _lines_of_refinement(refinement)
    if summary["people_per_second"] is not None:
        yield f"{summary['people_per_second']:.1f} people/s"
    if summary["time"] is not None:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in summary["time"]["shares"].items())
        yield f"time of the shards: {shares}"
        yield _bound_by(summary["time"])


def _lines_of_refinement(refinement: Mapping[str, Any]) -> Iterator[str | ReportTable]:
    """What became of the rows of refined shards, and of their distances in the image."""
    yield from _table("refinement", refinement["statuses"])
    if "px" not in refinement:
        return
    lines = {"px": "keypoints in px", "limit_deg": "beyond a limit, in degrees"}
    if estimated := refinement["cameras"].get(ESTIMATED):
        yield f"cameras estimated: of {estimated} people"
        lines |= {"focal_px": "focal length in px", "depth_m": "depth in m"}
    for name, text in lines.items():
        before, after = (refinement[name][when] for when in ("before", "after"))
        if after["mean"] is not None:
            was = "unknown" if before["mean"] is None else _listed(before)
            yield f"{text}: before {was}; after {_listed(after)}"


def _bound_by(time: Mapping[str, Any]) -> str:
    """What bound the run, and how busy each part of its workers was."""
    names = {"fit": "the fit", "reading": "reading labels", "images": "reading images", "writing": "writing"}
    bound, busy = time["bound"], {name: f"{share:.0%}" for name, share in time["busy"].items()}
    others = ", ".join(f"{names[name]} {share}" for name, share in busy.items() if name != bound)
    return f"bound by {names[bound]}: it was busy {busy[bound]} of the time; {others}"


def summary_in_short(summary: Mapping[str, Any]) -> str:
    """What became of the rows of a run, in one line, with what was lost."""
    rejected, absent = sum(summary["rejected"].values()), sum(absent_images(summary).values())
    parts = [f"{summary['rows_in']} rows in, {summary['rows_out']} people out"]
    parts += [f"{rejected} rejected"] if rejected else []
    parts += [f"{absent} without an image"] if absent else []
    return ", ".join(parts)


def absent_images(summary: Mapping[str, Any]) -> dict[str, int]:
    """How many people have no image, by kind of reason; of a run without images, none."""
    return {kind: n for kind, n in summary["images"].items() if n and kind != "found"}


def counted_shards(count: int) -> str:
    """1 shard, 2 shards."""
    return "1 shard" if count == 1 else f"{count} shards"


def finished_already(count: int, rows: str = "") -> str:
    """How many shards are left from an earlier run; rows: how many rows they hold, in words."""
    return f"{counted_shards(count)}{rows} {'is' if count == 1 else 'are'} finished already"


def lines_of_plan(plan: RunPlan, rank: Rank | None, own: Sequence[PlannedShard]) -> Iterator[str]:
    """What is to be said of a run before its shards are made; own: those of the rank."""
    run, tasks = plan.run, plan.tasks
    device = run.device if run.device != "auto" else "the workers' devices"
    yield (
        f"{run.subset}: {rows_of(tasks)} rows in {counted_shards(len(tasks))}, {run.made} on {device}, "
        f"to {_shown(location_of(run.out))}"
    )
    if plan.new_rows:
        yield f"extended: the last {plan.new_rows} rows have shards of their own, behind the others"
    if rank is not None:
        share = f"{rows_of(own)} rows in {counted_shards(len(own))}"
        yield f"{rank}: {share}, every {_nth(rank.world)} from number {rank.number} on"


def _shown(out: Location) -> str:
    return os.path.relpath(out) if isinstance(out, Path) else str(out)


def rank_is_done(rank: Rank, own: int, left: int) -> str:
    """What is said of a rank that is done before others are."""
    return (
        f"{rank} is done ({counted_shards(own)}); {counted_shards(left)} of other ranks "
        f"{'is' if left == 1 else 'are'} not finished. The rank that finishes the last one writes the summary"
    )


def _nth(number: int) -> str:
    endings = {1: "st", 2: "nd", 3: "rd"}
    return f"{number}{'th' if number // 10 % 10 == 1 else endings.get(number % 10, 'th')}"


def table_of_subsets(ends: Iterable[tuple[str, Mapping[str, Any] | None, str]]) -> ReportTable:
    """A table of subsets: name, summary (None where there is none), and where it is or what happened."""
    heads = ("subset", "rows in", "people out", "PVE in mm", "result")
    rows: list[tuple[str, ...]] = []
    for name, summary, end in ends:
        numbers = ["-"] * 3
        if summary is not None:
            mean = summary["pve_mm"]["mean"]
            numbers = [
                str(summary["rows_in"]),
                str(summary["rows_out"]),
                "-" if mean is None else f"{mean:.2f}",
            ]
        rows.append((name, *numbers, end))
    lines = [
        f"{name:<16} " + " ".join(f"{number:>10}" for number in numbers) + f"   {end}"
        for name, *numbers, end in (heads, *rows)
    ]
    return ReportTable(heads, tuple(rows), "\n" + "\n".join(lines))


def _listed(lengths: Mapping[str, float], head: str = "") -> str:
    """Lengths with their names, behind a head; nothing where there are none."""
    return head + ", ".join(f"{name} {value:.2f}" for name, value in lengths.items()) if lengths else ""


def _table(name: str, counts: Mapping[str, int]) -> Iterator[ReportTable]:
    if counts:
        yield table_of_counts((name, "rows"), list(counts.items()))
