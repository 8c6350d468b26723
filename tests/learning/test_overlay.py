"""People drawn over their photos."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from prediction_runs import crops_of

from skelfit.learning.inference.intrinsics import of_view
from skelfit.learning.inference.overlay import OverlayPainter
from skelfit.learning.inference.person_boxes import whole_photo
from skelfit.learning.inference.photos import (
    PhotoSettings,
)
from skelfit.learning.inference.prediction_files import PredictionOutputs, PredictionWriter
from skelfit.learning.inference.predictor import Predictor


@pytest.fixture
def squares() -> Iterator[tuple[OverlayPainter, Any]]:
    """A painter of squares, and what makes one about (x, 0) at a depth: it looks at the camera."""
    faces = np.array([[0, 1, 2], [0, 2, 3]], np.int32)
    corners = np.array([[-1, -1, 0], [-1, 1, 0], [1, 1, 0], [1, -1, 0]], np.float32)
    yield OverlayPainter(faces, 4), lambda x, z: corners * 0.5 + np.array([x, 0, z], np.float32)


def test_the_nearest_person_is_drawn_in_front(squares: tuple[OverlayPainter, Any]) -> None:
    painter, square = squares
    camera = np.array([[50, 0, 50], [0, 50, 50], [0, 0, 1]], np.float32)
    black, no_joints = Image.new("RGB", (100, 100)), np.zeros((24, 3), np.float32)

    def draw(*skins: np.ndarray) -> np.ndarray:
        count = len(skins)
        return np.asarray(painter.draw(black, skins, [no_joints] * count, [camera] * count), int)

    near, far = square(0, 1), square(0.5, 2)
    first, second = draw(near), draw(square(9, 1), far)
    assert (first[26:74, 26:74] > 0).all() and first[:24].max() == 0 and first[:, 77:].max() == 0
    both, reversed_order = draw(near, far), draw(far, near)
    assert (both[40:60, 30:70] == first[40:60, 30:70]).all() and (both[50, 76:] == second[50, 76:]).all()
    assert (reversed_order[50, 30:70].sum(1) != reversed_order[50, 76].sum()).all()
    assert draw(square(0, -1)).max() == 0 and draw(square(0, 0.05)).max() == 0
    tall = painter.draw(Image.new("RGB", (1000, 3000)), [near], [no_joints], [camera])
    assert tall.size == (427, 1280)


def test_people_are_drawn_at_their_position_in_a_crop(
    predictor: Predictor, photos: Path, tmp_path: Path
) -> None:
    """As in the whole picture, of which the crop is the middle at twice the size."""
    people = predictor(crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[:1])
    writer = PredictionWriter(tmp_path, False, PredictionOutputs(), predictor)
    whole = writer._draw(Image.new("RGB", (256, 256)), people, None).resize((512, 512))
    affine = np.array([[2, 0, -128], [0, 2, -128]], np.float32)
    crop = writer._draw(Image.new("RGB", (256, 256)), people, affine)
    one, other = (np.asarray(picture).any(-1) for picture in (whole.crop((128, 128, 384, 384)), crop))
    assert 0.1 < other.mean() < 0.9 and (one == other).mean() > 0.97
