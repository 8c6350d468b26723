"""One picture of people in two folders of shards: photos, each with both skeletons and the keypoints of the label."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from skelfit.bodies.model_set import ModelSet
from skelfit.storage.locations import Location
from skelfit.verification.report.before_and_after import figures_of, other_people, tar_of
from skelfit.verification.report.gallery import (
    Array,
    PersonDrawer,
    PersonDrawing,
    PersonPhoto,
    draw_people,
    skeleton_lines,
)

MOST, _COLUMNS = 8, 4  # people, and how many in a row of the picture
_SIDE, _LINE, _GAP = 300, 16, 6  # px: of the square of a person, of a line of text, between people
_AGAINST, _THIS, _GIVEN = (255, 93, 143), (255, 243, 196), (58, 214, 197)
_DARK = (28, 30, 36)
_CRITERIA = ("refined_gain", "refined_moved_mm")  # who is shown first


def draw_pairs(
    report: Mapping[str, Any], folders: Sequence[Location], against: Location, models: ModelSet
) -> bytes | None:
    """A JPEG of people of a report who are other in `against`; None where none of them has a photo.

    Those who came nearest to their keypoints in a refinement are first, then those who moved most.
    """
    worst = report.get("worst", ())
    first = chain.from_iterable([p for p in worst if name in p["worst_by"]] for name in _CRITERIA)
    people = {person["key"]: person for person in (*first, *worst)}
    before = other_people(people.values(), folders, against)
    wanted = [(tar_of(folders, p["shard"]), key) for key, p in people.items() if key in before]
    drawn = draw_people(wanted, PersonDrawer(models), lambda *_: None, before)
    shown = [one for one in drawn if one.photo is not None and one.photo.before is not None][:MOST]
    if not shown:
        return None
    figures = figures_of({one.key: before[one.key] for one in shown}, models)
    tiles = [_tile(one, figures.get(one.key), people[one.key]["metrics"]) for one in shown]
    columns = min(_COLUMNS, len(tiles))
    width, height = tiles[0].width + _GAP, tiles[0].height + _GAP
    sheet = Image.new("RGB", (columns * width, -(-len(tiles) // columns) * height), "white")
    for k, tile in enumerate(tiles):
        sheet.paste(tile, (k % columns * width, k // columns * height))
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _tile(one: PersonDrawing, before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> Image.Image:
    """A person: two lines of text above the photo."""
    tile = Image.new("RGB", (_SIDE, _SIDE + 2 * _LINE), "white")
    assert one.photo is not None
    tile.paste(_photo(one.photo), (0, 2 * _LINE))
    draw = ImageDraw.Draw(tile)
    draw.text((2, 1), one.key, fill="black")
    if before is not None and None not in (before["skel_px"], now["skel_px"]):
        px = f"keypoints {before['skel_px']:.1f} -> {now['skel_px']:.1f} px"
        limits = f"beyond a limit {before['violation_deg']:.1f} -> {now['violation_deg']:.1f} deg"
        draw.text((2, _LINE), f"{px}, {limits}", fill=(90, 90, 90))
    return tile


def _photo(photo: PersonPhoto) -> Image.Image:
    """The photo in a square, with keypoints and both skeletons."""
    picture = Image.open(io.BytesIO(photo.jpeg)).convert("RGB")
    scale = _SIDE / max(picture.size)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    square = Image.new("RGB", (_SIDE, _SIDE), "white")
    square.paste(picture.resize(size, Image.Resampling.LANCZOS), (0, 0))
    draw = ImageDraw.Draw(square)
    for x, y in np.round(photo.keypoints * scale, 1).tolist():
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=_GIVEN, outline=_DARK)
    assert photo.before is not None
    for joints, colour in ((photo.before, _AGAINST), (photo.joints, _THIS)):
        _draw_skeleton(draw, joints * scale, colour)
    return square


def _draw_skeleton(draw: ImageDraw.ImageDraw, joints: Array, colour: tuple[int, int, int]) -> None:
    lines = skeleton_lines(joints)
    for width, ink in ((5, _DARK), (3, colour)):
        for line in lines:
            draw.line(line, fill=ink, width=width)
