"""What is shown of a run on the way, and what is told at its end. All of it goes where the user looks, not to files."""

from __future__ import annotations

import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import click
from tqdm import tqdm

from skelfit.shards.row_status import remark_on_targets

PLAIN_PROGRESS_SECONDS = 10.0


class Progress:
    """People done, people/s and time left on stderr: a bar on a terminal, else a line now and then."""

    def __init__(self, total: int, initial: int, rejected: Mapping[str, int] | None = None) -> None:
        self.plain = not sys.stderr.isatty()
        self.bar = tqdm(total=total, initial=initial, unit="people", smoothing=0.05, disable=self.plain)
        self.total, self.initial, self.done = total, initial, initial
        self.rejected = Counter(rejected or {})
        self.started = self.printed = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        self.bar.close()

    def update(self, people: int, rejected: Mapping[str, int] | None = None) -> None:
        """Count people, and those who were rejected, by reason."""
        self.rejected.update(rejected or {})
        self.show(people, rejections(self.rejected) if self.rejected else "")

    def show(self, people: int, note: str) -> None:
        """Count people; a plain line comes at most every PLAIN_PROGRESS_SECONDS, and at the end."""
        self.bar.set_postfix_str(note, refresh=False)
        self.bar.update(people)
        self.done += people
        now = time.monotonic()
        if self.plain and (now - self.printed > PLAIN_PROGRESS_SECONDS or self.done == self.total):
            self.printed = now
            form = "{n_fmt}/{total_fmt} people, {rate_fmt}, {remaining} left"
            line = tqdm.format_meter(
                self.done,
                self.total,
                now - self.started,
                initial=self.initial,
                unit=" people",
                bar_format=form,
            )
            click.echo(f"{line}, {note}" if note else line, err=True)

    def say(self, line: str) -> None:
        """Print a line, above the bar where there is one."""
        tqdm.write(line, file=sys.stderr)


def rejections(counts: Mapping[str, int]) -> str:
    """How many rows were rejected, and the most frequent reasons."""
    most = Counter(counts).most_common(3)
    others = len(counts) - len(most)
    reasons = ", ".join(f"{reason} {count}" for reason, count in most)
    return f"{sum(counts.values())} rejected ({reasons}{f', {others} more reasons' if others else ''})"


def report(summary: Mapping[str, Any]) -> None:
    """Print what became of the rows."""
    click.echo(f"{summary['rows_in']} rows in, {summary['rows_out']} people out")
    _table(summary["statuses"])
    if summary["rejected"]:
        click.echo("rejected, by reason")
        _table(summary["rejected"])
    for rule, count in summary["filters"].items():
        keypoints = f", {count['keypoints']} keypoints" if "keypoints" in count else ""
        click.echo(f"filter {rule} ({count['value']:g}): {count['rows']} rows{keypoints}")
    absent = {kind: n for kind, n in summary["images"].items() if n and kind != "found"}
    if absent:
        click.echo("people without an image")
        _table(absent)
    if summary["pve_mm"]["mean"] is not None:
        stages = {name: mean for name, mean in summary["stage_pve_mm"].items() if mean is not None}
        click.echo(f"PVE in mm: {_listed(summary['pve_mm'])}{_listed(stages, '; after each stage: ')}")
        if remark := remark_on_targets(summary["identity"]):
            click.echo(f"  {remark}")
        steps = {s: d["mean"] for s, d in summary["betas_mm"].items() if d["mean"] is not None}
        bodies = ", ".join(f"{count} {gender}" for gender, count in summary["skel_genders"].items())
        click.echo(f"SKEL bodies: {bodies}{_listed(steps, '; distance at rest in mm, betas ')}")
    if summary["people_per_second"] is not None:
        click.echo(f"{summary['people_per_second']:.1f} people/s")
    if summary["time"] is not None:
        shares = ", ".join(f"{name} {share:.1%}" for name, share in summary["time"]["shares"].items())
        click.echo(f"time of the shards: {shares}")
        click.echo(f"the workers were fitting in {summary['time']['fitting']:.0%} of their time")


def report_subsets(ends: Sequence[tuple[str, Mapping[str, Any] | None, str]]) -> None:
    """Print a table of subsets: name, summary (None where there is none), and where it is or what happened."""
    click.echo(f"\n{'subset':<16} {'rows in':>10} {'people out':>10} {'PVE in mm':>10}   result")
    for name, summary, end in ends:
        numbers = ["-"] * 3
        if summary is not None:
            mean = summary["pve_mm"]["mean"]
            numbers = [
                str(summary["rows_in"]),
                str(summary["rows_out"]),
                "-" if mean is None else f"{mean:.2f}",
            ]
        click.echo(f"{name:<16} " + " ".join(f"{number:>10}" for number in numbers) + f"   {end}")


def _listed(lengths: Mapping[str, float], head: str = "") -> str:
    """Lengths with their names, behind a head; nothing where there are none."""
    return head + ", ".join(f"{name} {value:.2f}" for name, value in lengths.items()) if lengths else ""


def _table(counts: Mapping[str, int]) -> None:
    for name, count in counts.items():
        click.echo(f"  {name:<40} {count:>9}")
