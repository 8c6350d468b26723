"""Vertex maps: SMPL's 6890 vertices as points on the surface of another body model's mesh.

A map is a sparse matrix (6890, V) whose rows sum to 1, usually with three weights a row: the barycentric coordinates of
a point in a triangle. Its file is what `scipy.sparse.save_npz` writes, so that maps of others can be used, too. A map
is made from two meshes in the same pose, by closest points whose surfaces face the same way. It holds for every pose
and shape in which the two surfaces move alike.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from skelfit.errors import ModelError
from skelfit.storage.atomic_write import atomic_write
from skelfit.storage.path_checks import require_regular_file

Array = NDArray[np.float64]
SKIN = 6890  # vertices of SMPL
_NEAR = 12  # vertices, whose triangles are looked at for a closest point
_ROUNDS = 10  # of moving the source onto the target
_STILL = 1e-4  # m, of the last move
_OFF = 1e-3  # by which a row of weights may differ from 1
_UNITS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
_LONG = (0.4, 2.6)  # m, of a person in any pose
_FAR = 0.05  # m, of the mean distance: the meshes are not in the same pose


@dataclass(frozen=True)
class VertexMap:
    """SMPL's vertices as weighted sums of another mesh's."""

    matrix: Any  # scipy.sparse (6890, V)
    name: str = ""  # of its file, and the beginning of its sha256

    @property
    def source_vertices(self) -> int:
        """The number of vertices of the other mesh."""
        return int(self.matrix.shape[1])

    def apply(self, vertices: NDArray[np.float32]) -> NDArray[np.float32]:
        """Meshes (N,6890,3) of meshes (N,V,3), in the same unit and place."""
        made = np.empty((len(vertices), SKIN, 3), np.float32)
        for i, mesh in enumerate(vertices):
            made[i] = self.matrix @ mesh
        return made


@dataclass(frozen=True)
class MapReport:
    """How far apart two meshes are, and how the source was brought to the target."""

    unit: str  # of the source
    moved: Array  # (3,) m, of the source
    distance: Array  # (6890,) m, from the target's vertices to the source's surface

    def line(self) -> str:
        """The distances in one line."""
        mm = 1000 * self.distance
        return (
            f"distance of SMPL's vertices from the mesh, in mm: mean {mm.mean():.2f}, "
            f"p95 {np.percentile(mm, 95):.2f}, max {mm.max():.2f}"
        )


def build_vertex_map(
    source: Array, faces: NDArray[np.int64], target: Array, target_faces: NDArray[np.int64]
) -> tuple[VertexMap, MapReport]:
    """The map from a mesh (V,3), (F,3) to SMPL's (6890,3) m in the same pose. Raises ValueError.

    The source may be in m, cm or mm, and elsewhere: it is moved, but neither turned nor scaled to fit.
    """
    if len(target) != SKIN:
        raise ValueError(f"a target of {len(target)} vertices, and not SMPL's {SKIN}")
    for name, vertices, triangles in (("source", source, faces), ("target", target, target_faces)):
        if not len(triangles):
            raise ValueError(f"a {name} without triangles")
        if not np.isfinite(vertices).all():
            raise ValueError(f"a {name} with vertices that are not finite")
    length = float(np.ptp(source, axis=0).max())
    unit = next((u for u, f in _UNITS.items() if _LONG[0] * f <= length <= _LONG[1] * f), None)
    if unit is None:
        raise ValueError(f"a source {length:.3g} long, and not a person in m, cm or mm")
    points = source / _UNITS[unit]
    moved = (target.min(0) + target.max(0) - points.min(0) - points.max(0)) / 2
    normals = _vertex_normals(target, target_faces)
    for _ in range(_ROUNDS):
        corners, weights = _closest(points + moved, faces, target, normals)
        step = (target - ((points + moved)[corners] * weights[..., None]).sum(1)).mean(0)
        moved = moved + step
        if np.abs(step).max() < _STILL:
            break
    corners, weights = _closest(points + moved, faces, target, normals)
    distance = np.linalg.norm(((points + moved)[corners] * weights[..., None]).sum(1) - target, axis=1)
    if distance.mean() > _FAR:
        raise ValueError(
            f"meshes that are {1000 * distance.mean():.0f} mm apart on average; both have to be in the same pose"
        )
    rows = np.repeat(np.arange(SKIN), 3)
    matrix = scipy.sparse.csr_array(
        (weights.ravel().astype(np.float32), (rows, corners.ravel())), shape=(SKIN, len(source))
    )
    return VertexMap(matrix), MapReport(unit, moved, distance)


def _vertex_normals(vertices: Array, faces: NDArray[np.int64]) -> Array:
    across = np.cross(
        vertices[faces[:, 1]] - vertices[faces[:, 0]], vertices[faces[:, 2]] - vertices[faces[:, 0]]
    )
    normals = np.zeros_like(vertices)
    for corner in range(3):
        np.add.at(normals, faces[:, corner], across)
    return normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)


def _closest(
    points: Array, faces: NDArray[np.int64], target: Array, normals: Array
) -> tuple[NDArray[np.int64], Array]:
    """Of each target point: the corners (T,3) of the triangle with the closest point, and its weights (T,3).

    Triangles that face the other way count only where there is no other nearby.
    """
    import trimesh.triangles  # takes a moment to import

    incident = scipy.sparse.csr_array(
        (np.ones(faces.size, np.int8), (faces.ravel(), np.repeat(np.arange(len(faces)), 3))),
        shape=(len(points), len(faces)),
    )
    _, near = cKDTree(points).query(target, k=min(_NEAR, len(points)))
    chosen = scipy.sparse.csr_array(
        (np.ones(near.size, np.int8), (np.repeat(np.arange(len(target)), near.shape[1]), near.ravel())),
        shape=(len(target), len(points)),
    )
    pairs = (chosen @ incident).tocoo()
    of, which = pairs.coords
    if lone := len(target) - len(np.unique(of)):
        raise ValueError(f"triangles that leave {lone} of SMPL's {len(target)} vertices with none nearby")
    triangles = points[faces[which]]
    closest = trimesh.triangles.closest_point(triangles, target[of])
    distance = np.linalg.norm(closest - target[of], axis=1)
    facing = np.cross(triangles[:, 1] - triangles[:, 0], triangles[:, 2] - triangles[:, 0])
    away = (facing * normals[of]).sum(1) < 0
    order = np.lexsort((distance, away, of))
    first = order[np.unique(of[order], return_index=True)[1]]
    weights = trimesh.triangles.points_to_barycentric(triangles[first], closest[first])
    weights = np.clip(np.nan_to_num(weights), 0, None)
    return faces[which[first]], weights / np.maximum(weights.sum(1, keepdims=True), 1e-12)


def save_vertex_map(vertex_map: VertexMap, path: Path) -> None:
    """Write a map. Raises OutputError."""
    with atomic_write(path) as temporary, open(temporary, "wb") as stream:
        scipy.sparse.save_npz(stream, vertex_map.matrix)


def load_vertex_map(path: Path) -> VertexMap:
    """Read a map. Raises ModelError."""
    expected = f"a vertex map: a sparse matrix ({SKIN}, V), as 'skelfit models map' and scipy.sparse.save_npz write it"
    require_regular_file(path, expected, ModelError)
    try:
        matrix = scipy.sparse.csr_array(scipy.sparse.load_npz(path))
    except FileNotFoundError:
        raise ModelError(path, None, expected, "no such file") from None
    except Exception as error:  # a damaged file can raise anything
        raise ModelError(path, None, expected, " ".join(str(error).split())[:200]) from None
    if matrix.shape[0] != SKIN:
        raise ModelError(path, None, expected, f"shape {matrix.shape}")
    sums = np.asarray(matrix.sum(axis=1)).ravel()
    if not np.isfinite(matrix.data).all() or np.abs(sums - 1).max() > _OFF:
        raise ModelError(
            path, None, "weights that sum to 1 in each row", f"sums from {sums.min():.3g} to {sums.max():.3g}"
        )
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return VertexMap(matrix.astype(np.float32), f"{path.name} (sha256 {sha256[:12]})")
