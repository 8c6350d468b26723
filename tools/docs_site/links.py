"""Links of the repository's Markdown files, rewritten to links between pages of the site."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator

# Files that are pages of the site under another path: path in the repository -> path in the site.
INCLUDED = {
    "README.md": "overview.md",
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "docs/tutorial.ipynb": "tutorial.md",
    "manifests/README.md": "manifests.md",
    "pipelines/README.md": "pipelines.md",
    "shards/README.md": "shards.md",
}
# Other files that pages link to are copied to this folder of the site.
FILES = "files"

_LINK = re.compile(r"(\]\()([^)\s]+)(\))")
_CODE = re.compile(r"(^```.*?^```[^\n]*$|`[^`\n]*`)", re.MULTILINE | re.DOTALL)
_ADDRESS = re.compile(r"[a-z]+:")


def targets(text: str, source: str) -> Iterator[str]:
    """Paths in the repository that a Markdown file links to; `source` is its own path there."""
    for part in _prose(text):
        for match in _LINK.finditer(part):
            path = match[2].partition("#")[0]
            if path and not _ADDRESS.match(path):
                yield _resolve(path, source)


def site_path(path: str) -> str:
    """Where the site holds a file of the repository."""
    if path in INCLUDED:
        return INCLUDED[path]
    return path.removeprefix("docs/") if path.startswith("docs/") else f"{FILES}/{path}"


def rewrite(text: str, source: str, page: str) -> str:
    """The text with relative links that hold in the site; `page` is the path of the page there."""

    def link(match: re.Match[str]) -> str:
        path, hash_sign, anchor = match[2].partition("#")
        if not path or _ADDRESS.match(path):
            return match[0]
        target = site_path(_resolve(path, source))
        relative = posixpath.relpath(target, posixpath.dirname(page) or ".")
        return f"{match[1]}{relative}{hash_sign}{anchor}{match[3]}"

    return _map_prose(text, lambda part: _LINK.sub(link, part))


def _resolve(path: str, source: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), path))


def _prose(text: str) -> list[str]:
    """The parts of a text outside of code."""
    return _CODE.split(text)[::2]


def _map_prose(text: str, change: Callable[[str], str]) -> str:
    parts = _CODE.split(text)
    parts[::2] = [change(part) for part in parts[::2]]
    return "".join(parts)
