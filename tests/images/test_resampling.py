"""Squares of images: as Pillow cuts them, wherever they lie and whatever the processor can do."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from PIL import Image

from skelfit.images import resampling
from skelfit.images.resampling import cut_square

cykooz_resizer: Any = pytest.importorskip(
    "cykooz_resizer", reason="no wheel for this machine: Pillow stands in"
)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """Rough at every scale, and bright at the edges."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 255, (12, 14, 4), dtype=np.uint8)).resize((140, 120))
    return np.clip(np.asarray(coarse) + rng.normal(0, 20, (120, 140, 4)), 0, 255).astype(np.uint8)


SQUARES = {
    "inside": (20.3, 10.8, 90.0, 64),
    "enlarged": (40.25, 50.5, 20.7, 64),
    "as it is": (30.0, 20.0, 64.0, 64),
    "over two edges": (-33.3, -20.1, 100.0, 48),
    "over the other edges": (77.7, 60.2, 150.0, 48),
    "around the image": (-100.0, -110.0, 350.5, 64),
    "much smaller": (3.0, 3.0, 110.0, 12),
}


def padded(photo: np.ndarray, left: float, top: float, side: float, size: int) -> np.ndarray:
    """The square from the whole image with a wide black margin, by Pillow."""
    margin = 700
    image = Image.fromarray(np.pad(photo[..., :3], ((margin, margin), (margin, margin), (0, 0))))
    x, y = left + margin, top + margin
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC, (x, y, x + side, y + side)), int)


@pytest.mark.parametrize("where", SQUARES)
def test_a_square_is_what_pillow_cuts_from_the_whole_image(where: str, photo: np.ndarray) -> None:
    """Only a part of the image is looked at, but all that the filter needs.

    Between their two passes they clip in another order, which shows at hard edges; and a pixel that the image does not
    reach is black here.
    """
    off = cut_square(photo, *SQUARES[where])[..., :3].astype(int) - padded(photo, *SQUARES[where])
    assert np.abs(off).max() <= 24 and np.abs(off).mean() < 0.3 and abs(off.mean()) < 0.1


@pytest.mark.parametrize("where", SQUARES)
def test_pillow_stands_in(where: str, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    usual = cut_square(photo, *SQUARES[where]).astype(int)
    monkeypatch.setattr(resampling, "_HAS_RESIZER", False)
    off = cut_square(photo, *SQUARES[where]).astype(int) - usual
    assert np.abs(off).max() <= 12 and np.abs(off).mean() < 0.3


@pytest.mark.parametrize("where", SQUARES)
def test_every_processor_gives_the_same_bytes(
    where: str, photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = cut_square(photo, *SQUARES[where])
    used = []

    def plain() -> Any:
        resizer = cykooz_resizer.Resizer()
        used.append(resizer.cpu_extensions)
        resizer.cpu_extensions = cykooz_resizer.CpuExtensions.none
        return resizer

    monkeypatch.setattr(resampling, "Resizer", plain)
    np.testing.assert_array_equal(cut_square(photo, *SQUARES[where]), usual)
    assert used


@pytest.mark.parametrize(
    ("left", "top", "side"),
    [(500.0, 10.0, 50.0), (10.0, -80.0, 60.0), (-1e9, 1e9, 10.0), (140.0, 0.0, 5.0), (-5.0, 0.0, 5.0)],
)
def test_a_square_beside_the_image_is_black(left: float, top: float, side: float, photo: np.ndarray) -> None:
    assert not cut_square(photo, left, top, side, 16)[..., :3].any()


def test_a_huge_square_costs_no_more_than_the_image(
    photo: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The box of a wrong label may be a million pixels wide: nothing of that size is made."""
    made, usual = [], resampling._region

    def region(*corners: Any) -> np.ndarray:
        made.append(usual(*corners).size)
        return usual(*corners)

    monkeypatch.setattr(resampling, "_region", region)
    for side in (500.0, 1200.0, 5000.0, 1e6, 1e12):
        square = cut_square(photo, -side / 2, -side / 2, side, 64)[..., :3]
        assert square.any() == (side <= 1200), side
    assert max(made) < 3 * photo.size


@pytest.mark.parametrize("side", [math.nan, math.inf, 0.0])
def test_no_square_is_an_error(side: float, photo: np.ndarray) -> None:
    with pytest.raises(ValueError, match="expected a square"):
        cut_square(photo, 0.0, 0.0, side, 16)
