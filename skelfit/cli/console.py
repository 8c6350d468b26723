"""What a command says, and where it appears: on stdout and stderr, and in the log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

import click
from tqdm import tqdm

from skelfit.errors import OutputError, without_secrets
from skelfit.executors.progress_bars import Reporter

_ROOT = logging.getLogger("skelfit")
_log = logging.getLogger(__name__)  # what is printed anyway; the log file holds it, too


class Console:
    """What a command says. The options --quiet, --verbose and --log-file set it up; click's context holds it."""

    def __init__(self) -> None:
        self.quiet = self.verbose = False
        self._log_file: Path | None = None
        self._handlers: list[logging.Handler] = []
        self._is_open = False

    def say(self, line: object) -> None:
        """Print a line on stdout: a text, or a table that is drawn on a terminal. Not with --quiet."""
        self._record(logging.INFO, line)
        if not self.quiet:
            self._print(line, sys.stdout)

    def result(self, line: object) -> None:
        """Print a line that a caller asks for, on stdout; also with --quiet."""
        self._record(logging.INFO, line)
        self._print(line, sys.stdout)

    def in_short(self, line: str) -> None:
        """Print the result in one line with --quiet; otherwise the lines before have said it."""
        if self.quiet:
            self.result(line)

    def warn(self, line: object) -> None:
        """Print a line about something that went wrong, on stderr; also with --quiet."""
        self._record(logging.WARNING, line)
        self._print(line, sys.stderr, "yellow")

    def reporter(self) -> Reporter:
        """Where the lines and the progress of a run go."""
        return Reporter(self.say, self.warn, self.note, progress=not self.quiet)

    def note(self, line: object) -> None:
        """Print a line about the progress, on stderr. Not with --quiet."""
        self._record(logging.INFO, line)
        if not self.quiet:
            self._print(line, sys.stderr)

    def error(self, message: str) -> None:
        """Print the error that ends a command, on stderr."""
        self._print(f"Error: {message}", sys.stderr, "red")

    def record_error(self, message: str) -> None:
        """Put the error that ends a command in the log file."""
        self._record(logging.ERROR, f"Error: {message}")

    def record_bug(self) -> None:
        """Put the traceback of the exception that is handled now in the log file."""
        _log.error("a bug of skelfit", exc_info=True)

    def log_to(self, file: Path) -> None:
        """Append what is said from now on to a file, with times. Raises OutputError."""
        if self._log_file is not None:
            raise click.UsageError("give --log-file once")
        self._log_file = file
        if self._is_open:
            self._open_log_file(file)

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Within it, stderr shows warnings of skelfit's modules: all they log with --verbose, errors with --quiet.

        Raises OutputError where the log file cannot be written.
        """
        handler: logging.Handler = _StderrHandler(sys.stderr)
        handler.addFilter(self._is_shown)
        handler.setFormatter(_StderrFormatter(self))
        self._add(handler)
        level = _ROOT.level
        _ROOT.setLevel(logging.DEBUG)
        self._is_open = True
        try:
            if self._log_file is not None:
                self._open_log_file(self._log_file)
            yield
        finally:
            self._is_open = False
            _ROOT.setLevel(level)
            for each in self._handlers:
                _ROOT.removeHandler(each)
                each.close()
            self._handlers.clear()

    def _open_log_file(self, file: Path) -> None:
        try:
            handler = logging.FileHandler(file, encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{file}: cannot be written: {error}") from None
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        handler.addFilter(lambda record: self.verbose or record.levelno >= logging.INFO)
        self._add(handler)

    def _add(self, handler: logging.Handler) -> None:
        _ROOT.addHandler(handler)
        self._handlers.append(handler)

    def _is_shown(self, record: logging.LogRecord) -> bool:
        if record.name == __name__:
            return False  # printed already
        least = logging.DEBUG if self.verbose else logging.ERROR if self.quiet else logging.WARNING
        return record.levelno >= least

    def _record(self, level: int, line: object) -> None:
        for each in without_secrets(str(line)).splitlines():
            _log.log(level, "%s", each)

    def _print(self, line: object, stream: TextIO, style: str = "") -> None:
        if not stream.isatty():
            click.echo(without_secrets(str(line)), file=stream)
            return
        # Imported here because a pipe does without.
        from skelfit.cli.terminal_drawing import draw

        with tqdm.external_write_mode(file=stream):  # above the bars
            draw(line, stream, style)


class _StderrHandler(logging.StreamHandler[TextIO]):
    """Writes above the progress bars."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        with tqdm.external_write_mode(file=sys.stderr):
            super().emit(record)


class _StderrFormatter(logging.Formatter):
    """Messages alone; with --verbose with time, level and module."""

    def __init__(self, console: Console) -> None:
        super().__init__("%(asctime)s %(levelname)s %(name)s: %(message)s")
        self.console = console

    def format(self, record: logging.LogRecord) -> str:
        """One record as text."""
        return super().format(record) if self.console.verbose else record.getMessage()


pass_console = click.make_pass_decorator(Console, ensure=True)


def current_console() -> Console:
    """The Console of the command that runs; a plain one outside of commands."""
    context = click.get_current_context(silent=True)
    return Console() if context is None else context.ensure_object(Console)
