"""Links of the documents: each relative one leads to a file, each anchor to a heading of it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCUMENTS = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "*/README.md")
    for path in ROOT.glob(pattern)
    if path.parent.name[0] != "."
)
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"`[^`\n]*`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?) *#*$", re.MULTILINE)


def links(text: str) -> list[str]:
    """Targets of the links and images, those in code left out."""
    return _LINK.findall(_CODE.sub("", _FENCE.sub("", text)))


def anchors(text: str) -> set[str]:
    """Of the headings, by GitHub's rule; the n-th repetition of one ends with -n."""
    seen: dict[str, int] = {}
    found = set()
    for heading in _HEADING.findall(_FENCE.sub("", text)):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        name = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        found.add(name if name not in seen else f"{name}-{seen[name]}")
        seen[name] = seen.get(name, 0) + 1
    return found


def dead(document: Path) -> list[str]:
    """Relative links of a document that lead nowhere."""
    wrong = []
    for link in links(document.read_text()):
        if re.match(r"[a-z]+:", link):
            continue
        place, _, anchor = link.partition("#")
        target = document.parent / place if place else document
        if not target.exists() or (anchor and anchor not in anchors(target.read_text())):
            wrong.append(link)
    return wrong


def test_the_rules_of_links_and_headings() -> None:
    text = "# A `--way`: of *1e-6* m²\n## Same\n## Same\n[a](#same-1) ![b](c.png) `[d](e)`\n```\n# code\n[f](g)\n```\n"
    assert anchors(text) == {"a---way-of-1e-6-m²", "same", "same-1"}
    assert links(text) == ["#same-1", "c.png"]


def test_dead_links_are_told(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# There\n")
    page = tmp_path / "page.md"
    page.write_text(
        "# Here\n[1](#here) [2](#gone) [3](other.md#there) [4](other.md#gone) [5](no.md) [6](https://x.org/y)\n"
    )
    assert dead(page) == ["#gone", "other.md#gone", "no.md"]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document: Path) -> None:
    assert dead(document) == []
