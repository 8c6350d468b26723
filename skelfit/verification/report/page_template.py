"""The frame of a page that needs no network: style, data and scripts put into `page.html`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from importlib.resources import files
from typing import Any


def page_asset(name: str) -> str:
    """The text of a file of the page."""
    return (files("skelfit.verification.report") / "page" / name).read_text("utf-8")


def filled_page(
    *, title: str, footer: str, report: Mapping[str, Any], people: Mapping[str, Any], packed: str, script: str
) -> str:
    """A page. report and people: for its script, as JSON; packed: the arrays of people, in base64; footer: HTML."""
    return _fill(
        {
            "TITLE": title,
            "STYLE": page_asset("style.css"),
            "FOOTER": footer,
            "REPORT": _json(report),
            "PEOPLE": _json(people),
            "PACKED": packed,
            "SCRIPT": script,
        }
    )


def _json(content: Any) -> str:
    """JSON for a script element: without `<`, which could end the element."""
    return json.dumps(content, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")


def _fill(parts: Mapping[str, str]) -> str:
    """page.html with its marks replaced by the parts, each once and in order."""
    text, rest = "", page_asset("page.html")
    for name, content in parts.items():
        before, mark, rest = rest.partition(f"/*{name}*/")
        if not mark:
            raise ValueError(f"page.html: expected the mark /*{name}*/, found none")
        text += before + content
    return text + rest
