"""The report of an evaluation for the terminal. Each figure stands in a table that names its protocol."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from skelfit.executors.report_table import ReportTable, table_of_counts
from skelfit.protocols.protocol import TITLES

_NAME, _NUMBER = 46, 11
Report = Mapping[str, Any]


def report_lines(report: Report) -> Iterator[str | ReportTable]:
    """What became of the rows, and the figures of each stage."""
    protocol, rows = report["protocol"], report["rows"]
    yield f"{protocol['name']}: {rows['total']} rows in {report['labels']['path']}"
    yield table_of_counts(("status", "rows"), list(rows["statuses"].items()))
    for status, reasons in rows["reasons"].items():
        yield from (f"  {status}: {reason} ({n})" for reason, n in list(reasons.items())[:2])
    stages = report["stages"]
    if not stages[-1]["people"]:
        yield f"{protocol['name']}: no figures, as no row has a prediction that can be scored"
        return
    yield _figures(protocol, stages)
    yield _violations(protocol, stages)
    if fit := report.get("fit"):
        each = 1000 * fit["seconds"] / max(fit["people"], 1)
        yield f"fit: {fit['people']} people in {fit['seconds']:.2f} s on {fit['device']}, {each:.2f} ms each"
    if protocol["remark"]:
        yield f"{protocol['name']}: {protocol['remark']}"


def short_line(report: Report) -> str:
    """The figures of the last stage in one line."""
    last, rows, name = report["stages"][-1], report["rows"], report["protocol"]["name"]
    figures = [f"{TITLES[e]} {_mm(h['mean'])} mm" for e, h in last["errors"].items()]
    figures += [f"PCK@{f['at']:g} {_share(f['mean'])}" for f in last["pck"]]
    return f"{name}: {', '.join(figures)} ({last['people']} of {rows['total']} rows)"


def _figures(protocol: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> ReportTable:
    unit = ", mm" if protocol["errors"] else ""
    heads = [f"{protocol['name']}{unit}, {stages[-1]['people']} people"]
    heads += [TITLES[error] for error in protocol["errors"]] + [f"PCK@{at:g}" for at in protocol["pck_at"]]
    return _table(
        heads,
        [
            [
                stage["name"],
                *(_mm(stage["errors"][error]["mean"]) for error in protocol["errors"]),
                *(_share(figure["mean"]) for figure in stage["pck"]),
            ]
            for stage in stages
        ],
    )


def _violations(protocol: Mapping[str, Any], stages: Sequence[Mapping[str, Any]]) -> ReportTable:
    """Of the last stage; of the stage before, too, where that is of SMPL."""
    shown = stages if len(stages) == 2 else stages[-1:]
    heads = [f"{protocol['name']}, people beyond the range"]
    heads += [f">{degrees} deg" for degrees in shown[-1]["knees_elbows"]["beyond_deg"]]
    rows = [
        [f"{joint}, {stage['name']}" if len(shown) > 1 else joint, *map(_share, shares)]
        for stage in shown
        for joint, shares in stage["knees_elbows"]["joints"].items()
    ]
    return _table(heads, rows)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> ReportTable:
    lines = [
        f"{name if i == 0 else '  ' + name:<{_NAME}}" + "".join(f"{text:>{_NUMBER}}" for text in numbers)
        for i, (name, *numbers) in enumerate([heads, *rows])
    ]
    return ReportTable(tuple(heads), tuple(map(tuple, rows)), "\n".join(lines))


def _mm(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
