"""Events of MkDocs (see `hooks` in mkdocs.yml): pages from the code, and links between all files.

The site holds docs/, the README files of other folders, and the reference, which is made from the code at each build.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

from tools.docs_site.links import INCLUDED, rewrite, site_path, targets
from tools.docs_site.notebook import notebook_page
from tools.docs_site.reference import reference_pages

ROOT = Path(__file__).parents[2]
_SOURCES = {page: source for source, page in INCLUDED.items()}


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Add the pages "how to add one" to the navigation, whichever there are."""
    pages = sorted(path.name for path in (ROOT / "docs").glob("how-to-add-*.md"))
    config.nav = [*(config.nav or []), {"Extend": pages}] if pages else config.nav
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that do not lie in docs/, and the files that pages link to."""
    for source, page in INCLUDED.items():
        files.append(File.generated(config, page, content=_text(ROOT / source)))
    for page, content in reference_pages().items():
        files.append(File.generated(config, page, content=content))
    for path in _linked_files(files):
        files.append(File.generated(config, site_path(path), abs_src_path=str(ROOT / path)))
    return files


def on_page_markdown(markdown: str, page: Page, **_: Any) -> str:
    """Rewrite the links of a page from those of the repository to those of the site."""
    return rewrite(markdown, _source(page.file.src_uri), page.file.src_uri)


def _text(path: Path) -> str:
    return notebook_page(path) if path.suffix == ".ipynb" else path.read_text(encoding="utf-8")


def _linked_files(files: Files) -> list[str]:
    """Files of the repository outside docs/ that pages link to."""
    linked = set()
    for file in files.documentation_pages():
        linked |= set(targets(file.content_string, _source(file.src_uri)))
    return sorted(
        p for p in linked if p not in INCLUDED and not p.startswith("docs/") and (ROOT / p).is_file()
    )


def _source(page: str) -> str:
    """The path in the repository of what a page of the site is made from."""
    return _SOURCES.get(page, f"docs/{page}")
