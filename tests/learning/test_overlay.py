"""People drawn over their photos."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prediction_runs import crops_of

from skelfit.learning.inference.intrinsics import of_view
from skelfit.learning.inference.overlay import OverlayPainter
from skelfit.learning.inference.people_pictures import PeoplePictures
from skelfit.learning.inference.person_boxes import whole_photo
from skelfit.learning.inference.photo_results import OK, BoxResult, PhotoFile, PhotoResult
from skelfit.learning.inference.photos import PhotoSettings
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.inference.upright_image import shrunk


@pytest.fixture
def squares() -> Iterator[tuple[OverlayPainter, Any]]:
    """A painter of squares, and what makes one about (x, 0) at a depth: it looks at the camera."""
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    corners = np.array([[-1, -1, 0], [-1, 1, 0], [1, 1, 0], [1, -1, 0]], np.float32)
    yield OverlayPainter(faces, 4), lambda x, z: corners * 0.5 + np.array([x, 0, z], np.float32)


def test_the_nearest_person_is_drawn_in_front(squares: tuple[OverlayPainter, Any]) -> None:
    painter, square = squares
    camera = np.array([[50, 0, 50], [0, 50, 50], [0, 0, 1]], np.float32)
    black, no_joints = np.zeros((100, 100, 3), np.uint8), np.zeros((24, 3), np.float32)

    def draw(*skins: np.ndarray) -> np.ndarray:
        count = len(skins)
        return np.asarray(painter.draw(black, (100, 100), skins, [camera] * count, [no_joints] * count), int)

    near, far = square(0, 1), square(0.5, 2)
    first, second = draw(near), draw(square(9, 1), far)
    assert (first[26:74, 26:74] > 0).all() and first[:24].max() == 0 and first[:, 77:].max() == 0
    both, reversed_order = draw(near, far), draw(far, near)
    assert (both[40:60, 30:70] == first[40:60, 30:70]).all() and (both[50, 76:] == second[50, 76:]).all()
    assert (reversed_order[50, 30:70].sum(1) != reversed_order[50, 76].sum()).all()
    assert draw(square(0, -1)).max() == 0 and draw(square(0, 0.05)).max() == 0
    tall = painter.draw(shrunk(Image.new("RGB", (1000, 3000))), (1000, 3000), [near], [camera])
    assert tall.size == (427, 1280)
    drawn = np.asarray(tall)  # of a square from 25 to 75 px
    assert drawn[15:28, 15:28].min() > 0 and drawn[40:].max() == 0 and drawn[:, 40:].max() == 0


def test_people_are_drawn_at_their_position_in_a_crop(predictor: Predictor, photos: Path) -> None:
    """As in the whole picture, of which the crop is the middle at twice the size."""
    people = predictor(crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[:1])
    ahead = np.array([[0, 0, 3]], np.float32)
    people = predictor.posed(people.skel_poses, people.skel_betas, ahead, people.cam_int)
    box = BoxResult("a.jpg", 0, OK)
    black = np.zeros((256, 256, 3), np.uint8)
    whole_result = PhotoResult(PhotoFile(Path("a.jpg"), "a"), (box,), (256, 256), black, people=people)
    affine = np.array([[2, 0, -128], [0, 2, -128]], np.float32)
    for bones, panels in ((False, 1), (True, 2)):
        pictures = PeoplePictures(predictor, bones=bones)
        whole, crop = (
            pictures.overlay(each) for each in (whole_result, replace(whole_result, affine=affine))
        )
        assert whole.size == crop.size == (panels * 256, 256)
        for left in range(0, panels * 256, 256):
            middle = whole.crop((left + 64, 64, left + 192, 192)).resize((256, 256))
            one, other = (
                np.asarray(each).any(-1) for each in (middle, crop.crop((left, 0, left + 256, 256)))
            )
            assert 0.03 < other.mean() < 0.9 and (one == other).mean() > 0.95
    skin, bones_alone = (np.asarray(whole.crop((x, 0, x + 256, 256))).any(-1) for x in (0, 256))
    assert (
        0.1 < bones_alone.sum() / skin.sum() < 0.9 and (bones_alone & ~skin).sum() / bones_alone.sum() < 0.1
    )
