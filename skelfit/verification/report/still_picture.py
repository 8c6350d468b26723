"""One person as one picture: the label and the fit in the photo, the bones from the side, and the angles by name."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from skelfit.bodies.dofs import DOF_NAMES, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.shaded_surfaces import BONE, LABEL, SKIN, Array, Surface, draw_surfaces, make_room
from skelfit.verification.report.gallery import (
    PersonDrawer,
    PosableFigure,
    StoredPerson,
    photo_in_camera,
)

TURN_DEG = 90.0  # of the view from the side
_PANEL, _LINE = (480, 600), 46  # px: width and height of a view, height of a line of angles
_SKIN_OPACITY, _LABEL_OPACITY = 0.2, 0.4
_INK, _PALE, _TRACK = (34, 40, 49), (110, 118, 130), (222, 227, 233)
_RIGHT, _LEFT, _MIDDLE = (200, 85, 61), (40, 102, 110), (141, 127, 168)  # as in the pages' charts
_KEYPOINT = (255, 214, 64)
_MARGIN = 1.16  # of a view of the photo, in sizes of the person
# Shown below the views, in two columns; of an angle with sides, both.
_ANGLES = (
    (
        *("hip_flexion", "hip_adduction", "hip_rotation", "knee_angle"),
        *("ankle_angle", "subtalar_angle", "mtp_angle", "lumbar_extension"),
    ),
    (
        *("thorax_extension", "thorax_bending", "thorax_twist", "shoulder_x"),
        *("shoulder_y", "shoulder_z", "elbow_flexion", "pro_sup"),
    ),
)
_Colour = tuple[int, int, int]


@dataclass(frozen=True, eq=False)
class _Mesh:
    """A mesh in the viewer's coordinates."""

    vertices: NDArray[np.float64]  # (V,3) m
    faces: NDArray[np.int32]
    colour: _Colour
    opacity: float


@dataclass(frozen=True, eq=False)
class _Photo:
    """The part of a photo that a view shows."""

    pixels: Array  # (H,W,3) 0..255
    camera: Array  # (3,3) px, of the view
    keypoints: Array  # (K,2) px of the view, those of the label with a confidence above 0


def draw_still(key: str, sample: StoredPerson, models: ModelSet, turn_deg: float = TURN_DEG) -> bytes:
    """A JPEG of a person; turn_deg: of the last view, about the vertical. Raises ModelError.

    Without a photo, or without its camera, label and fit stand in a room as they face the viewer.
    """
    figure = PosableFigure(PersonDrawer(models), sample)
    posed = figure.pose(figure.stored)
    asset, photo = figure.model.asset, _photo(sample, figure.in_label(posed.skin))
    body = [
        _Mesh(posed.bones, asset.bone_faces, BONE, 1.0),
        _Mesh(posed.skin, asset.faces, SKIN, _SKIN_OPACITY),
    ]
    views = [_view(figure, body, posed.skin, photo), _room_view(body, posed.skin, turn_deg)]
    titles = ["SKEL: skin and bones", f"the same, turned by {turn_deg:g}\N{DEGREE SIGN}"]
    if figure.target is not None:
        label = [_Mesh(figure.target, asset.faces, LABEL, _LABEL_OPACITY)]
        views.insert(0, _view(figure, label, posed.skin, photo, keypoints=True))
        titles.insert(0, "the label: SMPL")
    row = Image.fromarray(np.rint(np.concatenate(views, 1)).clip(0, 255).astype(np.uint8))
    return _jpeg([_titles(titles), row, _angles(key, figure.stored, row.width)])


def _jpeg(pictures: list[Image.Image]) -> bytes:
    """Pictures of one width, one below the other."""
    sheet = Image.new("RGB", (pictures[0].width, sum(p.height for p in pictures)), "white")
    top = 0
    for picture in pictures:
        sheet.paste(picture, (0, top))
        top += picture.height
    stream = io.BytesIO()
    sheet.save(stream, "JPEG", quality=88, optimize=True)
    return stream.getvalue()


# The views.


def _view(
    figure: PosableFigure,
    meshes: list[_Mesh],
    around: NDArray[np.float64],
    photo: _Photo | None,
    keypoints: bool = False,
) -> Array:
    """Meshes in the photo, as its camera saw the person; without a photo as they face the viewer."""
    if photo is None:
        return _room_view(meshes, around, 0.0)
    surfaces = [
        Surface(figure.in_label(m.vertices).astype(np.float32), m.faces, m.colour, m.opacity) for m in meshes
    ]
    drawn = draw_surfaces(surfaces, photo.camera, photo.pixels)
    return _dotted(drawn, photo.keypoints) if keypoints else drawn


def _room_view(meshes: list[_Mesh], around: NDArray[np.float64], turn_deg: float) -> Array:
    room = make_room(around, _PANEL, turn_deg)
    return room.draw([Surface(room.placed(m.vertices), m.faces, m.colour, m.opacity) for m in meshes])


