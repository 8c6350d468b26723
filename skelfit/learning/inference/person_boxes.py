"""The boxes of people in photos: a detector's, or the whole photo."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from skelfit.errors import InputError
from skelfit.learning.inference.upright_image import UprightImage
from skelfit.storage.path_checks import require_regular_file

_PERSON = 1  # COCO's category
_EXPECTED = (
    "a list of detections, COCO annotations, or names of photos with boxes (x, y, width, height in px)"
)


class PersonBox(NamedTuple):
    """A person's box, px of the upright photo; `fault` says why it cannot be used."""

    x: float  # its left side
    y: float  # its top
    width: float
    height: float
    score: float = 1.0
    fault: str = ""


class FindBoxes(Protocol):
    """The boxes of a photo, given its path and its upright image."""

    def __call__(self, path: Path, image: UprightImage, /) -> Sequence[PersonBox]: ...


def whole_photo(_: Path, image: UprightImage) -> Sequence[PersonBox]:
    """One box: the whole photo."""
    width, height = image.size
    return (PersonBox(0.0, 0.0, width, height),)


class BoxFile:
    """The boxes of a file, by photo."""

    def __init__(self, path: Path) -> None:
        """Raises InputError."""
        require_regular_file(path, _EXPECTED, InputError)
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise InputError(path, None, _EXPECTED, "no such file") from None
        except (OSError, ValueError, RecursionError) as error:  # the last: lists in lists, thousands deep
            raise InputError(path, None, _EXPECTED, str(error)) from None
        self._by_name: dict[str, list[PersonBox]] = {}
        for name, box in _entries(content, path):
            self._by_name.setdefault(name, [])
            if box is not None:
                self._by_name[name].append(box)
        self._used: set[str] = set()

    def __call__(self, path: Path, _: UprightImage) -> Sequence[PersonBox]:
        """Boxes of the entry that matches most of the path; else its stem, or the number at the end of its stem."""
        for name in _names_of(path):
            if name in self._by_name:
                self._used.add(name)
                return self._by_name[name]
        return ()

    @property
    def unused(self) -> int:
        """How many boxes are of photos that were not asked for so far."""
        return sum(len(boxes) for name, boxes in self._by_name.items() if name not in self._used)


def _names_of(path: Path) -> Iterable[str]:
    """The names that a file may have for a photo, the most exact first."""
    parts = path.absolute().parts[1:]
    yield path.as_posix()
    yield from ("/".join(parts[i:]) for i in range(len(parts)))
    yield path.stem
    if number := re.search(r"\d+$", path.stem):
        yield str(int(number[0]))


def _entries(content: Any, path: Path) -> Iterable[tuple[str, PersonBox | None]]:
    """Names of photos, each with a box; None for a photo without one."""
    if isinstance(content, list):
        yield from _detections(content, {}, path)
    elif isinstance(content, dict) and {"images", "annotations"} <= content.keys():
        try:
            names = {image["id"]: str(image["file_name"]) for image in content["images"]}
        except (TypeError, KeyError) as error:
            raise InputError(path, "images", "an id and a file_name of each", repr(error)) from None
        yield from ((name, None) for name in names.values())
        yield from _detections(content["annotations"], names, path)
    elif isinstance(content, dict):
        for name, boxes in content.items():
            if not isinstance(boxes, list):
                raise InputError(path, name, "a list of boxes", type(boxes).__name__)
            yield name, None
            yield from ((name, make_box(box)) for box in boxes)
    else:
        raise InputError(path, None, _EXPECTED, type(content).__name__)


def _detections(
    detections: Any, names: Mapping[Any, str], path: Path
) -> Iterable[tuple[str, PersonBox | None]]:
    if not isinstance(detections, list):
        raise InputError(path, "annotations", "a list", type(detections).__name__)
    for i, entry in enumerate(detections):
        photo = (entry.get("file_name") or entry.get("image_id")) if isinstance(entry, dict) else None
        if not isinstance(photo, str | int):
            expected = "a detection with image_id (or file_name) and bbox"
            raise InputError(path, f"entry {i}", expected, str(entry)[:80])
        name = names.get(photo, str(photo))
        if entry.get("category_id", _PERSON) == _PERSON:
            yield name, make_box(entry.get("bbox"), entry.get("score", 1.0))
        else:
            yield name, None


def make_box(content: Any, score: Any = 1.0) -> PersonBox:
    """A box of x, y, width, height and perhaps a score."""
    try:
        numbers = [] if isinstance(content, str) else [float(number) for number in content]
        if len(numbers) == 4:
            numbers.append(float(score))
        x, y, width, height, confidence = numbers
        if all(map(math.isfinite, numbers)) and min(width, height) > 0:
            return PersonBox(x, y, width, height, confidence)
    except (TypeError, ValueError, OverflowError):
        pass
    fault = f"expected x, y, width, height in px, found {str(content)[:80]}"
    if score != 1.0:
        fault += f", score {str(score)[:20]}"
    return PersonBox(math.nan, math.nan, math.nan, math.nan, 0.0, fault)
