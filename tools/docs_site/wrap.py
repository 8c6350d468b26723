"""Wraps the prose of Markdown files at 98 columns: `python -m tools.docs_site.wrap docs/*.md`.

Code, tables, headings, formulas and pictures stay as they are, and no word changes.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

WIDTH = 98
# Short code in backticks is one word, so that no line ends within it.
_WORD = re.compile(r"(?:`[^`\n]{1,60}`|\S)+")
_ITEM = re.compile(r"( *)([-*] |\d+\. )?")
_FENCE = re.compile(r" *```")
_FIXED = re.compile(r" *\||#{1,6} |<|!\[|---|    \S")
# At the start of a line these would mean a list, a heading or a quotation.
_MEANS_MORE = re.compile(r"(?:[-+*#>|]|\d+[.)])$")


def wrap(text: str) -> str:
    """The same words in lines of at most WIDTH columns."""
    lines: list[str] = []
    paragraph: list[str] = []
    in_code = False
    for line in text.splitlines():
        starts_item = bool(_ITEM.match(line)[2])  # type: ignore[index]
        continues_item = bool(paragraph) and bool(_ITEM.match(paragraph[0])[2])  # type: ignore[index]
        fixed = not line.strip() or (_FIXED.match(line) and not (continues_item and line.startswith("    ")))
        if _FENCE.match(line) or in_code or fixed or starts_item:
            lines += _wrapped(paragraph)
            paragraph = []
        if _FENCE.match(line):
            in_code = not in_code
            lines.append(line)
        elif in_code or (fixed and not starts_item):
            lines.append(line)
        else:
            paragraph.append(line)
    lines += _wrapped(paragraph)
    return "\n".join(lines) + "\n"


def _wrapped(paragraph: list[str]) -> Iterator[str]:
    """The lines of a paragraph or of a list's item, whose later lines are indented like its first word."""
    if not paragraph:
        return
    match = _ITEM.match(paragraph[0])
    assert match is not None
    start = match[0]
    words = _WORD.findall(" ".join([paragraph[0][len(start) :], *paragraph[1:]]))
    line = start + words[0]
    for word in words[1:]:
        if len(line) + 1 + len(word) > WIDTH and not _MEANS_MORE.match(word):
            yield line
            line = " " * len(start) + word
        else:
            line += f" {word}"
    yield line


if __name__ == "__main__":
    for name in sys.argv[1:]:
        path = Path(name)
        path.write_text(wrap(path.read_text(encoding="utf-8")), encoding="utf-8")
