"""What pages that need no network are made of: style, scripts, and data inside of one file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def page_asset(name: str) -> str:
    """The text of a file of `page/`."""
    return (files("skelfit.verification.report") / "page" / name).read_text("utf-8")


def page_json(content: Any) -> str:
    """JSON for a script element: without `<`, which could end the element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def fill_page(page: str, parts: Mapping[str, str]) -> str:
    """A page with its marks replaced by the parts, each once and in order. Raises ValueError for a mark it lacks."""
    text, rest = "", page
    for name, content in parts.items():
        before, mark, rest = rest.partition(f"/*{name}*/")
        if not mark:
            raise ValueError(f"page: expected the mark /*{name}*/, found none")
        text += before + content
    return text + rest
