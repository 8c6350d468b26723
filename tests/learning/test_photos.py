"""Photos: upright, cut to boxes, and named."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image
from prediction_runs import crops_of

from skelfit.learning.data.person_crops import square_around
from skelfit.learning.inference.given_images import find_images
from skelfit.learning.inference.intrinsics import of_view
from skelfit.learning.inference.person_boxes import PersonBox, whole_photo
from skelfit.learning.inference.photos import PhotoSettings


def test_photos_are_turned_upright(photos: Path, tmp_path: Path) -> None:
    """One that is stored lying on its side, as phones do it, is the same photo."""
    upright = Image.open(photos / "000000000000.jpg").convert("RGB").crop((0, 0, 200, 256))
    upright.save(tmp_path / "a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "b.png", exif=exif)
    with Image.open(tmp_path / "b.png") as stored:
        assert stored.size == (256, 200)
    one, other = crops_of(tmp_path, PhotoSettings(whole_photo, of_view(60)))
    assert one.square == other.square and one.camera == other.camera
    np.testing.assert_array_equal(one.pixels, other.pixels)


def test_the_square_is_that_of_labels() -> None:
    """A label's scale is 1.2 times the longer side of what is seen, for both sides of the box."""
    settings = PhotoSettings(whole_photo, of_view(60))
    assert settings.square(PersonBox(10, 20, 100, 200)) == square_around(60, 120, 240, 240, widen=False)
    assert replace(settings, widen=True).square(PersonBox(10, 20, 100, 200)).side == 320


def test_names_of_photos(photos: Path, tmp_path: Path) -> None:
    for name in ("a/x.jpg", "b/x.png", "b/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"")
    given = find_images([tmp_path, tmp_path / "a" / "x.jpg"])
    assert [(p.path.relative_to(tmp_path).as_posix(), p.name) for p in given.photos] == [
        ("a/x.jpg", "x"),
        ("b/x.png", "x-2"),
    ]