def _photo(sample: StoredPerson, skin: NDArray[np.float64]) -> _Photo | None:
    """The photo around a skin (V,3) m in the camera; None where there is none, or the person is not before it."""
    stored = photo_in_camera(sample)
    if stored is None or skin[:, 2].min() <= 0:
        return None
    picture, camera = stored
    projected = skin @ camera.T
    pixels = projected[:, :2] / projected[:, 2:]
    low, high = pixels.min(0), pixels.max(0)
    scale = float((np.array(_PANEL) / (_MARGIN * (high - low))).min())
    corner = (low + high) / 2 - np.array(_PANEL) / (2 * scale)
    # Beyond its edges the photo goes on as they are.
    whole = np.floor(corner).astype(int), np.ceil(corner + np.array(_PANEL) / scale).astype(int)
    across, down = (
        np.arange(a, b).clip(0, size - 1) for a, b, size in zip(*whole, picture.size, strict=True)
    )
    part = Image.fromarray(np.asarray(picture)[down[:, None], across])
    box = (*(corner - whole[0]), *(corner - whole[0] + np.array(_PANEL) / scale))
    drawn = part.resize(_PANEL, Image.Resampling.LANCZOS, box)
    to_view = np.array([[scale, 0, -scale * corner[0]], [0, scale, -scale * corner[1]], [0, 0, 1]])
    given, affine = sample.fields["gtkps"].astype(np.float64), np.asarray(sample.meta["affine"], np.float64)
    seen = given[given[:, 2] > 0, :2] @ affine[:, :2].T + affine[:, 2]
    keypoints = ((seen - corner) * scale).astype(np.float32)
    return _Photo(np.asarray(drawn, np.float32), (to_view @ camera).astype(np.float32), keypoints)


def _dotted(pixels: Array, points: Array) -> Array:
    picture = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture)
    for x, y in points.tolist():
        draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=_KEYPOINT, outline=_INK)
    return np.asarray(picture, np.float32)


def _titles(titles: Sequence[str]) -> Image.Image:
    """A line of text above each view."""
    line = Image.new("RGB", (_PANEL[0] * len(titles), _LINE), "white")
    for k, title in enumerate(titles):
        ImageDraw.Draw(line).text((k * _PANEL[0] + 24, 9), title, _INK, ImageFont.load_default(24))
    return line


# The angles.


def _angles(key: str, angles: NDArray[np.float32], width: int) -> Image.Image:
    """The main angles (46,) rad by name, in degrees, each on the range between its limits."""
    rows = max(map(len, _ANGLES))
    sheet = Image.new("RGB", (width, (rows + 1) * _LINE + 40), "white")
    draw, small = ImageDraw.Draw(sheet), ImageFont.load_default(22)
    draw.text((24, 18), key, _INK, ImageFont.load_default(26))
    x = 24 + draw.textlength(key, ImageFont.load_default(26)) + 40
    for name, colour in (("right", _RIGHT), ("left", _LEFT), ("middle", _MIDDLE)):
        _dot(draw, x, 34, colour)
        draw.text((x + 16, 21), name, _PALE, small)
        x += 60 + draw.textlength(name, small)
    draw.text((x, 21), "degrees; the line is the range of the joint", _PALE, small)
    column = width // len(_ANGLES)
    for k, names in enumerate(_ANGLES):
        for row, name in enumerate(names):
            _angle(draw, name, np.degrees(angles), k * column + 24, (row + 1) * _LINE + 42, column - 48)
    return sheet


def _angle(
    draw: ImageDraw.ImageDraw, name: str, degrees: NDArray[np.float32], x: float, y: float, width: float
) -> None:
    """A line: the name, a dot for each side on the range, and the numbers."""
    font = ImageFont.load_default(22)
    sides = _sides_of(name)
    limits = np.degrees(dof_limits())[[dof for dof, _ in sides]]
    low, high = limits[:, 0].min(), limits[:, 1].max()
    draw.text((x, y - 14), name.replace("_", " "), _INK, font)
    start, end = x + 0.33 * width, x + 0.73 * width
    draw.line((start, y, end, y), _TRACK, 6)
    zero = start + (end - start) * (0 - low) / (high - low)
    draw.line((zero, y - 9, zero, y + 9), _PALE, 2)
    for k, (dof, colour) in enumerate(sides):
        share = (float(degrees[dof]) - low) / (high - low)
        _dot(draw, start + (end - start) * min(max(share, -0.03), 1.03), y, colour)
        right = x + width - (len(sides) - 1 - k) * 0.13 * width
        draw.text((right, y - 14), f"{round(float(degrees[dof]))}\N{DEGREE SIGN}", colour, font, anchor="ra")


def _sides_of(name: str) -> list[tuple[int, _Colour]]:
    """The DoFs of an angle, and the colours of their sides: right and left, or the one in the middle."""
    if name in DOF_NAMES:
        return [(dof_index(name), _MIDDLE)]
    parts = name.split("_")
    sided = [
        "_".join([parts[0], side, *parts[1:]]) if parts[0] == "shoulder" else f"{name}_{side}"
        for side in "rl"
    ]
    return [(dof_index(sided[0]), _RIGHT), (dof_index(sided[1]), _LEFT)]


def _dot(draw: ImageDraw.ImageDraw, x: float, y: float, colour: _Colour) -> None:
    draw.ellipse((x - 9, y - 9, x + 9, y + 9), fill=colour, outline="white", width=2)
