"""People drawn over their photo: transparent meshes, and the skeleton's joints."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from skelfit.bodies.dofs import SKEL_PARENTS
from skelfit.bodies.rasterizer import faces_of_vertices, rasterise, vertex_normals
from skelfit.learning.inference.upright_image import Picture

Array = NDArray[np.float32]
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
        self,
        picture: Picture,
        size: tuple[int, int],
        meshes: Sequence[Array],
        cam_int: Sequence[Array],
        joints: Sequence[Array] = (),
        numbers: Sequence[int] | None = None,
    ) -> Image.Image:
        """People over a picture (h,w,3): meshes (V,3) m, their cameras (3,3) px, and perhaps joints (24,3) m.

        size: width and height px of the photo that the cameras refer to; numbers: of which colour each person is.
        Where people overlap, the nearest one shows.
        """
        if not len(meshes):
            return Image.fromarray(picture)
        height, width = picture.shape[:2]
        numbers = range(len(meshes)) if numbers is None else numbers
        fine = 2 if max(height, width) <= _SMOOTH else 1
        stretch = np.array([width / size[0], height / size[1]], np.float32)
        colours, depth = self._shaded(meshes, cam_int, numbers, stretch * fine, (height * fine, width * fine))
        alpha = _OPACITY * _halved(np.isfinite(depth)[..., None].astype(np.float32), fine)
        pixels = picture * (1 - alpha) + _OPACITY * _halved(colours, fine)
        canvas = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
        for points, camera in zip(joints, cam_int, strict=False):
            if points[:, 2].min() > _NEAREST:
                _draw_skeleton(canvas, _projected(points, camera) * stretch)
        return canvas

    def _shaded(
        self,
        meshes: Sequence[Array],
        cam_int: Sequence[Array],
        numbers: Sequence[int],
        stretch: Array,
        shape: tuple[int, int],
    ) -> tuple[Array, Array]:
        """Colours (*shape,3) of what is nearest, black where there is no person, and depth (*shape) m, inf there."""
        colours, nearest = np.zeros((*shape, 3), np.float32), np.full(shape, np.inf, np.float32)
        for mesh, camera, number in zip(meshes, cam_int, numbers, strict=True):
            normals = vertex_normals(mesh, self._faces, self._faces_of)
            bright = 0.45 + 0.6 * (normals @ _LIGHT * np.float32(0.5) + np.float32(0.5))
            ahead = (mesh[:, 2] > _NEAREST)[self._faces].all(1)
            points = _projected(np.maximum(mesh, (-np.inf, -np.inf, _NEAREST), dtype=np.float32), camera)
            colour = _COLOURS[number % len(_COLOURS)] * bright[:, None]
            image, depth = rasterise(points * stretch, mesh[:, 2], self._faces[ahead], colour, shape)
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
