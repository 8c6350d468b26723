"""The report as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

Lines = list[str]


def as_markdown(report: dict[str, Any], failures: Sequence[str]) -> str:
    """The sections so far, after the failures."""
    device = report["device"]
    lines = [f"# skelfit {report['skelfit']} on {device['kind']}: {device['name']}", ""]
    facts = {k: v for k, v in device.items() if k not in ("kind", "name")}
    lines += [", ".join(f"{name} {_number(value)}" for name, value in facts.items()) + "."]
    lines += [f"Models: {report['models']['source']}. Pipeline: {report['pipeline']}.", ""]
    if failures:
        lines += ["**Failures:**", "", *(f"- {text}" for text in failures), ""]
    else:
        lines += ["Nothing failed so far, and the device agrees with the CPU where they were compared.", ""]
    for name, section in report["sections"].items():
        lines += [f"## {TITLES[name]}", "", f"{section['seconds']:.1f} s.", ""]
        if "error" in section:
            lines += ["```", section["trace"].rstrip(), "```", ""]
        else:
            lines += [*WRITERS[name](section["found"]), ""]
    return "\n".join(lines) + f"\nMade in {report['seconds']:.0f} s.\n"


def _agreement(rows: list[dict[str, Any]]) -> Lines:
    names = list(rows[0]["tolerances"])
    heads = ["labels", "poses", "people", "compared", *names, "same bits in another order"]
    body = [
        [r["gender"], r["poses"], r["found"]["people"], r["found"]["compared"]]
        + [_number(r["found"][name]) for name in names]
        + ["yes" if r["same_bits_in_other_order"] else "NO"]
        for r in rows
    ]
    body.append(["", "at most", "", "", *(_number(rows[0]["tolerances"][name]) for name in names), "yes"])
    return table(heads, body)


def _batches(rows: list[dict[str, Any]]) -> Lines:
    heads = [
        "people of a call",
        "people/s",
        "s until ready",
        "mean PVE mm",
        "converged",
        "torch MiB",
        "Warp MiB",
    ]
    body = []
    for r in rows:
        taken = r["memory"] or {"torch_peak": None, "warp_peak": None}
        body.append(
            [
                r["batch"],
                f"{r['people_per_second']:.0f}",
                f"{r['seconds_until_ready']:.1f}",
                f"{r['pve_mm']['mean']:.3f}",
            ]
            + [f"{100 * r['converged']:.2f} %", _number(taken["torch_peak"]), _number(taken["warp_peak"])]
        )
    return table(heads, body)


def _parts(figures: dict[str, Any]) -> Lines:
    of_person = {name: figures[name] / figures["batch"] for name in ("read_bytes", "written_bytes")}
    lines = [
        f"A call of {figures['batch']} people takes {figures['milliseconds']:.1f} ms, "
        f"{figures['in_kernels']:.1f} of them in the kernels below. "
        f"It launches {figures['launches']} kernels, reads {figures['reads']} times from the device "
        f"({of_person['read_bytes']:.0f} bytes a person) and writes to it {figures['writes']} times "
        f"({of_person['written_bytes']:.0f}).",
        "",
    ]
    whole = figures["milliseconds"]
    body = [
        [e["name"], e["number"], f"{e['milliseconds']:.3f}", _share(e["milliseconds"] / whole)]
        for e in figures["kernels"]
    ]
    return lines + table(["what", "number", "ms", "of the call"], body)


def _sustained(figures: dict[str, Any]) -> Lines:
    lines = [
        f"{figures['people_per_second']:.0f} people/s over {figures['seconds']:.0f} s in calls of {figures['batch']}; "
        f"{figures['first_quarter']:.0f} in the first quarter, {figures['last_quarter']:.0f} in the last.",
    ]
    for when in ("gpu_before", "gpu_after"):
        if figures[when]:
            lines += ["", f"{when}: " + ", ".join(f"{k} {v}" for k, v in figures[when].items())]
    return lines


def _conversion(rows: list[dict[str, Any]]) -> Lines:
    heads = ["what", "people", "people/s", "s with the start", "share of the time that fits"]
    body = [
        [
            r["what"],
            r["people"],
            f"{r['people_per_second']:.0f}",
            f"{r['seconds']:.1f}",
            _share(r["time"]["fitting"]),
        ]
        for r in rows
    ]
    return table(heads, body)


def _kernels(rows: list[dict[str, Any]]) -> Lines:
    if not rows:
        return ["None on a CPU."]
    names = list(rows[0])
    return table(names, ([_number(r[name]) for name in names] for r in rows))


TITLES = {
    "agreement": "The same people as on a CPU",
    "batches": "Calls of each size",
    "parts": "Where the time goes",
    "sustained": "Continuous fitting",
    "conversion": "Label files to shards",
    "kernels": "GPU resources of the kernels",
}
WRITERS: dict[str, Callable[[Any], Lines]] = {
    "agreement": _agreement,
    "batches": _batches,
    "parts": _parts,
    "sustained": _sustained,
    "conversion": _conversion,
    "kernels": _kernels,
}


def table(heads: Sequence[str], rows: Iterable[Sequence[object]]) -> Lines:
    """A table of Markdown."""
    return ["| " + " | ".join(str(x) for x in row) + " |" for row in (heads, ["---"] * len(heads), *rows)]


def _number(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _share(value: float) -> str:
    return f"{100 * value:.1f} %"
