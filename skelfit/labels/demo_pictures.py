"""Small pictures of a posed body in a room, for the demo data.

Trainers need images on any machine, with the same bytes for the same seed; nothing more is wanted of this renderer.
Camera frame throughout: OpenCV (x right, y down, z forward); pixel centres at half-integers.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from skelfit.bodies.assets import SmplAsset
from skelfit.bodies.rasterizer import faces_of_vertices, rasterise, vertex_normals

Array = NDArray[np.float32]
_SKIN = np.array([[236, 200, 176], [214, 168, 138], [178, 128, 96], [128, 88, 64], [88, 60, 46]], np.float32)
_HAIR = np.array([[28, 22, 20], [60, 40, 28], [104, 74, 46], [160, 126, 78], [110, 108, 106]], np.float32)
_CLOTH = np.array(
    [
        [52, 66, 96],
        [150, 48, 50],
        [66, 112, 84],
        [206, 200, 188],
        [40, 42, 48],
        [196, 148, 62],
        [104, 86, 130],
    ],
    np.float32,
)
_WALLS = np.array(
    [[206, 202, 194], [186, 198, 206], [214, 200, 180], [176, 186, 172], [160, 164, 176]], np.float32
)
_FLOORS = np.array([[150, 122, 94], [124, 122, 120], [108, 92, 78], [146, 142, 132]], np.float32)
# Which material covers the part of each of SMPL's 24 joints: 0 skin, 1 hair, 2 shirt, 3 trousers, 4 shoes.
_MATERIAL = np.array([3, 3, 3, 2, 3, 3, 2, 4, 4, 2, 4, 4, 0, 2, 2, 0, 2, 2, 0, 0, 0, 0, 0, 0])


@dataclass(frozen=True, eq=False)
class RenderSurface:
    """The faces and materials of one body model, for all pictures of it."""

    faces: NDArray[np.int32]  # (F,3)
    faces_of: sparse.csr_matrix  # (V,F) 1 where a face touches a vertex
    material: NDArray[np.int64]  # (V,) 0 skin, 1 hair, 2 shirt, 3 trousers, 4 shoes


def make_surface(asset: SmplAsset) -> RenderSurface:
    """Faces and materials of a body; its parts follow from the skinning weights."""
    vertices, faces = asset.v_template, asset.faces
    part = asset.weights.argmax(axis=1)
    material = _MATERIAL[part]
    head = np.flatnonzero(part == 15)
    if len(head):
        low, high = vertices[head].min(axis=0), vertices[head].max(axis=0)
        relative = (vertices[head] - low) / np.maximum(high - low, 1e-6)
        up, front = relative[:, 1], relative[:, 2]
        material[head[(up > 0.83) | ((up > 0.35) & (front < 0.45))]] = 1
    return RenderSurface(faces, faces_of_vertices(faces, len(vertices)), material)


def draw_person(
    surface: RenderSurface, vertices: Array, camera: Array, up: Array, size: int, rng: np.random.Generator
) -> Image.Image:
    """A square picture of one posed body in a room.

    Args:
        vertices: (V,3) m in the camera frame.
        camera: (3,3) px intrinsic matrix.
        up: (3,) unit vector away from the floor, in the camera frame.
        size: px.
        rng: chooses colours, light and room.
    """
    palette = _palette(rng)
    light = _unit(np.array([rng.uniform(-0.7, 0.7), -0.9, rng.uniform(-0.9, -0.4)]))
    picture = _room(vertices, camera, up, size, rng)
    colours = palette[surface.material] * _shade(surface, vertices, light)[:, None]
    points = vertices[:, :2] / vertices[:, 2:] * camera[[0, 1], [0, 1]] + camera[:2, 2]
    left, top = (int(v) for v in np.floor(points.min(axis=0)).clip(0, size))
    right, bottom = (int(v) for v in np.ceil(points.max(axis=0)).clip(0, size))
    # Drawn at twice the size, for smooth edges.
    corner = np.array([left, top], np.float32)
    shape = (2 * max(bottom - top, 0), 2 * max(right - left, 0))
    image, nearest = rasterise((points - corner) * 2, vertices[:, 2], surface.faces, colours, shape)
    alpha = _halve(np.isfinite(nearest).astype(np.float32))[..., None]
    behind = picture[top:bottom, left:right]
    behind[:] = behind * (1 - alpha) + _halve(image)
    picture += rng.standard_normal((size, size, 1), np.float32) * 2.5  # sensor noise
    return Image.fromarray(picture.clip(0, 255).astype(np.uint8))


def _halve(image: Array) -> Array:
    """Means of 2 x 2 pixels (slices, because numpy's mean over short axes is ten times slower)."""
    rows = image[0::2] + image[1::2]
    return (rows[:, 0::2] + rows[:, 1::2]) * np.float32(0.25)


def _unit(vector: NDArray[np.float64]) -> Array:
    return (vector / np.linalg.norm(vector)).astype(np.float32)


def _palette(rng: np.random.Generator) -> Array:
    """Colours of the five materials."""
    shirt, trousers = rng.choice(len(_CLOTH), 2, replace=False)
    colours = [
        _SKIN[rng.integers(len(_SKIN))],
        _HAIR[rng.integers(len(_HAIR))],
        _CLOTH[shirt],
        _CLOTH[trousers],
    ]
    colours.append(_CLOTH[4] * rng.uniform(0.8, 2.5))
    return np.array(colours, np.float32) * rng.uniform(0.92, 1.08, (5, 1)).astype(np.float32)


def _shade(surface: RenderSurface, vertices: Array, light: Array) -> Array:
    """(V,) brightness: Lambert with a half-lit shadow side, so that the far limbs stay visible."""
    normals = vertex_normals(vertices, surface.faces, surface.faces_of)
    wrapped = (normals @ light) * np.float32(0.5) + np.float32(0.5)
    return np.asarray(0.32 + 0.8 * wrapped**1.5, np.float32)


def _room(vertices: Array, camera: Array, up: Array, size: int, rng: np.random.Generator) -> Array:
    """(size,size,3): a wall, the floor that the body stands on, things at the wall, and a soft shadow."""
    pixel = np.arange(size, dtype=np.float32) + np.float32(0.5)
    x, y = pixel[None, :], pixel[:, None]
    ray_x, ray_y = (x - camera[0, 2]) / camera[0, 0], (y - camera[1, 2]) / camera[1, 1]
    height = vertices @ up
    ground = height.min()
    # Depth at which each pixel's ray meets the floor; beyond the wall, or never, it sees the wall.
    slope = np.minimum(ray_x * up[0] + ray_y * up[1] + up[2], np.float32(-1e-6))
    depth = ground / slope
    wall_z = np.float32(vertices[:, 2].max() + rng.uniform(0.8, 3.0))
    on_floor = (depth < wall_z) & (depth > 0)
    wall = _WALLS[rng.integers(len(_WALLS))] * (1.06 - 0.16 * y[..., None] / size)
    picture = np.repeat(wall, size, axis=1)
    for _ in range(rng.integers(0, 4)):
        left, width = (rng.uniform([0, 0.06], [0.9, 0.25]) * size).astype(int)
        top, tall = (rng.uniform([0, 0.1], [0.5, 0.8]) * size).astype(int)
        paint = rng.uniform(50, 200) + rng.uniform(-25, 25, 3)
        picture[top : top + tall, left : left + width] *= np.float32(0.3)
        picture[top : top + tall, left : left + width] += np.float32(0.7) * paint.astype(np.float32)
    row, column = np.nonzero(on_floor)
    z = depth[row, column]
    base = vertices - (height - ground)[:, None] * up  # the body pressed onto the floor
    centre, spread = base.mean(axis=0), base.std(axis=0) + 0.12
    across = (ray_x[0, column] * z - centre[0]) / spread[0]
    along = (z - centre[2]) / spread[2]
    lit = 1 - 0.5 * np.exp(-0.5 * (across**2 + along**2))
    floor = _FLOORS[rng.integers(len(_FLOORS))]
    picture[row, column] = ((1.15 - 0.25 * z / wall_z) * lit)[:, None] * floor
    rough = rng.normal(0, 5, (8, 8)).astype(np.float32)
    stains = np.asarray(Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC))
    picture += stains[..., None]
    return picture
