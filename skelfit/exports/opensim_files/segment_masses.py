"""Masses and inertias of a person's segments, estimated from the volume inside the skin.

The skin of the T-pose is filled with small cubes. The volume of a cube is divided among the segments as the skin
vertex next to it is (by its skinning weights), and times the density of each segment. Densities are the means of
cadavers' segments (Dempster 1955, in Winter, Biomechanics and Motor Control of Human Movement, table 4.1);
those of pelvis, lumbar body, thorax and scapulae have not been checked against the book.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.exports.opensim_files.person_rig import Array, PersonRig

CUBE = 0.01  # m
_DENSITIES = {  # kg/m3, by the start of a segment's name
    "pelvis": 1010, "femur": 1050, "tibia": 1090, "talus": 1100, "calcn": 1100, "toes": 1100,
    "lumbar": 1010, "thorax": 920, "head": 1110, "scapula": 1040, "humerus": 1070, "ulna": 1130, "radius": 1130,
    "hand": 1160,
}  # fmt: skip
DENSITIES: tuple[float, ...] = tuple(float(_DENSITIES[name.split("_")[0]]) for name in SKEL_JOINT_NAMES)


@dataclass(frozen=True)
class SegmentMasses:
    """Masses of the 24 segments, each in its body's frame."""

    mass: Array  # (24,) kg
    center: Array  # (24,3) m
    inertia: Array  # (24,3,3) kg m2, about the centre


def segment_masses(
    rig: PersonRig, skin: Array, faces: NDArray[np.integer], weights: Array, cube: float = CUBE
) -> SegmentMasses:
    """Masses of a person with skin vertices (V,3) m in the T-pose, faces (F,3) and skinning weights (V,24).

    The cubes are scaled to the volume that the faces enclose, so that the edge of a `cube` in m hardly matters.
    """
    centers = inside_points(skin, faces, cube)
    volume = enclosed_volume(skin, faces) / len(centers)
    shares = weights[KDTree(skin).query(centers)[1]]
    shares = shares / shares.sum(1, keepdims=True)
    parts = volume * shares * np.array(DENSITIES)  # (N,24) kg
    masses = parts.sum(0)
    weighed = np.maximum(masses, np.finfo(float).tiny)  # a segment that moves no skin has no mass
    middles = parts.T @ centers / weighed[:, None]
    products = (centers[:, :, None] * centers[:, None, :]).reshape(-1, 9)
    second = (parts.T @ products).reshape(-1, 3, 3) - masses[:, None, None] * (
        middles[:, :, None] * middles[:, None, :]
    )
    second += np.eye(3) * masses[:, None, None] * cube**2 / 12
    second = np.swapaxes(rig.frames, -1, -2) @ second @ rig.frames
    inertia = np.trace(second, axis1=1, axis2=2)[:, None, None] * np.eye(3) - second
    own = np.where(masses[:, None] > 0, middles - rig.joints, 0.0)
    return SegmentMasses(masses, (own[:, None] @ rig.frames)[:, 0], inertia)


def enclosed_volume(vertices: Array, faces: NDArray[np.integer]) -> float:
    """The volume in m3 that a closed mesh (V,3), (F,3) encloses."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    return float(abs(np.einsum("fc,fc->", a, np.cross(b, c))) / 6)


def inside_points(vertices: Array, faces: NDArray[np.integer], step: float) -> Array:
    """The points (N,3) of a grid that lie inside a closed mesh (V,3), (F,3).

    Lines of the grid run along z. A point of a line is inside where the surface winds around it: where the crossings
    beyond it do not cancel.
    """
    low = vertices.min(0)
    # Lines half a step off the box, and off round numbers, do not run along edges of a symmetric mesh.
    starts = low + step * np.array([0.4871, 0.5119, 0.5])
    sizes = np.maximum(1, np.floor((vertices.max(0) - starts) / step).astype(int) + 1)
    lines, heights, directions = _crossings((vertices - starts) / step, faces, sizes[:2])
    # Points below a crossing are 0 ... height - 1. Each crossing counts for all of them.
    ends = np.clip(np.ceil(heights).astype(int), 0, sizes[2])
    winding = np.zeros((*sizes[:2], sizes[2] + 1), np.int32)
    np.add.at(winding, (*lines, ends), directions)
    winding = np.cumsum(winding[..., ::-1], axis=2)[..., ::-1][..., 1:]
    return starts + step * np.argwhere(winding != 0)


def _crossings(
    vertices: Array, faces: NDArray[np.integer], sizes: NDArray[np.integer]
) -> tuple[tuple[NDArray[np.integer], ...], Array, NDArray[np.integer]]:
    """Where lines along z through whole x, y from 0 to sizes (2,) cross faces; vertices (V,3) in steps.

    Returns x and y of each crossing, its z, and 1 or -1 for a face that looks up or down.
    """
    corners = vertices[faces][..., :2]
    first = np.maximum(0, np.ceil(corners.min(1))).astype(int)
    across = np.maximum(0, np.minimum(sizes - 1, np.floor(corners.max(1))).astype(int) - first + 1)
    count = across.prod(1)
    face = np.repeat(np.arange(len(faces)), count)
    place = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
    at = first[face] + np.stack([place // across[face, 1], place % across[face, 1]], 1)
    a, b, c = np.moveaxis(corners[face], 1, 0)
    area = _cross(b - a, c - a)
    with np.errstate(divide="ignore", invalid="ignore"):  # faces that stand upright
        u, v = _cross(b - at, c - at) / area, _cross(c - at, a - at) / area
        hit = (u >= 0) & (v >= 0) & (u + v <= 1)
    z = np.moveaxis(vertices[faces[face[hit]]][..., 2], 1, 0)
    u, v = u[hit], v[hit]
    x, y = at[hit].T
    return (x, y), u * z[0] + v * z[1] + (1 - u - v) * z[2], np.sign(area[hit]).astype(int)


def _cross(a: Array, b: Array) -> Array:
    return a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]
