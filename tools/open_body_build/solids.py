"""Closed solids that bones are made of, and what is known of the body that they must fit into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike

from tools.open_body_build.skel_rig import NAMES

FLIP = np.array([-1.0, 1.0, 1.0])
DETAIL = 0.595  # of all tessellations, so that the whole skeleton just fits SKEL's vertex count
Weigher = Callable[[np.ndarray], np.ndarray]  # (n,3) -> (n,24)


@dataclass(frozen=True)
class Solid:
    """A closed triangle mesh that belongs to one SKEL joint; `weights` blends it over several (None:
    rigid)."""

    vertices: np.ndarray
    faces: np.ndarray
    bone: str
    weights: Weigher | None = None


@dataclass(frozen=True)
class Body:
    """What the bones are fitted to: joints by name, skin (V,3), share of trunk and of head in it (V,)."""

    at: dict[str, np.ndarray]
    skel: dict[str, np.ndarray]
    skin: np.ndarray
    trunk: np.ndarray
    head: np.ndarray
    size: float  # stature / 1.70 m

    def _near(self, y: float, mask: np.ndarray) -> np.ndarray:
        return self.skin[mask & (np.abs(self.skin[:, 1] - y) < 0.03 * self.size)]

    def depth(self, y: float) -> tuple[float, float]:
        """z of the back and of the front of the skin at the midline, at a height."""
        z = self._near(y, np.abs(self.skin[:, 0]) < 0.03 * self.size)[:, 2]
        return float(z.min()), float(z.max())

    def half_width(self, y: float) -> float:
        """Half the width of the trunk at a height, arms left out."""
        return float(np.abs(self._near(y, self.trunk > 0.6)[:, 0]).max())


def vec(x: float, y: float, z: float) -> np.ndarray:
    """A point or offset in metres."""
    return np.array([x, y, z])


def turned_into(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    """The faces, turned round if they enclose a negative volume."""
    a, b, c = (vertices[faces[:, k]] - vertices.mean(0) for k in range(3))
    return faces if float((np.cross(a, b) * c).sum()) >= 0 else faces[:, [0, 2, 1]]


def mirrored(solid: Solid) -> Solid:
    """The right-hand twin of a left bone."""
    stem = solid.bone.removesuffix("_l")
    weights = solid.weights
    swap = [NAMES.index(n[:-2] + {"_r": "_l", "_l": "_r"}[n[-2:]] if n[-2] == "_" else n) for n in NAMES]
    return replace(
        solid,
        vertices=solid.vertices * FLIP,
        faces=solid.faces[:, [0, 2, 1]],
        bone=stem if stem == solid.bone else f"{stem}_r",
        weights=None if weights is None else (lambda p: weights(p * FLIP)[:, swap]),
    )


def smooth_path(points: ArrayLike, count: int) -> np.ndarray:
    """`count` points along a Catmull-Rom curve through (n,d) points, end points included."""
    knots = np.asarray(points, float)
    padded = np.concatenate([[2 * knots[0] - knots[1]], knots, [2 * knots[-1] - knots[-2]]])
    u = np.linspace(0, len(knots) - 1, count)
    i = np.minimum(u.astype(int), len(knots) - 2)
    t = (u - i)[:, None]
    p0, p1, p2, p3 = (padded[i + k] for k in range(4))
    return 0.5 * (
        2 * p1 + (p2 - p0) * t + (2 * p0 - 5 * p1 + 4 * p2 - p3) * t**2 + (3 * p1 - p0 - 3 * p2 + p3) * t**3
    )


def tube(
    bone: str,
    points: ArrayLike,
    radii: ArrayLike,
    around: int = 12,
    rings: int = 0,
    wide: ArrayLike = (1.0, 0.0, 0.0),
    weights: Weigher | None = None,
) -> Solid:
    """A closed tube through points; radii per point, or (along `wide`, across it); ends are rounded off."""
    size = np.asarray(radii, float)
    around, rings = _detail(around, 6), _detail(rings or 3 * len(size), len(size))
    size = size[:, None].repeat(2, 1) if size.ndim == 1 else size
    # Two more rings at each end, closer together, make a round cap.
    path, size = smooth_path(points, rings), np.abs(smooth_path(size, rings))
    direction = np.gradient(path, axis=0)
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    first, last = 0.6 * size[0].min(), 0.6 * size[-1].min()
    path = np.concatenate(
        [[path[0] - 0.7 * first * direction[0]], path, [path[-1] + 0.7 * last * direction[-1]]]
    )
    size = np.concatenate([[0.6 * size[0]], size, [0.6 * size[-1]]])
    direction = np.concatenate([direction[:1], direction, direction[-1:]])
    side = np.asarray(wide, float) - (direction @ np.asarray(wide, float))[:, None] * direction
    side /= np.linalg.norm(side, axis=1, keepdims=True)
    other = np.cross(direction, side)
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)
    ring = (
        path[:, None]
        + size[:, :1, None] * np.cos(angle)[None, :, None] * side[:, None]
        + size[:, 1:, None] * np.sin(angle)[None, :, None] * other[:, None]
    )
    ends = np.stack([path[0] - 0.3 * first * direction[0], path[-1] + 0.3 * last * direction[-1]])
    vertices = np.concatenate([ring.reshape(-1, 3), ends])
    faces = grid_faces(len(path), around)
    return Solid(vertices, turned_into(vertices, faces), bone, weights)


def _detail(number: int, least: int) -> int:
    return max(least, round(DETAIL * number))


def grid_faces(rows: int, around: int) -> np.ndarray:
    """Faces of a closed stack of rings with two pole vertices at the end of the vertex list."""
    k = np.arange(around)
    n = (k + 1) % around
    base = (np.arange(rows - 1) * around)[:, None]
    p, q = base + k, base + n
    quads = np.concatenate([np.stack([p, q, q + around], -1), np.stack([p, q + around, p + around], -1)], 0)
    top, end = rows * around, (rows - 1) * around
    low = np.stack([n, k, np.full(around, top)], -1)
    high = np.stack([end + k, end + n, np.full(around, top + 1)], -1)
    return np.concatenate([quads.reshape(-1, 3), low, high])


def ball(
    bone: str,
    centre: np.ndarray,
    radii: tuple[float, float, float],
    around: int = 14,
    rings: int = 9,
    weights: Weigher | None = None,
) -> Solid:
    """An ellipsoid with axes along the world's."""
    around, rings = _detail(around, 7), _detail(rings, 4)
    polar = np.linspace(0, np.pi, rings + 2)[1:-1, None]
    angle = np.linspace(0, 2 * np.pi, around, endpoint=False)[None]
    unit = np.stack(
        np.broadcast_arrays(np.sin(polar) * np.sin(angle), np.cos(polar), np.sin(polar) * np.cos(angle)), -1
    )
    unit = np.concatenate([unit.reshape(-1, 3), [[0, 1, 0], [0, -1, 0]]])
    vertices = np.asarray(centre) + unit * np.asarray(radii)
    return Solid(vertices, turned_into(vertices, grid_faces(rings, around)), bone, weights)


def long_bone(
    bone: str,
    start: np.ndarray,
    end: np.ndarray,
    radius: float,
    around: int = 10,
    rings: int = 9,
    gap: float = 0.04,
) -> Solid:
    """A small long bone with thicker ends (metacarpal, phalanx), leaving a joint gap at both ends."""
    start, end = start + gap * (end - start), end - gap * (end - start)
    points = np.linspace(start, end, 5)
    size = radius * np.array([1.25, 1.0, 0.72, 0.85, 1.1])
    direction = end - start
    across = np.cross(
        direction, [0.0, 1.0, 0.0] if abs(direction[1]) < 0.8 * np.linalg.norm(direction) else [0.0, 0.0, 1.0]
    )
    return tube(bone, points, size, around, rings, across)
