"""Where people are in photos: boxes that a detector found, or the photo as a whole."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from skelfit.errors import InputError
from skelfit.storage.path_checks import require_regular_file

_PERSON = 1  # COCO's category
_EXPECTED = (
    "a list of detections, COCO annotations, or names of photos with boxes (x, y, width, height in px)"
)


class Box(NamedTuple):
    """A person's box, px of the upright photo; `fault` says why it is none."""

    x: float  # its left side
    y: float  # its top
    width: float
    height: float
    score: float = 1.0
    fault: str = ""


class FindBoxes(Protocol):
    """The boxes of a photo, given its path and its size (width, height) px."""

    def __call__(self, path: Path, size: tuple[int, int], /) -> Sequence[Box]: ...


def whole_photo(_: Path, size: tuple[int, int]) -> Sequence[Box]:
    """One box, of all that is to be seen."""
    width, height = size
    return (Box(0.0, 0.0, width, height),)


class BoxFile:
    """The boxes of a file, by photo."""

    def __init__(self, path: Path) -> None:
        """Raises InputError."""
        require_regular_file(path, _EXPECTED, InputError)
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            raise InputError(path, None, _EXPECTED, "no such file") from None
        except (OSError, ValueError) as error:
            raise InputError(path, None, _EXPECTED, str(error)) from None
        self._by_name: dict[str, list[Box]] = {}
        for name, box in _entries(content, path):
            self._by_name.setdefault(name, [])
            if box is not None:
                self._by_name[name].append(box)
        self._used: set[str] = set()

    def __call__(self, path: Path, _: tuple[int, int]) -> Sequence[Box]:
        """Those of the entry that names most of the path; else of its stem, or the number that its stem ends with."""
        for name in _names_of(path):
            if name in self._by_name:
                self._used.add(name)
                return self._by_name[name]
        return ()

    @property
    def left(self) -> int:
        """How many boxes are of photos that nobody asked for so far."""
        return sum(len(boxes) for name, boxes in self._by_name.items() if name not in self._used)


def _names_of(path: Path) -> Iterable[str]:
    """What a file may call a photo, from the most exact on."""
    parts = path.absolute().parts[1:]
    yield path.as_posix()
    yield from ("/".join(parts[i:]) for i in range(len(parts)))
    yield path.stem
    if number := re.search(r"\d+$", path.stem):
        yield str(int(number[0]))


def _entries(content: Any, path: Path) -> Iterable[tuple[str, Box | None]]:
    """Names of photos, each with a box; None for one that has none."""
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
            yield from ((name, _box(box)) for box in boxes)
    else:
        raise InputError(path, None, _EXPECTED, type(content).__name__)


def _detections(found: Any, names: Mapping[Any, str], path: Path) -> Iterable[tuple[str, Box | None]]:
    if not isinstance(found, list):
        raise InputError(path, "annotations", "a list", type(found).__name__)
    for i, one in enumerate(found):
        photo = (one.get("file_name") or one.get("image_id")) if isinstance(one, dict) else None
        if not isinstance(photo, str | int):
            expected = "a detection with image_id (or file_name) and bbox"
            raise InputError(path, f"entry {i}", expected, str(one)[:80])
        name = names.get(photo, str(photo))
        if one.get("category_id", _PERSON) == _PERSON:
            yield name, _box(one.get("bbox"), one.get("score", 1.0))
        else:
            yield name, None


def _box(values: Any, score: Any = 1.0) -> Box:
    """A box of x, y, width, height and perhaps a score."""
    try:
        numbers = [float(value) for value in values]
        if len(numbers) == 4:
            numbers.append(float(score))
        x, y, width, height, likely = numbers
        if all(map(math.isfinite, numbers)) and min(width, height) > 0:
            return Box(x, y, width, height, likely)
    except (TypeError, ValueError):
        pass
    fault = f"expected x, y, width, height in px, found {str(values)[:80]}"
    return Box(math.nan, math.nan, math.nan, math.nan, 0.0, fault)
