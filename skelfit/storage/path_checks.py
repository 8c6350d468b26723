"""Checks of paths before they are opened: local or an address, a regular file or something else."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from skelfit.errors import InputError
from skelfit.storage.locations import Location

LOCAL_PATH = "a path on this machine"
# Searched for anywhere in a text: patterns and chained addresses (simplecache::s3://...) have them further inside.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FILE = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
_ENDINGS_NAMED = 5
# What a path can be, beside a regular file.
_NON_FILES = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def describe_non_file(path: str | Location) -> str:
    """What a path leads to if it is not a regular file (links are followed); '' for a regular file or nothing.

    '' for an address, too: what a store has can be read, or opening it raises the right error.
    """
    if not isinstance(path, (str, Path)):
        return ""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""
    if stat.S_ISREG(mode):
        return ""
    return next((words for is_kind, words in _NON_FILES if is_kind(mode)), "something other than a file")


def require_regular_file(path: str | Location, expected: str, error: type[InputError]) -> None:
    """Raise the error for a path that leads to something other than a regular file. Call it before opening the path.

    Opening a named pipe waits for its writer for ever, reading a device may never end, and neither can be read
    twice. A path that leads to nothing passes: opening it raises the right error.
    """
    if kind := describe_non_file(path):
        raise error(path, None, expected, f"{kind}, not a regular file")


def describe_non_local(text: str) -> str | None:
    """What to do about a text that is an address or a command where a path is expected; None for a path."""
    if _FILE.match(text):
        return f"the address {text}; give the path alone: {unquote(_FILE.sub('', text))}"
    if _ADDRESS.search(text):
        return f"the address {text}; copy the files to this machine, or mount their storage"
    if text.startswith("pipe:"):  # webdataset would run it
        return f"the command {text}; write its output to a file"
    return None


def count_endings(paths: Iterable[Location]) -> Counter[str]:
    """How many files have each ending, in lower case and without the dot; hidden files do not count."""
    return Counter(path.suffix[1:].lower() for path in paths if not path.name.startswith("."))


def describe_skipped(endings: Counter[str], what: str) -> str:
    """How many files of a folder or tar are skipped, by ending; '' when there are none.

    endings: the count of each ending, without its dot; '' for names without one. what: what is read there.
    """
    if not endings:
        return ""
    # Ties are sorted by name: the order in which a folder lists its files is arbitrary.
    most = sorted(endings.items(), key=lambda item: (-item[1], not item[0], item[0]))[:_ENDINGS_NAMED]
    words = [f"{count} {f'.{ending}' if ending else 'without an ending'}" for ending, count in most]
    if others := endings.total() - sum(count for _, count in most):
        words.append(f"{others} more")
    files = "1 file is" if endings.total() == 1 else f"{endings.total()} files are"
    return f"{files} skipped, not read as {what}: {', '.join(words)}"
