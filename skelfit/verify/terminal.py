"""A report in lines that fit a screen; with another report, the same lines side by side."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Report = Mapping[str, Any]
SHOWN = 10  # faults, and degrees of freedom, that are named
JOINTS_SHOWN = ("smpl24", "keypoints44")  # joint sets; the others are in the JSON
_WIDTH, _NUMBER = 34, 9
VERDICTS = {"good": "good", "below_gate": "BELOW THE GATE", "damaged": "DAMAGED OR INCOMPLETE"}
_SPREAD = ("mean", "p50", "p95", "max")


def summary_lines(report: Report, against: Report | None = None) -> list[str]:
    """The lines for one report, or for two beside each other: the second is what the first is compared with."""
    reports = [report] if against is None else [report, against]
    lines = [
        line for name, r in zip(("", "against: "), reports, strict=False) for line in _integrity(name, r)
    ]
    for rows in (_accuracy, _reprojection, _anatomy):
        lines += _side_by_side([list(rows(r)) for r in reports])
    for name, r in zip(("", "against: "), reports, strict=False):
        lines += [f"{name}{line}" for line in _keep(r)]
    return [*lines, *_verdict(report)]


def _integrity(name: str, report: Report) -> Iterator[str]:
    found = report["integrity"]
    statuses = ", ".join(f"{status} {count}" for status, count in found["statuses"].items())
    yield (
        f"{name}{found['subset']}: {found['shards']} shards, {found['bytes'] / 1e6:.1f} MB, "
        f"{found['rows_in']} rows ({statuses}), {found['people']} people"
    )
    if found["whole"]:
        yield "  whole: every byte as it was written, every row accounted for"
        return
    yield f"  {len(found['damage'])} faults: " + ", ".join(
        f"{kind} {n}" for kind, n in found["damaged"].items()
    )
    for fault in found["damage"][:SHOWN]:
        yield f"  {fault['kind']}: {fault['message']}"
    if len(found["damage"]) > SHOWN:
        yield f"  and {len(found['damage']) - SHOWN} more; all of them: --json FILE"


Row = tuple[str, Sequence[str]]  # a name and its numbers


def _accuracy(report: Report) -> Iterator[Row]:
    found = report.get("accuracy")
    if not found:
        return
    yield f"errors in mm, {found['people']} people", ("mean", "p50", "p95", "max")
    yield "  PVE", _numbers(found["pve_mm"], _SPREAD)
    yield "  largest of a person", _numbers(found["max_vertex_mm"], _SPREAD)
    for name in JOINTS_SHOWN:
        joints = found["joints"][name]
        for measure, title in (("mpjpe_mm", "MPJPE"), ("pa_mpjpe_mm", "PA-MPJPE")):
            if joints[measure]["mean"] is not None:
                yield f"  {title} {name}", _numbers(joints[measure], _SPREAD)


def _reprojection(report: Report) -> Iterator[Row]:
    found = report.get("reprojection")
    if not found or not found["people"]:
        return
    yield f"2D keypoints, {found['people']} people", ("px mean", "px p50", "PCK@.05", "PCK@.1")
    for side, title in (("smpl", "  SMPL label"), ("skel", "  SKEL fit")):
        part = found[side]
        yield title, (*_numbers(part["px"], ("mean", "p50")), *_shares([part["pck_05"], part["pck_10"]]))


def _anatomy(report: Report) -> Iterator[Row]:
    found = report.get("anatomy")
    if not found:
        return
    violations = found["violations"]
    yield "people beyond a limit by more than", tuple(f"{k} deg" for k in violations["beyond_deg"])
    yield "  any degree of freedom", _shares(violations["any"])
    dofs = [dof for dof in violations["dofs"] if dof["share"][0]]
    for dof in sorted(dofs, key=lambda dof: dof["share"], reverse=True)[:3]:
        yield f"  {dof['dof']}", _shares(dof["share"])
    for name, both in found["knees_elbows"]["joints"].items():
        for side, title in (("smpl", "SMPL label"), ("skel", "SKEL fit")):
            if both[side][0] is not None:
                yield f"  {name}, {title}", _shares(both[side])
    bones = found["bones"]
    if bones["people"]:
        depth = bones["depth_mm"]
        text = f"{bones['share']['mean']:.2%}", "", f"{depth['mean']:.1f} mm", f"{depth['max']:.1f} mm"
        yield "  bones outside the skin; depth", text
    jumps = found["jumps"]
    if jumps["pairs"]:
        yield f"  jumps > 20 deg, {jumps['pairs']} pairs", _shares([jumps["angle_above"].get("20")])


def _keep(report: Report) -> Iterator[str]:
    keep = report.get("keep")
    if keep:
        gates = "; ".join(
            f"{name} {gate['limit']:g} {gate['unit']}".rstrip() + f": {gate['dropped']}"
            for name, gate in keep["gates"].items()
        )
        yield f"gates: {keep['kept']} people kept, {keep['dropped']} dropped ({gates})"


def _verdict(report: Report) -> Iterator[str]:
    gate = report["gate"]
    text = f"verdict: {VERDICTS[report['verdict']]}"
    if gate["max_pve_mm"] is not None:
        found = "not measured" if gate["pve_mm"] is None else f"{gate['pve_mm']:.2f} mm"
        text += f" (mean PVE {found}, --max-pve {gate['max_pve_mm']:g})"
    yield text


def _side_by_side(tables: Sequence[Sequence[Row]]) -> list[str]:
    """Tables with the same headings, beside each other; a row that one lacks has '-' there."""
    heads = [table[0] for table in tables if table]
    if not heads:
        return []
    rows = [dict(table[1:]) for table in tables]
    missing = ("-",) * len(heads[0][1])
    titles = list(dict.fromkeys(name for name, _ in heads))
    lines = [*titles[:-1], _line(titles[-1], [heads[0][1] for _ in tables])]
    for name in dict.fromkeys(name for table in tables for name, _ in table[1:]):
        lines.append(_line(name, [row.get(name, missing) for row in rows]))
    return lines


def _line(name: str, groups: Sequence[Sequence[str]]) -> str:
    texts = ["".join(f"{text:>{_NUMBER}}" for text in group) for group in groups]
    return f"{name:<{_WIDTH}}" + "  |".join(texts)


def _numbers(found: Mapping[str, float | None], names: Sequence[str]) -> tuple[str, ...]:
    values = [found.get(name) for name in names]
    return tuple("-" if value is None else f"{value:.2f}" for value in values)


def _shares(values: Sequence[float | None]) -> tuple[str, ...]:
    return tuple("-" if value is None else f"{value:.2%}" for value in values)
