"""The documentation site: it builds without a warning and without a network, and its words are plain."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, fields
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from compile_lock import WARM_UP
from job_fakes import FakeFitter, write_labels

import skelfit
from skelfit.cli import main
from skelfit.shards.label_vector import COORDINATES, META
from skelfit.shards.shard_reader import read_json
from skelfit.shards.shard_schema import ShardMarker, ShardRow
from tools.docs_site.comments import field_comments
from tools.docs_site.links import rewrite, targets
from tools.docs_site.reference import CONFIGURATIONS, commands, options_of, public_paths, sections
from tools.docs_site.summary_fields import SUMMARY
from tools.docs_site.wrap import wrap

ROOT = Path(__file__).parents[1]
NOTEBOOK = ROOT / "docs" / "tutorial.ipynb"
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/*.ipynb", "[!.]*/README.md", ".github/ISSUE_TEMPLATE/*.md")
    for path in ROOT.glob(pattern)
)
# Words that make a sentence old or hard to read; a sentence without them is plainer.
FORBIDDEN = re.compile(r"\b(?:nobody|whom|whoever|anew|mend(?:s|ed|ing)?)\b", re.IGNORECASE)
WIDTH = 100
# Elements that load something when a page is opened, and the attribute that says what.
LOADS = {"script": "src", "img": "src", "iframe": "src", "source": "src", "link": "href", "object": "data"}


class Loaded(HTMLParser):
    """Addresses of what a page loads by itself: scripts, styles, pictures, fonts."""

    def __init__(self) -> None:
        super().__init__()
        self.addresses: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        address = values.get(LOADS.get(tag, ""))
        if address and values.get("rel") not in ("canonical", "prev", "next"):
            self.addresses.append(address)


def from_elsewhere(page: str) -> list[str]:
    """What a page loads from the network."""
    parser = Loaded()
    parser.feed(page)
    return [address for address in parser.addresses if re.match(r"(?:https?:)?//", address)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site, built as `make docs` builds it; --quiet would hide warnings from --strict."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    folder = tmp_path_factory.mktemp("built") / "site"
    command = (sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder))
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, text=True, capture_output=True, timeout=200)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_the_site_has_its_pages(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    for name in (
        "index",
        "overview",
        "quickstart",
        "tutorial",
        "options",
        "glossary",
        "manifests",
        "shards",
        "changelog",
    ):
        assert f"{name}.html" in pages
    for name in ("cli", "python", "configuration", "formats"):
        assert f"reference/{name}.html" in pages
    assert "skelfit convert" in (site / "reference" / "cli.html").read_text()
    assert "FittedPeople" in (site / "reference" / "python.html").read_text()
    assert "data:image/png" in (site / "tutorial.html").read_text()


def test_the_site_needs_no_network(site: Path) -> None:
    pages = list(site.rglob("*.html"))
    assert len(pages) > 25
    assert {path.name: found for path in pages if (found := from_elsewhere(path.read_text()))} == {}
    styles = list(site.rglob("*.css"))
    loading = [
        path.name
        for path in styles
        if re.search(r"(?:url\(|@import)\s*[\"']?(?:https?:)?//", path.read_text())
    ]
    assert styles and loading == []


def test_the_search_works_from_disk_without_a_network(site: Path) -> None:
    api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    chromium = os.environ.get("SKELFIT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium here: install one, or name it in SKELFIT_CHROMIUM")
    requests: list[str] = []
    with api.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1250, "height": 900})
        page.on("request", lambda request: requests.append(request.url))
        page.goto((site / "index.html").as_uri())
        page.click("header .md-search__input")
        page.keyboard.type("glossary")
        page.wait_for_selector(".md-search-result__item a[href*='glossary.html']")
        browser.close()
    assert len(requests) > 5
    assert [url for url in requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_what_a_page_loads_is_told() -> None:
    page = '<a href="https://x.org"></a><script src="//x.org/a.js"></script><link rel="icon" href="a.png">'
    assert from_elsewhere(page) == ["//x.org/a.js"]


# The reference.


@pytest.mark.parametrize("title", CONFIGURATIONS)
def test_every_key_of_a_configuration_is_described(title: str) -> None:
    found = list(sections(CONFIGURATIONS[title][0]))
    assert len(found) > 4
    silent = [f"{s.path}.{key.name}" for s in found for key in s.keys if len(key.description) < 3]
    assert silent == [] and all(s.summary for s in found)


def test_every_option_and_command_is_described() -> None:
    everything = dict(commands())
    assert len(everything) > 12
    assert [name for name, command in everything.items() if not command.help] == []
    silent = [
        (name, o) for name, command in everything.items() for o, text in options_of(command) if not text
    ]
    assert silent == []


def test_every_field_of_the_formats_is_described() -> None:
    for cls in (ShardRow, ShardMarker):
        described = field_comments(cls)
        assert [field.name for field in fields(cls)] == list(described)
        assert [name for name, text in described.items() if not text] == []
    assert all((META | COORDINATES | SUMMARY).values())


def test_the_summary_has_the_documented_keys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skelfit.api.convert_dataset.make_fitter", lambda *_: FakeFitter(stages=3))
    labels = write_labels(tmp_path / "people.npz", 4)
    words = ["convert", "--labels", str(labels), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert CliRunner().invoke(main, words).exit_code == 0
    assert list(read_json(tmp_path / "out" / "summary.json")) == list(SUMMARY)


def test_the_python_reference_has_all_public_names() -> None:
    assert {*public_paths(), "__version__"} == set(skelfit.__all__)


def test_comments_of_fields() -> None:
    @dataclass
    class Example:
        """An example."""

        behind: int = 0  # a comment behind
        # A comment above
        # of two lines,
        above: tuple[int, ...] = (1, 2)  # and one behind
        silent: str = "# no comment"

    assert field_comments(Example) == {
        "behind": "a comment behind",
        "above": "A comment above of two lines, and one behind",
        "silent": "",
    }


def test_links_lead_to_pages_of_the_site() -> None:
    text = "[a](../shards/README.md#x) [b](images.md) `[c](d.md)` [e](../pipelines/a.yaml) [f](#g) [h](https://x.org)"
    expected = "[a](../shards.md#x) [b](../images.md) `[c](d.md)` [e](../files/pipelines/a.yaml) [f](#g) [h](https://x.org)"
    assert rewrite(text, "docs/page.md", "folder/page.md") == expected
    assert list(targets(text, "docs/page.md")) == ["shards/README.md", "docs/images.md", "pipelines/a.yaml"]


# The tutorial.


def test_the_tutorial_runs(tmp_path: Path) -> None:
    """In a program of its own, as a reader runs it."""
    pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    exec(WARM_UP)  # waits where another process of these tests compiles
    code = (
        "import json, sys, nbformat\nfrom nbclient import NotebookClient\n"
        f"notebook = nbformat.read({str(NOTEBOOK)!r}, as_version=4)\n"
        "NotebookClient(notebook, timeout=200, resources={'metadata': {'path': sys.argv[1]}}).execute()\n"
        "print(json.dumps(notebook.cells))"
    )
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {k: v for k, v in os.environ.items() if k != "SKELFIT_MODELS"} | {"PYTHONPATH": paths}
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, env=environment, text=True, capture_output=True,
        timeout=280,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    outputs = [output for cell in json.loads(done.stdout) for output in cell.get("outputs", [])]
    assert "(10,): 10 ok" in str(outputs) and "one shape: True" in str(outputs)
    assert sum("image/png" in output.get("data", {}) for output in outputs) == 2


def test_the_tutorial_is_stored_with_small_outputs() -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert len(code) > 6 and all(cell["outputs"] or cell is code[0] for cell in code)
    assert NOTEBOOK.stat().st_size < 200_000


# Words.


def prose(path: Path) -> str:
    """The text of a page, or of a notebook's cells of text."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        return "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    return text


