"""Bones that stick out of the skin: how many of their vertices, and how far."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skelfit.verify.bodies import Array, Bodies, Group, bone_vertices
from skelfit.verify.samples import People

# A person's bones have 24752 vertices: every eighth tells the same.
STRIDE = 8
# The surface near a point is looked for on the triangles around so many skin vertices.
_NEAREST = 3
_MARGIN_MM = 6.0  # who is deeper behind the plane at the nearest skin vertex is inside for certain
_FAR_M = 0.03  # a few triangles' width
_GIANT_M = 100.0
_POINTS = 32  # at once: their distances to all triangles stay in the cache


Few = NDArray[np.float32]


@dataclass(frozen=True)
class Bones:
    """Of the S people of a sample."""

    rows: NDArray[np.int64]  # (S,) which of the people
    share: Array  # (S,) of bone vertices outside the skin
    depth_mm: Array  # (S,) how far the furthest is outside; 0 for none
    joint_share: Array  # (S,24) the share of each joint's bones; NaN for a joint without bones


def in_sample(key: str, every: int) -> bool:
    """Whether a person is in the sample of one in `every`: by the key, so that nothing else changes it."""
    return zlib.crc32(key.encode()) % every == 0


def measure_bones(bodies: Bodies, people: People, groups: list[Group], every: int) -> Bones:
    """Bones of one in `every` of the people whose bodies are posed in `groups`."""
    rows, shares, depths, by_joint = [], [], [], []
    for group in groups:
        size = np.abs(group.skin).max((1, 2))  # absurd betas make giants, who have nothing to tell
        chosen = [in_sample(people.keys[row], every) for row in group.rows]
        some = np.flatnonzero(np.array(chosen) & (size < _GIANT_M)).tolist()
        if not some:
            continue
        asset = group.skel.asset
        joint = np.asarray(asset.bone_weights_rigid).argmax(1)[::STRIDE]
        count = np.bincount(joint, minlength=24)
        surface = make_surface(np.asarray(asset.faces), group.skin.shape[1])
        for k, bones in zip(some, bone_vertices(group, some)[:, ::STRIDE], strict=True):
            outside = 1000 * signed_distance(surface, group.skin[k], bones)
            out = outside > 0
            rows.append(group.rows[k])
            shares.append(out.mean())
            depths.append(max(float(outside.max()), 0.0))
            hits = np.bincount(joint[out], minlength=24)
            by_joint.append(np.where(count > 0, hits / np.maximum(count, 1), np.nan))
    return Bones(
        np.array(rows, np.int64), np.array(shares, float), np.array(depths, float),
        np.array(by_joint, float).reshape(-1, 24),
    )  # fmt: skip


@dataclass(frozen=True)
class Surface:
    """The topology of a skin."""

    faces: NDArray[np.int64]  # (F,3)
    around: NDArray[np.int64]  # (V,M) faces at each vertex, the first one repeated to fill up


_surfaces: dict[tuple[int, int], Surface] = {}


def make_surface(faces: NDArray[np.int32], vertices: int) -> Surface:
    """Which triangles are at which vertex; made once for a topology."""
    key = (vertices, zlib.crc32(np.ascontiguousarray(faces).tobytes()))
    if key not in _surfaces:
        order = np.argsort(faces.ravel(), kind="stable")
        corner = faces.ravel()[order]
        start = np.searchsorted(corner, np.arange(vertices + 1))
        most = int(np.diff(start).max())
        place = np.minimum(start[:-1, None] + np.arange(most), start[1:, None] - 1)
        _surfaces[key] = Surface(faces.astype(np.int64), order[place] // 3)
    return _surfaces[key]


def signed_distance(surface: Surface, skin: Array, points: Array) -> Array:
    """Distance (P,) of points (P,3) to a skin (V,3), positive outside.

    Points that are further inside than a margin get the distance of the nearest vertex, the others that of the
    triangles around the nearest vertices. The normal there, blended from the corners', says on which side a point is.
    """
    a, b, c = (skin[surface.faces[:, k]] for k in range(3))
    face_normal = np.cross(b - a, c - a)
    normal = np.zeros_like(skin)
    for k in range(3):
        for axis in range(3):
            normal[:, axis] += np.bincount(surface.faces[:, k], face_normal[:, axis], len(skin))
    away, nearest = cKDTree(skin).query(points, k=_NEAREST)
    found: Array = -away[:, 0]
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-18)
    height = ((points - skin[nearest[:, 0]]) * normal[nearest[:, 0]]).sum(1)
    close = np.flatnonzero(1000 * height > -_MARGIN_MM)
    faces = surface.around[nearest[close]].reshape(len(close), -1)
    weights, distance = closest_on_triangles(points[close, None], a[faces], b[faces], c[faces])
    best = distance.argmin(1)
    row = np.arange(len(close))
    corner = surface.faces[faces[row, best]]
    w = weights[row, best]
    on_skin, up = ((x[corner] * w[..., None]).sum(1) for x in (skin, normal))
    beside = ((points[close] - on_skin) * up).sum(1) > 0
    found[close] = -distance[row, best]
    # Where the skin folds into itself, a point may lie before one sheet of it and yet inside.
    out = close[beside]
    out = out[winding_numbers(a, b, c, points[out]) < 0.5]
    found[out] *= -1
    return found


def winding_numbers(a: Array, b: Array, c: Array, points: Array) -> Array:
    """How often a closed surface of triangles a, b, c (F,3) each goes round points (P,3): 1 inside, 0 outside.

    The sum of solid angles; those of triangles that are far away are taken as those of dipoles (Barill et al., 2018).
    """
    middle, area = (a + b + c) / 3, np.cross(b - a, c - a) / 2
    centre = middle.mean(0)
    triangles, about = (middle - centre).astype(np.float32), (points - centre).astype(np.float32)
    areas = area.astype(np.float32)
    found = []
    for k in range(0, len(points), _POINTS):
        few = slice(k, k + _POINTS)
        found.append(_solid_angles(a, b, c, points[few], triangles, areas, about[few]))
    return np.concatenate([np.zeros(0), *found]) / (4 * np.pi)


def _solid_angles(a: Array, b: Array, c: Array, points: Array, middle: Few, area: Few, at: Few) -> Array:
    """Their sums (P,) at points (P,3); middle, area and at: triangles and points about the body's middle."""
    square = (at**2).sum(1)[:, None] - 2 * at @ middle.T + (middle**2).sum(1)
    level = (area * middle).sum(1) - at @ area.T
    which, face = np.nonzero(square < _FAR_M**2)
    square[which, face] = 1.0
    level[which, face] = 0.0
    square *= np.sqrt(square)
    level /= square
    x, y, z = (corner[face] - points[which] for corner in (a, b, c))
    lx, ly, lz = (np.linalg.norm(v, axis=1) for v in (x, y, z))
    volume = (x * np.cross(y, z)).sum(1)
    below = lx * ly * lz + (x * y).sum(1) * lz + (y * z).sum(1) * lx + (z * x).sum(1) * ly
    exact = np.bincount(which, 2 * np.arctan2(volume, below), len(points))
    found: Array = level.sum(1, dtype=np.float64) + exact
    return found


