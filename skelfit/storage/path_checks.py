"""Files that are whole or absent; paths, what is none, and paths that are regular files."""

from __future__ import annotations

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote

from skelfit.errors import InputError

LOCAL_PATH = "a path on this machine"
# Anywhere in a text: patterns and chained addresses (simplecache::s3://...) have them further inside.
_ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_FILE = re.compile(r"file://(localhost(?=/))?", re.IGNORECASE)
_ENDINGS_NAMED = 5
# What a path can be, beside a regular file.
_OTHERS = (
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISFIFO, "a named pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)


def describe_non_file(path: str | Path) -> str:
    """What a path is, where something other than a regular file is there (links are followed); else ''."""
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError):  # ValueError: a zero byte in the path
        return ""
    if stat.S_ISREG(mode):
        return ""
    return next((words for is_kind, words in _OTHERS if is_kind(mode)), "something that is no file")


def require_regular_file(path: str | Path, expected: str, fault: type[InputError]) -> None:
    """Raise the fault where something other than a regular file is at a path; to be called before it is opened.

    Opening a named pipe waits for its writer for ever, reading a device may never end, and neither can be read
    twice. A path where nothing is raises nothing: whoever opens it says so.
    """
    if found := describe_non_file(path):
        raise fault(path, None, expected, f"{found}, not a regular file")


def describe_non_local(text: str) -> str | None:
    """What a text is that should be a path and is an address or a command, and what to do; None for a path."""
    if _FILE.match(text):
        return f"the address {text}; give the path alone: {unquote(_FILE.sub('', text))}"
    if _ADDRESS.search(text):
        return f"the address {text}; copy the files to this machine, or mount their storage"
    if text.startswith("pipe:"):  # webdataset would run it
        return f"the command {text}; write its output to a file"
    return None


def count_endings(paths: Iterable[Path]) -> Counter[str]:
    """How often the names of files end with what, in lower case and without the dot; hidden files do not count."""
    return Counter(path.suffix[1:].lower() for path in paths if not path.name.startswith("."))


def describe_skipped(endings: Counter[str], what: str) -> str:
    """How many files of a folder or tar are not read, and how their names end; '' when it is none.

    endings: how often each comes up, without its dot; '' are names without one. what: what is read there.
    """
    if not endings:
        return ""
    # Of equally many by name: the order in which a folder lists its files is no order.
    most = sorted(endings.items(), key=lambda item: (-item[1], not item[0], item[0]))[:_ENDINGS_NAMED]
    words = [f"{count} {f'.{ending}' if ending else 'without an ending'}" for ending, count in most]
    if others := endings.total() - sum(count for _, count in most):
        words.append(f"{others} more")
    files = "1 file is" if endings.total() == 1 else f"{endings.total()} files are"
    return f"{files} skipped, not read as {what}: {', '.join(words)}"
