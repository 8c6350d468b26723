"""What `evaluate` writes: the report, its page, and a line for every row. It replaces its own earlier files alone."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np

from skelfit.executors.progress_bars import Reporter
from skelfit.protocols.evaluation_page import TITLE
from skelfit.protocols.evaluation_report import VERSION, Report
from skelfit.protocols.protocol import TITLES, Protocol
from skelfit.protocols.row_scores import RowScores
from skelfit.storage.checked_arguments import location_or_none
from skelfit.storage.hashed_write import write_atomically, write_json
from skelfit.storage.locations import Location, Place
from skelfit.verification.report_files import check_distinct, check_replaceable, is_page, is_report, is_table

_PCK = (0.05, 0.1)
COLUMNS = ("row", "imgname", "status", "reason", *TITLES, *(f"pck_{at}" for at in _PCK), "knees_elbows_deg")


@dataclass(frozen=True)
class EvaluationFiles:
    """Where to write; None: not written."""

    json: Location | None
    html: Location | None
    rows: Location | None


def evaluation_files(json: Place | None, html: Place | None, rows: Place | None) -> EvaluationFiles:
    """The paths, checked. Raises ArgumentError for one file twice, OutputError for the file of another program."""
    files = EvaluationFiles(
        json=location_or_none("json", json, writing=True),
        html=location_or_none("html", html, writing=True),
        rows=location_or_none("rows", rows, writing=True),
    )
    check_distinct({"json": files.json, "html": files.html, "rows": files.rows})
    version = VERSION.rstrip("0123456789")
    check_replaceable(files.json, "report (JSON) of evaluate", partial(is_report, version=version))
    check_replaceable(files.html, "page of evaluate", partial(is_page, title=TITLE))
    check_replaceable(files.rows, "table of rows of evaluate", partial(is_table, columns=COLUMNS))
    return files


def write_reports(
    files: EvaluationFiles,
    report: Report,
    protocol: Protocol,
    imgname: tuple[str, ...],
    scores: RowScores,
    page: Callable[[], str],
    reporter: Reporter,
) -> None:
    """Write what is asked for, and say where it is. page: makes the page. Raises OutputError."""
    if files.json is not None:
        write_json(files.json, report)
        reporter.say(f"all of it, for programs: {files.json}")
    if files.rows is not None:
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([COLUMNS, *_lines(protocol, imgname, scores)])
        write_atomically(files.rows, lambda stream: stream.write(text.getvalue().encode()))
        reporter.say(f"every row: {files.rows}")
    if files.html is not None:
        content = page().encode()
        write_atomically(files.html, lambda stream: stream.write(content))
        reporter.say(f"the page: {files.html}")


def _lines(protocol: Protocol, imgname: tuple[str, ...], scores: RowScores) -> Iterator[list[str]]:
    """A line for every row: what the last stage scores."""
    for row, (name, status) in enumerate(zip(imgname, scores.status, strict=True)):
        errors = dict(zip(protocol.errors, scores.errors[-1, row].tolist(), strict=True))
        distances = scores.distances[-1, row]
        labelled = distances[~np.isnan(distances)]
        shares = [float((labelled < at).mean()) if len(labelled) else np.nan for at in _PCK]
        numbers = [
            *(errors.get(error, np.nan) for error in TITLES),
            *shares,
            scores.hinges_deg[-1, row].max(),
        ]
        yield [
            str(row),
            name,
            status,
            scores.reason[row],
            *("" if np.isnan(n) else f"{n:.4f}" for n in numbers),
        ]