def closest_on_triangles(p: Array, a: Array, b: Array, c: Array) -> tuple[Array, Array]:
    """Barycentric weights (...,3) of the point of each triangle nearest to p (...,3), and the distance (...)."""
    candidates = [_clamped(p, a, b, (0, 1)), _clamped(p, b, c, (1, 2)), _clamped(p, c, a, (2, 0))]
    ab, ac, ap = b - a, c - a, p - a
    d00, d01, d11 = (ab * ab).sum(-1), (ab * ac).sum(-1), (ac * ac).sum(-1)
    d20, d21 = (ap * ab).sum(-1), (ap * ac).sum(-1)
    area = d00 * d11 - d01 * d01
    area = np.where(area > 0, area, 1.0)
    v, w = (d11 * d20 - d01 * d21) / area, (d00 * d21 - d01 * d20) / area
    inside = np.stack([1 - v - w, v, w], -1)
    weights = np.stack([*candidates, inside], -2)
    near = (
        weights[..., :1] * a[..., None, :]
        + weights[..., 1:2] * b[..., None, :]
        + weights[..., 2:] * c[..., None, :]
    )
    distance = np.linalg.norm(p[..., None, :] - near, axis=-1)
    distance[..., 3] = np.where((inside >= 0).all(-1), distance[..., 3], np.inf)
    best = distance.argmin(-1)[..., None]
    return np.take_along_axis(weights, best[..., None], -2)[..., 0, :], np.take_along_axis(
        distance, best, -1
    )[..., 0]


def _clamped(p: Array, a: Array, b: Array, corners: tuple[int, int]) -> Array:
    """Barycentric weights of the point of the edge a b nearest to p."""
    along = b - a
    t = ((p - a) * along).sum(-1) / np.maximum((along * along).sum(-1), 1e-18)
    t = np.clip(t, 0.0, 1.0)
    weights = np.zeros((*t.shape, 3))
    weights[..., corners[0]], weights[..., corners[1]] = 1 - t, t
    return weights
