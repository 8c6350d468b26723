"""Boxes of people, from files of detectors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skelfit.errors import InputError
from skelfit.learning.inference.given_images import GivenImage
from skelfit.learning.inference.intrinsics import of_view
from skelfit.learning.inference.person_boxes import BoxFile, PersonBox, make_box
from skelfit.learning.inference.photo_results import PhotoFile
from skelfit.learning.inference.photos import PhotoSettings, prepare_photo
from skelfit.learning.inference.upright_image import upright_frame

NO_IMAGE = upright_frame(np.zeros((10, 10, 4), np.uint8))


@pytest.mark.parametrize(
    ("content", "expected", "unused"),
    [
        (
            [{"image_id": 42, "bbox": [1, 2, 3, 4], "category_id": 1, "score": 0.9}],
            [PersonBox(1, 2, 3, 4, 0.9)],
            0,
        ),
        ([{"image_id": "a/000000000042.jpg", "bbox": [1, 2, 3, 4]}], [PersonBox(1, 2, 3, 4)], 0),
        ([{"file_name": "000000000042.jpg", "bbox": [1, 2, 3, 4]}], [PersonBox(1, 2, 3, 4)], 0),
        ([{"image_id": 42, "bbox": [1, 2, 3, 4], "category_id": 17}], [], 0),
        ([{"image_id": 7, "bbox": [1, 2, 3, 4]}], [], 1),
        (
            {
                "images": [{"id": 7, "file_name": "000000000042.jpg"}, {"id": 0, "file_name": "x.jpg"}],
                "annotations": [{"image_id": 7, "bbox": [1, 2, 3, 4]}, {"image_id": 0, "bbox": [9, 9, 9, 9]}],
            },
            [PersonBox(1, 2, 3, 4)],
            1,
        ),
        (
            {"000000000042.jpg": [[1, 2, 3, 4], [5, 6, 7, 8, 0.3]]},
            [PersonBox(1, 2, 3, 4), PersonBox(5, 6, 7, 8, 0.3)],
            0,
        ),
        ({"b/000000000042.jpg": [[1, 2, 3, 4]]}, [], 1),
        ({"b/000000000042.jpg": [[9, 9, 9, 9]], "000000000042": [[1, 2, 3, 4]]}, [PersonBox(1, 2, 3, 4)], 1),
    ],
)
def test_boxes_of_a_file(content: Any, expected: list[PersonBox], unused: int, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    boxes = BoxFile(tmp_path / "boxes.json")
    assert list(boxes(Path("photos/a/000000000042.jpg"), NO_IMAGE)) == expected
    assert boxes.unused == unused


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "expected a list of detections"),
        ("3", "found int"),
        ("[7]", "'entry 0': expected a detection with image_id"),
        ('[{"bbox": [1, 2, 3, 4]}]', "'entry 0': expected a detection with image_id"),
        ('{"a.jpg": 3}', "'a.jpg': expected a list of boxes, found int"),
        ("[" * 100_000, "maximum recursion depth"),
        ('{"images": [3], "annotations": []}', "'images': expected an id and a file_name"),
    ],
)
def test_files_without_boxes_are_refused(content: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "boxes.json").write_text(content)
    with pytest.raises(InputError, match=message):
        BoxFile(tmp_path / "boxes.json")


@pytest.mark.parametrize("bbox", ["1234", [1, 2, 3, 10**400]])
def test_boxes_of_no_numbers(bbox: object) -> None:
    assert make_box(bbox).fault.startswith("expected x, y, width, height in px, found ")
    assert make_box([1, 2, 3, 4], None).fault.endswith("found [1, 2, 3, 4], score None")


def test_invalid_boxes(photos: Path, tmp_path: Path) -> None:
    bad = [
        [1, 2, 3],
        [1, 2, "x", 4],
        [1, 2, 0, 4],
        [1, 2, float("nan"), 4],
        None,
        [300, 0, 9, 9],
        [0, 0, 9999, 9999],
    ]
    content = {"000000000000.jpg": [*bad, [50, 50, 100, 100]]}
    (tmp_path / "boxes.json").write_text(json.dumps(content))
    settings = PhotoSettings(BoxFile(tmp_path / "boxes.json"), of_view(60))
    photo_result = prepare_photo(GivenImage(PhotoFile(photos / "000000000000.jpg", "a")), settings)
    assert [f.status for f in photo_result.boxes] == ["bad_box"] * 7 + ["ok"] and len(
        photo_result.inputs
    ) == 1
    assert "expected x, y, width, height in px, found [1, 2, 3]" in photo_result.boxes[0].reason
    assert "outside of the photo, whose size is 256 x 256 px" in photo_result.boxes[5].reason
    assert [f.person for f in photo_result.boxes] == list(range(8))
    json.dumps([asdict(f) for f in photo_result.boxes], allow_nan=False)
    (without,) = prepare_photo(GivenImage(PhotoFile(photos / "000000000001.jpg", "b")), settings).boxes
    assert without.status == "no_box" and without.person is None
