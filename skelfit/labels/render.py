"""Small pictures of a posed body, for the demo data: a z-buffer rasteriser in numpy, and a room to stand in.

It is no renderer to grow: trainers need something to see, on any machine, with the same bytes for the same seed.
Camera frame throughout: OpenCV (x right, y down, z forward); pixel centres at half-integers.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import sparse

from skelfit.body.assets import SmplAsset

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
class Surface:
    """What pictures of one body model share."""

    faces: NDArray[np.int32]  # (F,3)
    faces_of: sparse.csr_matrix  # (V,F) 1 where a face touches a vertex
    material: NDArray[np.int64]  # (V,) 0 skin, 1 hair, 2 shirt, 3 trousers, 4 shoes


def make_surface(asset: SmplAsset) -> Surface:
    """Faces and materials of a body; the parts are told apart by their skinning weights."""
    vertices, faces = asset.v_template, asset.faces
    rows, columns = faces.reshape(-1), np.repeat(np.arange(len(faces)), 3)
    touch = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (len(vertices), len(faces)))
    part = asset.weights.argmax(axis=1)
    material = _MATERIAL[part]
    head = np.flatnonzero(part == 15)
    if len(head):
        low, high = vertices[head].min(axis=0), vertices[head].max(axis=0)
        place = (vertices[head] - low) / np.maximum(high - low, 1e-6)
        up, front = place[:, 1], place[:, 2]
        material[head[(up > 0.83) | ((up > 0.35) & (front < 0.45))]] = 1
    return Surface(faces, touch, material)


def draw_person(
    surface: Surface, vertices: Array, camera: Array, up: Array, size: int, rng: np.random.Generator
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
    # Drawn at twice the size, for smooth edges.
    image, covered = _rasterise(points * 2, vertices[:, 2], surface.faces, colours, size * 2)
    alpha = _halve(covered.astype(np.float32))[..., None]
    picture = picture * (1 - alpha) + _halve(image)
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


def _shade(surface: Surface, vertices: Array, light: Array) -> Array:
    """(V,) brightness: Lambert with a half-lit shadow side, so that the far limbs stay visible."""
    a, b, c = (vertices[surface.faces[:, k]] for k in range(3))
    normals = surface.faces_of @ np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    wrapped = (normals @ light) * np.float32(0.5) + np.float32(0.5)
    return np.asarray(0.32 + 0.8 * wrapped**1.5, np.float32)


def _rasterise(
    points: Array, depth: Array, faces: NDArray[np.int32], colours: Array, size: int
) -> tuple[Array, NDArray[np.bool_]]:
    """Colours (size,size,3), black outside, and cover (size,size). Points (V,2) px; colours (V,3)."""
    a, b, c = (points[faces[:, k]] for k in range(3))
    edge1, edge2 = b - a, c - a
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    first = np.ceil(np.minimum(np.minimum(a, b), c) - 0.5).clip(0, size).astype(np.int64)
    last = np.floor(np.maximum(np.maximum(a, b), c) - 0.5).clip(-1, size - 1).astype(np.int64)
    extent = (last - first + 1).clip(0)
    # y points down, so a face that is counter-clockwise from outside has a negative area when it faces us.
    count = np.where(area < -1e-9, extent[:, 0] * extent[:, 1], 0)
    # One flat list of (face, pixel) pairs: faces are about a pixel wide, so their boxes hold few misses.
    face = np.repeat(np.arange(len(faces)), count)
    local = np.arange(len(face)) - np.repeat(np.cumsum(count) - count, count)
    row, column = np.divmod(local, extent[face, 0])
    x, y = first[face, 0] + column, first[face, 1] + row
    dx = (x + 0.5 - a[face, 0]).astype(np.float32)
    dy = (y + 0.5 - a[face, 1]).astype(np.float32)
    w1 = (dx * edge2[face, 1] - dy * edge2[face, 0]) / area[face]
    w2 = (dy * edge1[face, 0] - dx * edge1[face, 1]) / area[face]
    inside = (w1 >= 0) & (w2 >= 0) & (w1 + w2 <= 1)
    face, pixel, w1, w2 = face[inside], (y * size + x)[inside], w1[inside], w2[inside]
    weights = (1 - w1 - w2, w1, w2)
    z = sum(weights[k] * depth[faces[face, k]] for k in range(3))
    winner = np.full(size * size, -1, np.int64)
    order = np.argsort(-np.asarray(z), kind="stable")  # far to near: the nearest is written last
    winner[pixel[order]] = order
    covered = winner >= 0
    chosen = winner[covered]
    image = np.zeros((size * size, 3), np.float32)
    image[covered] = sum(weights[k][chosen, None] * colours[faces[face[chosen], k]] for k in range(3))
    return image.reshape(size, size, 3), covered.reshape(size, size)


@functools.cache
def _pixel_grid(size: int) -> tuple[Array, Array]:
    y, x = np.mgrid[:size, :size].astype(np.float32) + 0.5
    return x, y


def _room(vertices: Array, camera: Array, up: Array, size: int, rng: np.random.Generator) -> Array:
    """(size,size,3): a wall, the floor that the body stands on, things at the wall, and a soft shadow."""
    x, y = _pixel_grid(size)
    focal, cx, cy = camera[0, 0], camera[0, 2], camera[1, 2]
    rays = np.stack([(x - cx) / focal, (y - cy) / focal, np.ones_like(x)], axis=-1)
    height = vertices @ up
    ground = height.min()
    # Where each pixel's ray meets the floor; beyond the wall, or never, it sees the wall.
    slope = rays @ up
    distance = np.where(slope < -1e-3, ground / np.minimum(slope, -1e-3), np.inf).astype(np.float32)
    wall_z = np.float32(vertices[:, 2].max() + rng.uniform(0.8, 3.0))
    on_floor = (distance < wall_z) & (distance > 0)
    wall = _WALLS[rng.integers(len(_WALLS))] * (1.06 - 0.16 * y[..., None] / size)
    for _ in range(rng.integers(0, 4)):
        left, width = rng.uniform(0, 0.9) * size, rng.uniform(0.06, 0.25) * size
        top, tall = rng.uniform(0, 0.5) * size, rng.uniform(0.1, 0.8) * size
        inside = (x > left) & (x < left + width) & (y > top) & (y < top + tall)
        paint = rng.uniform(50, 200) + rng.uniform(-25, 25, 3)
        wall[inside] = wall[inside] * 0.3 + 0.7 * paint.astype(np.float32)
    z = np.where(on_floor, distance, wall_z)
    floor = _FLOORS[rng.integers(len(_FLOORS))] * (1.15 - 0.25 * z / wall_z)[..., None]
    picture = np.where(on_floor[..., None], floor, wall)
    base = vertices - (height - ground)[:, None] * up  # the body pressed onto the floor
    centre, spread = base.mean(axis=0), base.std(axis=0) + 0.12
    there = rays * z[..., None]
    square = (((there - centre) / spread) ** 2)[..., [0, 2]].sum(axis=-1)
    shadow = np.where(on_floor, 0.5 * np.exp(-0.5 * square), 0)
    rough = rng.normal(0, 5, (8, 8)).astype(np.float32)
    stains = np.asarray(Image.fromarray(rough).resize((size, size), Image.Resampling.BICUBIC))
    return ((picture + stains[..., None]) * (1 - shadow[..., None])).astype(np.float32)