def long_lines(text: str) -> Iterator[str]:
    """Lines that are too long, outside of code, formulas, tables and lines that a link or a comment fills."""
    plain = re.sub(r"^ *```.*?^ *```", "", text, flags=re.MULTILINE | re.DOTALL)
    for line in plain.splitlines():
        if len(line) >= WIDTH and not re.match(r"\s*\||    |!?\[|<!--", line):
            yield line


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def test_bad_words_and_long_lines_are_told() -> None:
    assert FORBIDDEN.findall("Nobody mends what commends whom.") == ["Nobody", "mends", "whom"]
    long = "word " * 30
    assert list(long_lines(f"short\n```\n{long}\n```\n| {long} |\n    {long}\n- {long}")) == [f"- {long}"]


def test_wrapping_changes_no_word_and_no_code() -> None:
    words = "word " * 30
    kept = f"   ```python\n   {words.strip()}\n   ```\n| {words}|\n\n"
    text = f"# T\n\n1. {words}\n   - {words}\n\n{kept}{words}`a b` c\n"
    wrapped = wrap(text)
    assert wrapped.split() == text.split() and list(long_lines(wrapped)) == []
    assert kept in wrapped and wrap(wrapped) == wrapped
    assert "\n   word" in wrapped and "\n     word" in wrapped and "`a b`" in wrapped


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_the_words_of_a_page(path: Path) -> None:
    text = prose(path)
    assert FORBIDDEN.findall(text) == []
    assert list(long_lines(text)) == [], "wrap it: python -m tools.docs_site.wrap FILE"
