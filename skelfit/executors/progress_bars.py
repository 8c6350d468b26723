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

Say = Callable[[str], object]
Count = Callable[[int, int], object]  # called with how many people are done, and how many there are
_log = logging.getLogger(__name__)
PLAIN_PROGRESS_SECONDS = 10.0


@dataclass(frozen=True)
class Reporter:
    """Where the lines of a run go, and how its progress is shown."""

    say: Say = _log.info
    warn: Say = _log.warning
    # True: people done, people/s and time left on stderr, a bar on a terminal, else a line now and then.
    progress: bool | Count = False

    def counting(self, total: int, initial: int = 0, rejected: Mapping[str, int] | None = None) -> Progress:
        """Counts people from `initial` to `total`; rejected: how many were so far, by reason."""
        return Progress(total, initial, rejected, self)


def _print_error(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


SHOWN = Reporter(print, _print_error, True)  # what a command does: lines on stdout and stderr


def reporter_of(progress: bool | Count | Reporter) -> Reporter:
    """The reporter of an argument: itself, or one that shows progress so."""
    return progress if isinstance(progress, Reporter) else Reporter(progress=progress)


class Progress:
    """How many people are done, shown as a reporter has it."""

    def __init__(
        self,
        total: int,
        initial: int,
        rejected: Mapping[str, int] | None = None,
        reporter: Reporter = SHOWN,
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
            _print_error(f"{line}, {note}" if note else line)

    def say(self, line: str) -> None:
        """Show a line, above the bar where there is one."""
        if self.shown:
            tqdm.write(line, file=sys.stderr)
        else:
            self.reporter.warn(line)


def rejections(counts: Mapping[str, int]) -> str:
    """How many rows were rejected, and the most frequent reasons."""
    most = Counter(counts).most_common(3)
    others = len(counts) - len(most)
    reasons = ", ".join(f"{reason} {count}" for reason, count in most)
    return f"{sum(counts.values())} rejected ({reasons}{f', {others} more reasons' if others else ''})"
