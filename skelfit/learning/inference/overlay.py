"""Pictures of people over their photo: the transparent skin, and the skeleton's joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from skelfit.bodies.dofs import SKEL_PARENTS
from skelfit.bodies.rasterizer import faces_of_vertices, rasterise, vertex_normals
from skelfit.images.decoding import to_rgb

Array = NDArray[np.float32]
LONGEST = 1280  # px of a picture's longer side; larger photos are made smaller
_SMOOTH = 640  # pictures up to this size are drawn at twice the size, for smooth edges
_NEAREST = 0.1  # m; faces that reach nearer to the camera, or behind it, are left out
_OPACITY = 0.6
_LIGHT = np.array([0.3, -0.5, -0.8], np.float32) / np.float32(np.sqrt(0.98))
_COLOURS = np.array(
    [[110, 170, 235], [240, 160, 90], [130, 205, 130], [225, 130, 180], [205, 190, 100], [160, 140, 225]],
    np.float32,
)


class OverlayPainter:
    """Draws bodies of one topology."""

    def __init__(self, faces: NDArray[np.int32], vertices: int) -> None:
        self._faces, self._faces_of = faces, faces_of_vertices(faces, vertices)

    def draw(
        self, photo: Image.Image, skins: Sequence[Array], joints: Sequence[Array], cam_int: Sequence[Array]
    ) -> Image.Image:
        """People over a photo, of its size or LONGEST px long: skins (V,3) and joints (24,3) m, cameras (3,3) px.

        Where people overlap, the nearest one shows.
        """
        scale = min(1.0, LONGEST / max(photo.size))
        size = (max(1, round(photo.width * scale)), max(1, round(photo.height * scale)))
        canvas = to_rgb(photo)
        canvas = canvas if size == photo.size else canvas.resize(size, Image.Resampling.LANCZOS)
        fine = 2 if max(size) <= _SMOOTH else 1
        stretch = np.array([size[0] / photo.width, size[1] / photo.height], np.float32)
        colours, depth = self._shaded_skins(skins, cam_int, stretch * fine, (size[1] * fine, size[0] * fine))
        alpha = _OPACITY * _halved(np.isfinite(depth)[..., None].astype(np.float32), fine)
        pixels = np.asarray(canvas, np.float32) * (1 - alpha) + _OPACITY * _halved(colours, fine)
        canvas = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
        for points, camera in zip(joints, cam_int, strict=True):
            if points[:, 2].min() > _NEAREST:
                _draw_skeleton(canvas, _projected(points, camera) * stretch)
        return canvas

    def _shaded_skins(
        self, skins: Sequence[Array], cam_int: Sequence[Array], stretch: Array, shape: tuple[int, int]
    ) -> tuple[Array, Array]:
        """Colours (*shape,3) of what is nearest, black where there is no person, and depth (*shape) m, inf there."""
        colours, nearest = np.zeros((*shape, 3), np.float32), np.full(shape, np.inf, np.float32)
        for i, (skin, camera) in enumerate(zip(skins, cam_int, strict=True)):
            normals = vertex_normals(skin, self._faces, self._faces_of)
            bright = 0.45 + 0.6 * (normals @ _LIGHT * np.float32(0.5) + np.float32(0.5))
            ahead = (skin[:, 2] > _NEAREST)[self._faces].all(1)
            points = _projected(np.maximum(skin, (-np.inf, -np.inf, _NEAREST), dtype=np.float32), camera)
            colour = _COLOURS[i % len(_COLOURS)] * bright[:, None]
            image, depth = rasterise(points * stretch, skin[:, 2], self._faces[ahead], colour, shape)
            nearer = depth < nearest
            colours[nearer], nearest[nearer] = image[nearer], depth[nearer]
        return colours, nearest


def _projected(points: Array, camera: Array) -> Array:
    """Points (N,2) px of points (N,3) m before a camera (3,3) px."""
    homogeneous: Array = points @ camera.T
    return homogeneous[:, :2] / homogeneous[:, 2:]


def _halved(image: Array, fine: int) -> Array:
    """Means of `fine` x `fine` pixels."""
    if fine == 1:
        return image
    rows = image[0::2] + image[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)


def _draw_skeleton(canvas: Image.Image, joints: Array) -> None:
    """Lines between joints (24,2) px, and a dot on each."""
    low, high = joints.min(0), joints.max(0)
    width = max(1, round(float((high - low).max()) / 120))
    draw = ImageDraw.Draw(canvas)
    for joint, parent in enumerate(SKEL_PARENTS):
        if parent >= 0:
            draw.line([*joints[parent].tolist(), *joints[joint].tolist()], (250, 250, 250), width)
    for x, y in joints.tolist():
        draw.ellipse([x - width, y - width, x + width, y + width], (200, 30, 40))
