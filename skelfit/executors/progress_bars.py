"""What is shown of a run on its way: lines for the user, and how many people are done.

A command prints the lines and shows a bar. A caller from Python gets the lines in the log, and is told how far a run is
where they ask for it.
"""

from __future__ import annotations

import logging
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from tqdm import tqdm

Say = Callable[[object], object]  # called with a text, or a table (ReportTable)
Count = Callable[[int, int], object]  # called with how many people are done, and how many there are
_log = logging.getLogger(__name__)
PLAIN_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Reporter:
    """Where the lines of a run go, and how its progress is shown."""

    say: Say = _log.info
    warn: Say = _log.warning
    note: Say = _log.info  # of lines about the progress, where there is no bar
    # True: people done, people/s and time left: a bar on stderr if it is a terminal, else a line now and then.
    progress: bool | Count = False

    def counting(self, total: int, initial: int = 0, rejected: Mapping[str, int] | None = None) -> Progress:
        """Counts people from `initial` to `total`; rejected: how many were so far, by reason."""
        return Progress(total, initial, rejected, self)


LOGGED = Reporter()  # lines go to the log


def reporter_of(progress: bool | Count | Reporter) -> Reporter:
    """The reporter of an argument: itself, or one that shows progress so."""
    if isinstance(progress, Reporter):
        return progress
    return Reporter(progress=progress, note=_print_error if progress is True else _log.info)


def _print_error(line: object) -> None:
    print(line, file=sys.stderr, flush=True)


class Progress:
    """How many people are done, shown as a reporter has it."""

    def __init__(
        self,
        total: int,
        initial: int,
        rejected: Mapping[str, int] | None = None,
        reporter: Reporter = LOGGED,
    ) -> None:
        self.reporter, self.shown = reporter, reporter.progress is True
        self.plain = self.shown and not sys.stderr.isatty()
        hidden = not self.shown or self.plain
        self.bar = tqdm(total=total, initial=initial, unit="people", smoothing=0.05, disable=hidden)
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
        if callable(self.reporter.progress):
            self.reporter.progress(self.done, self.total)
        now = time.monotonic()
        if self.shown and (now - self.printed > PLAIN_PROGRESS_SECONDS or self.done == self.total):
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
            tell = self.reporter.note if self.plain else _log.info
            tell(f"{line}, {note}" if note else line)

    def say(self, line: str) -> None:
        """Show a line, above the bar where there is one."""
        with tqdm.external_write_mode(file=sys.stderr):
            self.reporter.warn(line)


def rejections(counts: Mapping[str, int]) -> str:
    """How many rows were rejected, and the most frequent reasons."""
    most = Counter(counts).most_common(3)
    others = len(counts) - len(most)
    reasons = ", ".join(f"{reason} {count}" for reason, count in most)
    return f"{sum(counts.values())} rejected ({reasons}{f', {others} more reasons' if others else ''})"


def duration(seconds: float) -> str:
    """Seconds as people say them: 12 s, 3 min 5 s, 2 h 7 min, 3 d 4 h."""
    whole = round(seconds)
    units = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))
    for (name, size), (smaller, small) in zip(units, units[1:], strict=False):
        if whole >= size:
            rest = whole % size // small
            return f"{whole // size} {name}" + (f" {rest} {smaller}" if rest else "")
    return f"{whole} s"
