"""The report of a comparison, as plain data and as lines for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from skelfit.bodies.dofs import DOF_NAMES, SKEL_JOINT_NAMES
from skelfit.bodies.model_set import ModelSet
from skelfit.executors.report_table import ReportTable, Row
from skelfit.shards.finished_run import FinishedRun
from skelfit.verification.comparison.compare_run import Comparison
from skelfit.verification.comparison.matching import MATCHED, UNMATCHED, WHY, described
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.comparison.tally import JOINT_MEASURES, SIDES, SKIN_MEASURES, Tally
from skelfit.verification.measures.anatomy import BEYOND_DEG
from skelfit.verification.report.histogram import Histogram

VERSION = "skelfit-compare-1"
_SPREAD = ("mean", "p50", "p95", "max")
_SHOWN = 10  # DoFs, the most different first; all of them are in the JSON
_WIDTH, _NUMBER = 36, 10
Report = dict[str, Any]


def make_report(run: FinishedRun, labels: SkelLabels, models: ModelSet, comparison: Comparison) -> Report:
    """The report as plain data; None where not known."""
    tally, matching = comparison.tally, comparison.matching
    matched = matching.row[matching.row >= 0]
    report: Report = {
        "version": VERSION,
        "shards": {
            "folder": str(run.folder),
            "subset": run.subset,
            "pipeline": run.identity["pipeline"].get("name"),
            "people": len(matching.row),
            "example": matching.example,
            "coordinates": list(comparison.coordinates),
            "matched": matching.counts(MATCHED),
            "unmatched": matching.counts(UNMATCHED),
            "bad": comparison.bad_people,
        },
        "file": {
            "path": str(labels.path),
            "rows": len(labels),
            "example": described(labels.imgname[0], labels.sources[0]),
            "coordinates": None if labels.coordinates is None else sorted(set(labels.coordinates)),
            "unmatched_rows": len(labels) - len(matched),
            "bad": comparison.bad_rows,
            "skel_genders": {"male": int((~labels.female).sum()), "female": int(labels.female.sum())},
            "says_gender": labels.says_gender,
            "says_places": labels.trans is not None,
        },
        "models": {"source": models.source, "sha256": models.sha256},
        "compared": tally.people,
        "other_coordinates": comparison.other_coordinates,
    }
    return report | (_measured(tally) if tally.people else {})


def _measured(tally: Tally) -> Report:
    def spread(*measure: str) -> dict[str, Any]:
        return _spread(tally.spreads[measure])

    betas = sorted(int(name[1]) for name in tally.spreads if name[0] == "beta")
    return {
        "angles_deg": {
            dof: {**spread("dof", dof), "bias": tally.spreads["bias", dof].mean()} for dof in DOF_NAMES
        },
        "turns_deg": {name: spread("turn", name) for name in (*SKEL_JOINT_NAMES, "largest of the body")},
        "joints_mm": {name: spread("joints", name) for name in JOINT_MEASURES},
        "skin_mm": {name: spread("skin", name) for name in SKIN_MEASURES},
        "to_label_mm": {side: spread("to_label", side) for side in SIDES},
        "beyond_limits": {
            "deg": list(BEYOND_DEG),
            "any": _shares(tally, len(DOF_NAMES)),
            "dofs": {dof: _shares(tally, k) for k, dof in enumerate(DOF_NAMES)},
        },
        "betas": {"people": tally.same_gender, "difference": [spread("beta", str(k)) for k in betas]},
        "worst": [case.content for case in tally.worst],
    }


def _spread(values: Histogram) -> dict[str, float | int | None]:
    p50, p95, p99, top = values.quantiles(0.5, 0.95, 0.99, 1.0)
    return {"people": values.count, "mean": values.mean(), "p50": p50, "p95": p95, "p99": p99, "max": top}


def _shares(tally: Tally, dof: int) -> dict[str, list[float]]:
    """By side, the shares of people beyond a limit by more than each of BEYOND_DEG."""
    counts = tally.beyond[:, dof].astype(np.float64) / tally.people
    return {side: counts[k].tolist() for k, side in enumerate(SIDES)}


def report_lines(report: Report) -> Iterator[str | ReportTable]:
    """The report as lines and tables for the terminal."""
    shards, file = report["shards"], report["file"]
    yield f"{shards['folder']}: {shards['people']} people, pipeline {shards['pipeline']}"
    no_translations = "" if file["says_places"] else "; it does not say where people are (no skel_trans)"
    given = "as it says" if file["says_gender"] else "which it does not say"
    bodies = ", ".join(f"{n} {gender}" for gender, n in file["skel_genders"].items() if n)
    yield f"{file['path']}: {file['rows']} rows; SKEL bodies: {bodies}, {given}{no_translations}"
    yield f"matched: {sum(shards['matched'].values())} people"
    yield from (f"  {n:>8}  {WHY[name]}" for name, n in shards["matched"].items() if n)
    yield f"not matched: {sum(shards['unmatched'].values())} people, {file['unmatched_rows']} rows of the file"
    yield from (f"  {n:>8}  {WHY[name]}" for name, n in shards["unmatched"].items() if n)
    for kind, n in (("people", shards["bad"]), ("rows of the file", file["bad"])):
        if n:
            yield f"not compared: {n} {kind} with numbers that are not finite"
    yield f"compared: {report['compared']} people; differences are the file's less the shards'"
    yield from _coordinates(report)
    if report["compared"]:
        yield from _tables(report)


def _coordinates(report: Report) -> Iterator[str]:
    """Lines about the coordinates of the two sides, where they differ or are not known."""
    in_shards, in_file = report["shards"]["coordinates"], report["file"]["coordinates"]
    worlds = [name for name in in_shards if name.startswith("world_")]
    if n := report["other_coordinates"]:
        names = f"{' and '.join(in_shards)} in the shards, {' and '.join(in_file)} in the file"
        yield f"warning: {n} people stand in other coordinates ({names})"
        yield "  so their roots, and skins and joints in mm, differ by the turn between these, too;"
        yield "  convert both with the same --up"
    elif in_file is None and worlds:
        yield f"note: the shards stand in {' and '.join(worlds)}; the file does not say its coordinates"


def _tables(report: Report) -> Iterator[str | ReportTable]:
    yield from _table("skin, mm", _with_spaces(report["skin_mm"]))
    if report["to_label_mm"]["shards"]["people"]:
        yield from _table("skin to the label's mesh, mm", report["to_label_mm"])
    yield from _table("joints, mm", _with_spaces(report["joints_mm"]))
    yield from _table("joints as rotations, deg", report["turns_deg"])
    angles = dict(sorted(report["angles_deg"].items(), key=_by_mean)[:_SHOWN])
    yield from _table(f"angles, deg: the {_SHOWN} most different", angles, (*_SPREAD, "bias"))
    beyond = report["beyond_limits"]
    heads = ("people beyond a limit by more than", *(f"{deg} deg" for deg in beyond["deg"]))
    yield _drawn(heads, [(f"  {side}", *(f"{share:.2%}" for share in beyond["any"][side])) for side in SIDES])
    betas = report["betas"]
    if betas["people"]:
        differences = {str(k): spread for k, spread in enumerate(betas["difference"])}
        yield from _table(f"betas of {betas['people']} people", differences)
    else:
        yield "betas: not compared, the two sides have other SKEL bodies"


def _with_spaces(spreads: Mapping[str, Any]) -> dict[str, Any]:
    return {name.replace("_", " "): spread for name, spread in spreads.items()}


def _by_mean(angle: tuple[str, Mapping[str, Any]]) -> float:
    return -float(angle[1]["mean"] or 0)


def _table(
    title: str, spreads: Mapping[str, Mapping[str, Any]], columns: Sequence[str] = _SPREAD
) -> Iterator[str | ReportTable]:
    """A row for each, but for those without any difference: one line for all of them."""
    known = {name: spread for name, spread in spreads.items() if spread["people"]}
    different = {name: spread for name, spread in known.items() if spread["max"] > 0}
    rows = [(f"  {name}", *_numbers(spread, columns)) for name, spread in different.items()]
    yield _drawn((title, *columns), rows)
    if same := len(known) - len(different):
        yield f"  {'all' if same == len(known) else f'the other {same}'}: no difference"


def _numbers(spread: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    return ["-" if spread[name] is None else f"{spread[name]:.2f}" for name in names]


def _drawn(heads: Row, rows: Sequence[Row]) -> ReportTable:
    lines = [
        f"{name:<{_WIDTH}}" + "".join(f"{number:>{_NUMBER}}" for number in numbers)
        for name, *numbers in (heads, *rows)
    ]
    return ReportTable(heads, tuple(rows), "\n".join(lines))
