"""A page of skelfit as a picture, by a Chromium without a window.

    python -m tools.gallery.page_picture walk.html --part '#top' --part '#people' --out verify.jpg

needs Playwright, which is among the tests' packages, and a Chromium: on the path, or named by SKELFIT_CHROMIUM.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

WIDTH = 1280  # px, of the page
_GAP = 20  # px of the page between parts
_SCALE = 1.15  # px of the picture in one of the page


def find_chromium() -> str | None:
    """The program, or None."""
    return os.environ.get("SKELFIT_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")


def page_picture(page: Path, chromium: str, parts: Sequence[str]) -> Image.Image:
    """Parts of a page (selectors of CSS), one below the other, once they are drawn."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": 1400}, device_scale_factor=_SCALE)
        view.goto(page.resolve().as_uri())
        view.wait_for_selector("body[data-ready=yes]")
        taken = [_settled(view, part) for part in parts]
        ground = view.evaluate("getComputedStyle(document.body).backgroundColor")
        browser.close()
    gap = round(_GAP * _SCALE)
    width = max(picture.width for picture in taken) + 2 * gap
    height = sum(picture.height + gap for picture in taken) + gap
    sheet = Image.new("RGB", (width, height), ground)
    top = gap
    for picture in taken:
        sheet.paste(picture, ((width - picture.width) // 2, top))
        top += picture.height + gap
    return sheet


def _settled(view: Any, part: str) -> Image.Image:
    """A part of the page, once it no longer changes."""
    before, now = b"", view.locator(part).first.screenshot()
    while now != before:
        view.wait_for_timeout(300)
        before, now = now, view.locator(part).first.screenshot()
    return Image.open(io.BytesIO(now)).convert("RGB")


def main(words: Sequence[str] | None = None) -> None:
    """Take the picture of a page."""
    about = (__doc__ or "").split("\n")[0]
    parser = argparse.ArgumentParser(prog="python -m tools.gallery.page_picture", description=about)
    parser.add_argument("page", type=Path)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a JPEG")
    parser.add_argument(
        "--part",
        action="append",
        metavar="SELECTOR",
        help="of CSS; may be given several times (default: all of it)",
    )
    given = parser.parse_args(words)
    chromium = find_chromium()
    if chromium is None:
        parser.error("no Chromium here: install one, or name it in SKELFIT_CHROMIUM")
    page_picture(given.page, chromium, given.part or ["body"]).save(given.out, quality=82, optimize=True)


if __name__ == "__main__":
    main()
