"""Two reports side by side: the tables of both, with differences."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

Json = dict[str, Any]
Report = Mapping[str, Any]
Cell = float | int | None
# Title and unit: `count`, `share` of 1, or a unit whose numbers are written with two decimals.
Column = tuple[str, str]
Table = tuple[str, Sequence[Column], Mapping[str, Sequence[Cell]]]

_MM: Sequence[Column] = (("mean", "mm"), ("p50", "mm"), ("p95", "mm"), ("max", "mm"))
_GROUP: Sequence[tuple[Column, str, str]] = (
    (("people", "count"), "pve_mm", "count"),
    (("PVE", "mm"), "pve_mm", "mean"),
    (("PVE p95", "mm"), "pve_mm", "p95"),
    (("PA", "mm"), "pa_mpjpe_mm", "mean"),
)
_GROUP_MORE: Sequence[tuple[Column, str, str]] = (
    (("largest", "mm"), "max_vertex_mm", "mean"),
    (("label", "px"), "smpl_px", "mean"),
    (("fit", "px"), "skel_px", "mean"),
    (("beyond", "deg"), "violation_deg", "mean"),
)


def compare_reports(one: Report, other: Report) -> list[Json]:
    """Tables of two reports: title, columns (title, unit), rows (name, this, against, difference).

    A table has the rows of either report; numbers are None where not known. `difference` is this minus the other.
    """
    tables: dict[str, tuple[Sequence[Column], list[Mapping[str, Sequence[Cell]]]]] = {}
    for k, report in enumerate((one, other)):
        for title, columns, rows in _tables(report):
            tables.setdefault(title, (columns, [{}, {}]))[1][k] = rows
    return [_side_by_side(title, columns, *rows) for title, (columns, rows) in tables.items()]


def _side_by_side(
    title: str,
    columns: Sequence[Column],
    one: Mapping[str, Sequence[Cell]],
    other: Mapping[str, Sequence[Cell]],
) -> Json:
    missing: Sequence[Cell] = [None] * len(columns)
    rows = []
    for name in dict.fromkeys([*one, *other]):
        these, those = one.get(name, missing), other.get(name, missing)
        difference = [
            None if a is None or b is None else round(a - b, 8) for a, b in zip(these, those, strict=True)
        ]
        rows.append({"name": name, "this": list(these), "against": list(those), "difference": difference})
    return {"title": title, "columns": [{"title": t, "unit": unit} for t, unit in columns], "rows": rows}


def _tables(report: Report) -> Iterator[Table]:
    yield _counts(report)
    if "accuracy" not in report:
        return
    accuracy, anatomy = report["accuracy"], report["anatomy"]
    errors = {"PVE": "pve_mm", "largest of a person": "max_vertex_mm", "single vertices": "vertex_mm"}
    yield "errors, mm", _MM, {name: _spread(accuracy[key]) for name, key in errors.items()}
    yield _joints(accuracy["joints"])
    yield "parts, mm", _MM, {name: _spread(part) for name, part in report["parts"]["mm"].items()}
    bins = {f"{b['from_deg']} to {b['to_deg']} deg": b for b in report["extremity"]["bins"]}
    for by, groups in (("subset", report["subsets"]), ("bend of the label", bins)):
        for more, measures in (("", _GROUP), (", more", _GROUP_MORE)):
            rows = {
                name: [group[key][statistic] for _, key, statistic in measures]
                for name, group in groups.items()
            }
            yield f"by {by}{more}", [column for column, _, _ in measures], rows
    yield from _reprojection(report["reprojection"])
    yield from _violations(anatomy)
    yield from _bones(anatomy["bones"])
    yield from _sides(anatomy["asymmetry"])
    yield from _motion(anatomy)
    if "ground" in report:
        yield from _ground(report["ground"])


def _spread(spread: Mapping[str, Cell]) -> Sequence[Cell]:
    return [spread[name] for name in ("mean", "p50", "p95", "max")]


def _counts(report: Report) -> Table:
    integrity, keep = report["integrity"], report.get("keep") or {}
    rows: dict[str, Sequence[Cell]] = {
        "shards": [integrity["shards"]],
        "input rows": [integrity["rows_in"]],
        **{f"rows: {status}": [count] for status, count in integrity["statuses"].items()},
        "people": [integrity["people"]],
        "people measured": [report["people"]["measured"]],
        "faults": [integrity["faults"]],
    }
    if keep:
        rows |= {"kept by the gates": [keep["kept"]], "dropped by the gates": [keep["dropped"]]}
        rows |= {f"dropped: {name}": [gate["dropped"]] for name, gate in keep["gates"].items()}
        rows |= {"dropped: damaged": [keep["damaged"]]}
    return "counts", [("count", "count")], rows


def _joints(joints: Mapping[str, Any]) -> Table:
    columns = [("MPJPE", "mm"), ("root", "mm"), ("PA", "mm"), ("PA p95", "mm")]
    shown = [("mpjpe_mm", "mean"), ("root_mpjpe_mm", "mean"), ("pa_mpjpe_mm", "mean"), ("pa_mpjpe_mm", "p95")]
    rows = {name: [errors[error][statistic] for error, statistic in shown] for name, errors in joints.items()}
    return "joints, mm", columns, rows


def _reprojection(reprojection: Mapping[str, Any]) -> Iterator[Table]:
    columns = [("px mean", "px"), ("px p95", "px"), ("PCK@.05", "share"), ("PCK@.1", "share")]
    both = {"SMPL label": reprojection["smpl"], "SKEL fit": reprojection["skel"]}
    rows = {n: [p["px"]["mean"], p["px"]["p95"], p["pck_05"], p["pck_10"]] for n, p in both.items()}
    yield "2D keypoints", columns, rows
    people = reprojection["people"]
    names = ("bad_label", "bad_fit", "keypoints_exchanged", "behind_camera")
    shares = {
        name.replace("_", " "): [reprojection[name], reprojection[name] / people if people else None]
        for name in names
    }
    rows = {"people": [people, None], **shares}
    yield "2D keypoints, people", [("people", "count"), ("share", "share")], rows


def _violations(anatomy: Mapping[str, Any]) -> Iterator[Table]:
    violations, hinges = anatomy["violations"], anatomy["knees_elbows"]
    columns = [(f">{degrees} deg", "share") for degrees in violations["beyond_deg"]]
    rows = {
        "any": violations["any"],
        **{dof["dof"]: dof["share"] for dof in violations["dofs"] if dof["limits_deg"]},
    }
    yield "people beyond a limit", columns, rows
    rows = {
        f"{name}, {title}": both[side]
        for name, both in hinges["joints"].items()
        for side, title in (("smpl", "label"), ("skel", "fit"))
    }
    yield "knees, elbows, as HSMR", [(f">{n} deg", "share") for n in hinges["beyond_deg"]], rows


def _bones(bones: Mapping[str, Any]) -> Iterator[Table]:
    depth = _spread(bones["depth_mm"])
    yield "bones outside: depth, mm", _MM, {"furthest vertex": depth}
    shares = {"all": bones["share"]["mean"], **bones["share_by_joint"]}
    yield "bone vertices outside", [("share", "share")], {n: [v] for n, v in shares.items()}


def _sides(asymmetry: Mapping[str, Any]) -> Iterator[Table]:
    columns = [("right", "deg"), ("left", "deg"), ("r >10", "share"), ("l >10", "share")]
    rows = {dof["dof"]: [*dof["mean_deg"], *dof["beyond_10"]] for dof in asymmetry["dofs"]}
    yield "right/left: mean angle, deg", columns, rows
    yield "right/left: errors, mm", [("right", "mm"), ("left", "mm")], asymmetry["parts_mm"]
    yield "right/left exchanged", [("people", "count")], {"people": [asymmetry["sides_exchanged"]]}


def _motion(anatomy: Mapping[str, Any]) -> Iterator[Table]:
    jumps, jitter = anatomy["jumps"], anatomy["jitter"]
    rows: dict[str, Sequence[Cell]] = {
        f"turns > {d} deg": [share] for d, share in jumps["turn_above"].items()
    }
    rows |= {f"turns > label + {d} deg": [share] for d, share in jumps["added_deg_above"].items()}
    rows |= {f"adds > {mm} mm": [share] for mm, share in jumps["added_mm_above"].items()}
    yield "jumps between frames", [("share", "share")], rows
    names = {"turn_deg": "SKEL fit", "label_turn_deg": "SMPL label", "added_deg": "beyond the label"}
    columns = [(title, "deg") for title, _ in _MM]
    rows = {title: _spread(jumps[name]) for name, title in names.items()}
    yield "largest turn of a joint, deg", columns, rows
    rows = {"SKEL fit": _spread(jitter["fit_deg"]), "SMPL label": _spread(jitter["label_deg"])}
    yield "jitter, deg/frame^2", columns, rows
    yield "jitter by joint", [("fit", "deg"), ("label", "deg")], jitter["by_joint"]


def _ground(ground: Mapping[str, Any]) -> Iterator[Table]:
    rows: dict[str, Sequence[Cell]] = {status: [n] for status, n in ground["statuses"].items()}
    yield "sequences by what is known of the ground", [("sequences", "count")], rows
    yield (
        "feet on the floor: slip, mm/s",
        [(title, "mm/s") for title, _ in _MM],
        {"": _spread(ground["slip_mm_s"])},
    )
    names = {"penetration_mm": "soles below the floor", "spread_mm": "spread of the floor"}
    yield "floor, mm", _MM, {title: _spread(ground[name]) for name, title in names.items()}
