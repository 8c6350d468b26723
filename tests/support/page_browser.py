"""The page of `skelfit verify` in a real browser, and what is embedded in it."""

from __future__ import annotations

import io
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Pixels = NDArray[np.int64]


def embedded(page: str, name: str) -> str:
    """The content of a script element of the page."""
    match = re.search(rf'<script type="[^"]*" id="{name}">(.*?)</script>', page, re.S)
    assert match
    return match[1]


class OpenedPage:
    """The page in a browser, with its errors and requests."""

    def __init__(self, browser: Any, path: Path, width: int, height: int) -> None:
        self.faults: list[str] = []
        self.page = browser.new_page(viewport={"width": width, "height": height})
        self.page.on("console", lambda message: self.faults.append(f"{message.type}: {message.text}"))
        self.page.on("pageerror", lambda error: self.faults.append(str(error)))
        self.page.on("request", lambda request: self._note(request.url, path.as_uri()))
        self.page.goto(path.as_uri())
        self.page.wait_for_selector("body[data-ready=yes]")

    def _note(self, url: str, own: str) -> None:
        if url != own and not url.startswith("data:"):
            self.faults.append(f"request: {url}")

    def picture(self, selector: str) -> Pixels:
        """The pixels of an element (H,W,3), once they no longer change."""
        pixels = self._pixels(selector)
        while True:
            self.page.wait_for_timeout(200)
            before, pixels = pixels, self._pixels(selector)
            if (before == pixels).all():
                return pixels

    def picture_other_than(self, before: Pixels, selector: str, share: float) -> Pixels:
        """The same, once more than a share of its pixels differ clearly: a busy machine draws late."""
        deadline = time.monotonic() + 60
        while changed(before, pixels := self.picture(selector)) <= share:
            assert time.monotonic() < deadline, f"{selector} does not change"
        return pixels

    def _pixels(self, selector: str) -> Pixels:
        return np.asarray(
            Image.open(io.BytesIO(self.page.locator(selector).screenshot())).convert("RGB"), int
        )

    def drag(self, selector: str, across: int, down: int) -> None:
        """Drag the pointer across an element, by so many pixels."""
        self.page.locator(selector).scroll_into_view_if_needed()
        box = self.page.locator(selector).bounding_box()
        x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
        self.page.mouse.move(x, y)
        self.page.mouse.down()
        self.page.mouse.move(x + across, y + down, steps=4)
        self.page.mouse.up()


def changed(before: Pixels, after: Pixels) -> float:
    """The share of the pixels that differ clearly."""
    return float((np.abs(before - after).max(-1) > 12).mean())
