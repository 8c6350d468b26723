"""A z-buffer rasteriser in numpy, for the pictures of the demo and for meshes drawn over photos."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

Array = NDArray[np.float32]


def faces_of_vertices(faces: NDArray[np.int32], vertices: int) -> sparse.csr_matrix:
    """(V,F) 1 where a face (F,3) touches a vertex."""
    rows, columns = faces.reshape(-1), np.repeat(np.arange(len(faces)), 3)
    return sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, columns)), (vertices, len(faces)))


def vertex_normals(vertices: Array, faces: NDArray[np.int32], faces_of: sparse.csr_matrix) -> Array:
    """Unit normals (V,3) of vertices (V,3): the mean of their faces', by area."""
    a, b, c = (vertices[faces[:, k]] for k in range(3))
    normals: Array = faces_of @ np.cross(b - a, c - a)
    normals /= np.linalg.norm(normals, axis=1, keepdims=True) + 1e-12
    return normals


def rasterise(
    points: Array, depth: Array, faces: NDArray[np.int32], colours: Array, shape: tuple[int, int]
) -> tuple[Array, Array]:
    """Rasterised triangles: colours (*shape,3) and depth (*shape) of each pixel; black and inf where there is none.

    points: (V,2) px, pixel centres at half-integers; depth: (V,); faces: (F,3), drawn where their corners run
    counter-clockwise in a picture with y up; colours: (V,3); shape: height and width of the picture, px.
    """
    a, b, c = (points[faces[:, k]] for k in range(3))
    edge1, edge2 = b - a, c - a
    area = edge1[:, 0] * edge2[:, 1] - edge1[:, 1] * edge2[:, 0]
    # y points down, so a face that is counter-clockwise from outside has a negative area when it faces us.
    front = np.flatnonzero(area < -1e-9)
    faces, area, a, b, c = faces[front], area[front], a[front], b[front], c[front]
    edge1, edge2 = edge1[front], edge2[front]
    limit = np.array(shape[::-1])
    first = np.ceil(np.minimum(np.minimum(a, b), c) - 0.5).clip(0, limit).astype(np.int64)
    last = np.floor(np.maximum(np.maximum(a, b), c) - 0.5).clip(-1, limit - 1).astype(np.int64)
    extent = (last - first + 1).clip(0)
    count = extent[:, 0] * extent[:, 1]
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
    face, pixel, w1, w2 = face[inside], (y * shape[1] + x)[inside], w1[inside], w2[inside]
    weights = (1 - w1 - w2, w1, w2)
    z = np.asarray(sum(weights[k] * depth[faces[face, k]] for k in range(3)))
    winner = np.full(shape[0] * shape[1], -1, np.int64)
    order = np.argsort(-z, kind="stable")  # far to near: the nearest is written last
    winner[pixel[order]] = order
    covered = winner >= 0
    chosen = winner[covered]
    image = np.zeros((len(winner), 3), np.float32)
    image[covered] = sum(weights[k][chosen, None] * colours[faces[face[chosen], k]] for k in range(3))
    nearest = np.full(len(winner), np.inf, np.float32)
    nearest[covered] = z[chosen]
    return image.reshape(*shape, 3), nearest.reshape(shape)
