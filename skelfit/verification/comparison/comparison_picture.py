"""One picture of the people who differ most: the skins of both sides, and both overlaid."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from skelfit.bodies.rasterizer import faces_of_vertices, rasterise, vertex_normals
from skelfit.verification.comparison.tally import ComparedPerson
from skelfit.verification.report.gallery import to_view

Array = NDArray[np.float32]
_SIZE, _LINE = 240, 30  # px: side of the square of a body, and height of the text above it
_FINE = 2  # supersampling, for smooth edges
_COLUMNS = 2  # people in a row of the picture
_MARGIN = 1.1  # of the square, in longest sides of the two bodies
_COLOURS = (np.array([92, 138, 190], np.float32), np.array([226, 140, 84], np.float32))  # shards, file
_LIGHT = np.array([0.3, 0.5, 0.8], np.float32) / np.float32(np.sqrt(0.98))
_TITLES = ("shards", "file", "both, pelvis on pelvis")


def draw_worst(people: Sequence[ComparedPerson], faces: NDArray[np.int32]) -> bytes:
    """A JPEG of these people; faces (F,3) of the skin."""
    tiles = [_person(person, faces, faces_of_vertices(faces, len(person.skins[0]))) for person in people]
    tiles += [np.full_like(tiles[0], 255)] * (-len(tiles) % _COLUMNS)
    lines = [np.concatenate(tiles[i : i + _COLUMNS], 1) for i in range(0, len(tiles), _COLUMNS)]
    stream = io.BytesIO()
    Image.fromarray(np.concatenate(lines)).save(stream, "JPEG", quality=85)
    return stream.getvalue()


def _person(person: ComparedPerson, faces: NDArray[np.int32], faces_of: Array) -> NDArray[np.uint8]:
    """The tile of a person: three squares and two lines of text."""
    turn = to_view(person.coordinates).astype(np.float32)
    skins = [skin @ turn.T for skin in person.skins]
    points = np.concatenate(skins)[:, :2]
    middle = (points.min(0) + points.max(0)) / 2
    scale = _SIZE * _FINE / (_MARGIN * max(float(np.ptp(points, axis=0).max()), 1e-6))
    drawn = [_skin(skin, middle, scale, faces, faces_of, c) for skin, c in zip(skins, _COLOURS, strict=True)]
    squares = [_on_white(*one) for one in drawn] + [_mixed(*drawn)]
    small = [s.reshape(_SIZE, _FINE, _SIZE, _FINE, 3).mean((1, 3)) for s in squares]
    body = np.rint(np.concatenate(small, 1)).clip(0, 255).astype(np.uint8)
    head = Image.new("RGB", (body.shape[1], _LINE), "white")
    draw, content = ImageDraw.Draw(head), person.content
    skin, joint = content["skin_mm"]["roots_together"], content["turned_joint"]
    draw.text(
        (6, 2), f"{person.key}: skin {skin:.1f} mm, {joint} {content['turned_deg']:.0f} deg", fill="black"
    )
    for k, title in enumerate(_TITLES):
        draw.text((6 + k * _SIZE, 16), title, fill=(90, 90, 90))
    return np.concatenate([np.asarray(head), body])


def _skin(
    skin: Array, middle: Array, scale: float, faces: NDArray[np.int32], faces_of: Array, colour: Array
) -> tuple[Array, Array]:
    """Colours (S,S,3) and depth (S,S) of a skin (V,3) m, x right, y up, z towards the viewer."""
    side = _SIZE * _FINE
    bright = 0.25 + 0.8 * (vertex_normals(skin, faces, faces_of) @ _LIGHT * np.float32(0.5) + np.float32(0.5))
    pixels = ((skin[:, :2] - middle) * (scale, -scale) + side / 2).astype(np.float32)
    return rasterise(pixels, -skin[:, 2], faces, colour * bright[:, None], (side, side))


def _on_white(colours: Array, depth: Array) -> Array:
    return np.where(np.isfinite(depth)[..., None], colours, np.float32(255))


def _mixed(one: tuple[Array, Array], other: tuple[Array, Array]) -> Array:
    """Both skins overlaid; where they overlap, the mean of their colours."""
    both = np.isfinite(one[1]) & np.isfinite(other[1])
    mean = (one[0] + other[0]) / 2
    either = np.where(np.isfinite(one[1])[..., None], _on_white(*one), _on_white(*other))
    return np.where(both[..., None], mean, either)
