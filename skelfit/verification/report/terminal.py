"""A report, or two reports side by side, as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from skelfit.executors.report_table import ReportTable

Report = Mapping[str, Any]
SHOWN = 10  # faults that are listed
JOINTS_SHOWN = ("smpl24", "keypoints44")  # joint sets; the others are in the JSON
_WIDTH, _NUMBER = 34, 9
_MESSAGE = 300  # characters of a fault
_NAME, _CELL = 27, 8  # widths in a comparison
VERDICTS = {
    "good": "good",
    "below_gate": "BELOW THE GATE",
    "unfinished": "UNFINISHED",
    "damaged": "DAMAGED OR INCOMPLETE",
}
# Of sequences: how fast feet slip that are on the floor, how far soles are below it, and how far its height is spread.
GROUND_TITLES = {"slip_mm_s": "feet slip, mm/s", "penetration_mm": "soles below the floor, mm"}
GROUND_TITLES |= {"spread_mm": "resting soles, spread, mm"}
_SPREAD = ("mean", "p50", "p95", "max")


def summary_lines(report: Report) -> list[str | ReportTable]:
    """The lines of one report."""
    lines: list[str | ReportTable] = list(_integrity("", report))
    for rows in (_accuracy, _reprojection, _anatomy, _ground):
        lines += _tables(list(rows(report)))
    return [*lines, *_keep(report), verdict_line(report)]


def comparison_lines(
    report: Report, other: Report, comparison: Sequence[Mapping[str, Any]]
) -> list[str | ReportTable]:
    """The lines of two reports and their comparison: each number of both, and the difference."""
    lines: list[str | ReportTable] = [*_integrity("", report), *_integrity("against: ", other)]
    lines.append("each number of these shards | of the others | difference ('=': none)")
    for table in comparison:
        lines += _compared(table)
    return [*lines, f"against: {verdict_line(other)}", verdict_line(report)]


def _compared(table: Mapping[str, Any]) -> Iterator[str | ReportTable]:
    """A table, without rows that are zero or not known in both."""
    units = [column["unit"] for column in table["columns"]]
    titles = [column["title"] for column in table["columns"]]
    rows = [row for row in table["rows"] if any(row["this"]) or any(row["against"])]
    if not rows:
        return
    lines = [_compared_line(table["title"], [titles] * 3)]
    cells: list[tuple[str, ...]] = []
    for row in rows:
        groups = [
            [_written(v, u) for v, u in zip(row[side], units, strict=True)] for side in ("this", "against")
        ]
        difference = [_written(v, u, "+") for v, u in zip(row["difference"], units, strict=True)]
        lines.append(_compared_line(f"  {row['name']}", [*groups, difference]))
        cells.append((row["name"], *groups[0], *groups[1], *difference))
    yield ReportTable((table["title"], *titles * 3), tuple(cells), "\n".join(lines))
    if left := len(table["rows"]) - len(rows):
        yield f"  {left} more: nothing in either"


def _written(value: float | None, unit: str, sign: str = "") -> str:
    if value is None:
        return "-"
    if sign and value == 0:
        return "="
    if unit == "count":
        return f"{value:{sign}d}"
    if unit == "share":
        return f"{100 * value:{sign}.{2 if abs(value) < 0.1 else 1}f}%"
    return f"{value:{sign}.{2 if abs(value) < 1000 else 0}f}"


def _integrity(name: str, report: Report) -> Iterator[str]:
    integrity = report["integrity"]
    statuses = ", ".join(f"{status} {count}" for status, count in integrity["statuses"].items())
    yield (
        f"{name}{integrity['subset']}: {integrity['shards']} shards, {integrity['bytes'] / 1e6:.1f} MB, "
        f"{integrity['rows_in']} rows ({statuses}), {integrity['people']} {_rows_of(report)}"
    )
    faults = [fault for fault in integrity["damage"] if fault["kind"] != "unfinished"]
    yield from (f"  {fault['message']}" for fault in integrity["damage"] if fault["kind"] == "unfinished")
    if not faults:
        whole = "finished shards are whole" if integrity["unfinished"] else "whole"
        yield f"  {whole}: every byte as it was written, every row accounted for"
        return
    kinds = ", ".join(f"{kind} {n}" for kind, n in integrity["damaged"].items() if kind != "unfinished")
    yield f"  {len(faults)} faults: {kinds}"
    yield from (f"  {fault['kind']}: {_cut(fault['message'])}" for fault in faults[:SHOWN])
    if len(faults) > SHOWN:
        yield f"  and {len(faults) - SHOWN} more; all of them: --json FILE"


def _rows_of(report: Report) -> str:
    """What a row of the shards is: a frame, where all that were measured are frames of sequences."""
    accuracy, anatomy = report.get("accuracy"), report.get("anatomy")
    only_frames = accuracy and anatomy and 0 < anatomy["jumps"]["frames"] == accuracy["people"]
    return "frames" if only_frames else "people"


Row = tuple[str, Sequence[str]]  # a name and its numbers


def _accuracy(report: Report) -> Iterator[Row]:
    accuracy = report.get("accuracy")
    if not accuracy:
        return
    yield f"errors in mm, {accuracy['people']} {_rows_of(report)}", ("mean", "p50", "p95", "max")
    yield "  PVE", _numbers(accuracy["pve_mm"], _SPREAD)
    yield "  largest of a person", _numbers(accuracy["max_vertex_mm"], _SPREAD)
    for name in JOINTS_SHOWN:
        joints = accuracy["joints"][name]
        for measure, title in (("mpjpe_mm", "MPJPE"), ("pa_mpjpe_mm", "PA-MPJPE")):
            if joints[measure]["mean"] is not None:
                yield f"  {title} {name}", _numbers(joints[measure], _SPREAD)


def _reprojection(report: Report) -> Iterator[Row]:
    reprojection = report.get("reprojection")
    if not reprojection or not reprojection["people"]:
        return
    yield f"2D keypoints, {reprojection['people']} people", ("px mean", "px p50", "PCK@.05", "PCK@.1")
    for side, title in (("smpl", "  SMPL label"), ("skel", "  SKEL fit")):
        part = reprojection[side]
        yield title, (*_numbers(part["px"], ("mean", "p50")), *_shares([part["pck_05"], part["pck_10"]]))


def _anatomy(report: Report) -> Iterator[Row]:
    anatomy = report.get("anatomy")
    if not anatomy:
        return
    violations = anatomy["violations"]
    yield (
        f"{_rows_of(report)} beyond a limit by more than",
        tuple(f"{k} deg" for k in violations["beyond_deg"]),
    )
    yield "  any degree of freedom", _shares(violations["any"])
    dofs = [dof for dof in violations["dofs"] if dof["share"][0]]
    for dof in sorted(dofs, key=lambda dof: dof["share"], reverse=True)[:3]:
        yield f"  {dof['dof']}", _shares(dof["share"])
    for name, both in anatomy["knees_elbows"]["joints"].items():
        for side, title in (("smpl", "SMPL label"), ("skel", "SKEL fit")):
            if both[side][0] is not None:
                yield f"  {name}, {title}", _shares(both[side])
    bones = anatomy["bones"]
    if bones["people"]:
        depth = bones["depth_mm"]
        text = f"{bones['share']['mean']:.2%}", "", f"{depth['mean']:.1f} mm", f"{depth['max']:.1f} mm"
        yield "  bones outside the skin; depth", text
    jumps = anatomy["jumps"]
    if jumps["pairs"]:
        yield f"turns between frames, {jumps['pairs']} pairs", ("mean", "p50", "p95", "max")
        for name, title in (("turn", "SKEL fit"), ("label_turn", "SMPL label"), ("added", "beyond label")):
            yield f"  largest of a joint, {title}", _numbers(jumps[f"{name}_deg"], _SPREAD)
    jitter = anatomy["jitter"]
    if jitter["triples"]:
        yield "  jitter, deg/frame^2, SKEL fit", _numbers(jitter["fit_deg"], _SPREAD)
        yield "  jitter, deg/frame^2, SMPL label", _numbers(jitter["label_deg"], _SPREAD)


def _ground(report: Report) -> Iterator[Row]:
    ground = report.get("ground")
    if not ground:
        return
    several = "s" if ground["sequences"] != 1 else ""
    yield f"ground, {ground['sequences']} sequence{several}", _SPREAD
    if ground["slip_mm_s"]["count"]:
        for name, title in GROUND_TITLES.items():
            yield f"  {title}", _numbers(ground[name], _SPREAD)
    for status, count in ground["statuses"].items():
        yield f"  {status}", (str(count),)


def _keep(report: Report) -> Iterator[str]:
    keep = report.get("keep")
    if keep:
        dropped = [
            f"{name} {gate['limit']:g} {gate['unit']}".rstrip() + f": {gate['dropped']}"
            for name, gate in keep["gates"].items()
        ]
        if keep["damaged"]:
            dropped.append(f"damaged: {keep['damaged']}")
        yield f"gates: {keep['kept']} {_rows_of(report)} kept, {keep['dropped']} dropped ({'; '.join(dropped)})"


def verdict_line(report: Report) -> str:
    """The verdict in one line."""
    gate = report["gate"]
    text = f"verdict: {VERDICTS[report['verdict']]}"
    if gate["max_pve_mm"] is not None:
        pve = "not measured" if gate["pve_mm"] is None else f"{gate['pve_mm']:.2f} mm"
        text += f" (mean PVE {pve}, --max-pve {gate['max_pve_mm']:g})"
    return text


def _tables(rows: Sequence[Row]) -> Iterator[ReportTable]:
    """A table for each row whose name is not indented: that row holds its heads."""
    starts = [i for i, (name, _) in enumerate(rows) if not name.startswith(" ")]
    for start, stop in pairwise([*starts, len(rows)]):
        cells = [(name, *group) for name, group in rows[start:stop]]
        lines = [
            f"{name:<{_WIDTH}}" + "".join(f"{text:>{_NUMBER}}" for text in group) for name, *group in cells
        ]
        yield ReportTable(cells[0], tuple(cells[1:]), "\n".join(lines))


def _compared_line(name: str, groups: Sequence[Sequence[str]]) -> str:
    texts = ["".join(f"{text:>{_CELL}}" for text in group) for group in groups]
    return f"{name:<{_NAME}}" + " |".join(texts)


def _cut(text: str) -> str:
    """A message, shortened: it may quote damaged files."""
    return text if len(text) <= _MESSAGE else text[: _MESSAGE - 4] + " ..."


def _numbers(spread: Mapping[str, float | None], names: Sequence[str]) -> tuple[str, ...]:
    values = [spread.get(name) for name in names]
    return tuple("-" if value is None else f"{value:.2f}" for value in values)


def _shares(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple("-" if value is None else f"{value:.2%}" for value in values)
