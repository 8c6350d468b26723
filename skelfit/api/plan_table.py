"""The plan of a conversion as a table, and a table of several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from skelfit.api.conversion_lines import counted_shards, finished_already
from skelfit.api.conversion_result import ConversionPlan, ConvertedSubset
from skelfit.executors.progress_bars import duration
from skelfit.executors.report_table import ReportTable

NO_SPEED = "not known: measure it with `skelfit bench` and give --people-per-second N"
_HEADS = ("plan", "estimate", "from")
Cells = tuple[str, str, str]


def plan_table(plan: ConversionPlan) -> ReportTable:
    """The plan: what, how much, and where the figure comes from."""
    rows = tuple(cells for part in (_work, _reading, _writing, _cost, _time) for cells in part(plan))
    wide = max(len(name) for name, _, _ in rows), max(len(figure) for _, figure, _ in rows)
    lines = [f"  {name:<{wide[0]}}  {figure:>{wide[1]}}  {source}".rstrip() for name, figure, source in rows]
    return ReportTable(_HEADS, rows, "\n".join(lines))


def _work(plan: ConversionPlan) -> Iterator[Cells]:
    done = finished_already(plan.shards_done, f" with {plan.rows_done} rows") if plan.shards_done else ""
    yield "rows", f"{plan.rows}", ""
    yield "shards", f"{plan.shards}", done
    yield "fit batches", f"{plan.fit_batches}", "of the shards that are left" if plan.shards_done else ""


def _reading(plan: ConversionPlan) -> Iterator[Cells]:
    if plan.files:
        yield (
            "labels to read",
            size(plan.label_file_bytes),
            f"{len(plan.files)} files" if len(plan.files) > 1 else "",
        )
    if plan.images_looked_at:
        looked = f"{plan.images_there} of {plan.images_looked_at} images looked at are there"
        yield "images to read", size(plan.source_image_bytes), f"at most; {looked}"
    elif plan.files:
        yield "images to read", "none", ""
    else:
        yield "images to read", "?", "not known before they are made"


def _writing(plan: ConversionPlan) -> Iterator[Cells]:
    if plan.files:
        yield "label store", size(plan.store_bytes), "exact"
    else:
        yield "label store", "?", "not known before it is made"
    person = plan.label_bytes / plan.rows / 1000 if plan.rows else 0
    yield "labels in shards", size(plan.label_bytes), f"{person:.1f} kB a person, {_trial(plan)}"
    if plan.images_looked_at:
        yield "images in shards", size(plan.image_bytes), "the images looked at"


def _cost(plan: ConversionPlan) -> Iterator[Cells]:
    costs = plan.costs
    for name, hours in costs.core_hours.items():
        if hours:
            yield f"core-hours, {name}", _hours(hours), _sources(plan)[name]
    if costs.gpu_hours is not None:
        yield "GPU-hours, fit", _hours(costs.gpu_hours), _sources(plan)["fit"]
    idle = f"; {plan.workers - costs.workers_used} have no batch" if costs.workers_used < plan.workers else ""
    yield "workers", f"{plan.workers}", f"--workers, or one for each GPU or core{idle}"
    if costs.cores_per_worker is not None:
        yield "cores of a worker", f"{costs.cores_per_worker}", "with these its fit does not wait"
    yield "memory of a worker", size(costs.bytes_per_worker), "without what a GPU or large images take"


def _trial(plan: ConversionPlan) -> str:
    return "of some rows" if plan.files else "as the demo's people usually have"


def _sources(plan: ConversionPlan) -> dict[str, str]:
    """Where core-hours come from."""
    rows = "some rows, on this machine" if plan.files else "a usual figure"
    looked = "the images looked at, on this machine"
    return {"reading": rows, "writing": rows, "images": looked, "fit": "--people-per-second"}


def _time(plan: ConversionPlan) -> Iterator[Cells]:
    hours, speed = plan.hours_left, plan.people_per_second
    if hours is None:
        yield "time", "?", NO_SPEED
        return
    if speed is None:
        rate = f"{plan.last_people_per_second:.1f} people/s (the last run in this folder, with its workers)"
    else:
        rate = f"{plan.workers} x {speed:.1f} people/s (--people-per-second)"
    yield "time", duration(3600 * hours), f"at {rate}"
    if speed is not None:
        yield "bound by", str(plan.costs.bound), ""
        if hours:
            both = plan.bytes_written + plan.bytes_read
            yield "storage", f"{size(round(both / hours / 3600))}/s", "bytes read and written in this time"


def _hours(hours: float) -> str:
    return f"{hours:.2f}" if hours >= 0.005 else "< 0.01"


def size(count: int) -> str:
    """Bytes as people say them."""
    for unit, bytes_ in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= bytes_:
            return f"{count / bytes_:.1f} {unit}"
    return f"{count / 1e3:.1f} kB"


def plan_lines(plan: ConversionPlan, out: object) -> Iterator[str | ReportTable]:
    """The plan in words."""
    yield f"{plan.rows} rows in {counted_shards(plan.shards)}, to {out}"
    yield plan_table(plan)
    for each in plan.missing:
        yield f"missing: {each}"
    if not plan.missing:
        yield "missing: nothing"


def table_of_plans(results: Sequence[ConvertedSubset]) -> ReportTable:
    """A line for each subset."""
    heads = ("subset", "rows", "shards", "finished", "GB", "hours", "missing")
    rows = tuple((result.name, *_cells(result)) for result in results)
    lines = [
        f"{name:<16} " + " ".join(f"{cell:>9}" for cell in cells) + f"   {missing}"
        for name, *cells, missing in (heads, *rows)
    ]
    return ReportTable(heads, rows, "\n" + "\n".join(lines))


def _cells(result: ConvertedSubset) -> tuple[str, ...]:
    plan = result.plan
    if plan is None:
        return (*"-----", "label files" if result.missing else "cannot be read, see above")
    hours = "-" if plan.hours_left is None else f"{plan.hours_left:.2g}"
    missing = "images" if plan.missing else "nothing"
    return (
        str(plan.rows),
        str(plan.shards),
        str(plan.shards_done),
        f"{plan.bytes_written / 1e9:.2g}",
        hours,
        missing,
    )
