"""Bodies of other topologies, made from SMPL's by known maps: no vertex of SMPL is one of theirs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse


@dataclass(frozen=True)
class OtherBody:
    """Vertices as weighted sums of SMPL's (V,6890), triangles (F,3), and numbers per metre."""

    matrix: Any
    faces: np.ndarray
    per_metre: float

    def of(self, skins: np.ndarray) -> np.ndarray:
        """Meshes (n,V,3) of SMPL's (n,6890,3) m."""
        return np.stack([self.matrix @ skin for skin in skins]) * self.per_metre


def _fans(rings: dict[int, list[tuple[int, int]]]) -> list[tuple[int, int, int]]:
    """Triangles that fill the polygon around each vertex, given by its edges."""
    return [
        (edges[0][0], a, b) for edges in rings.values() for a, b in edges[1:] if len({edges[0][0], a, b}) == 3
    ]


def edge_body(faces: np.ndarray) -> OtherBody:
    """The middles of SMPL's edges, in m: 20,664 vertices."""
    sides = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    edges, number = np.unique(sides, axis=0, return_inverse=True)
    middle = number.reshape(3, len(faces)).T  # (F,3), of the sides of each triangle
    rings: dict[int, list[tuple[int, int]]] = {}
    for face, (ab, bc, ca) in zip(faces.tolist(), middle.tolist(), strict=True):
        for corner, edge in zip(face, ((ab, ca), (bc, ab), (ca, bc)), strict=True):
            rings.setdefault(corner, []).append(edge)
    matrix = scipy.sparse.csr_array(
        (np.full(2 * len(edges), 0.5), (np.repeat(np.arange(len(edges)), 2), edges.ravel())),
        shape=(len(edges), int(faces.max()) + 1),
    )
    return OtherBody(matrix, np.concatenate([middle, _fans(rings)]), 1.0)


def face_body(faces: np.ndarray) -> OtherBody:
    """The middles of SMPL's triangles, in cm: 13,776 vertices."""
    count = len(faces)
    leaving: dict[tuple[int, int], int] = {}
    for number, (a, b, c) in enumerate(faces.tolist()):
        leaving |= {(a, b): number, (b, c): number, (c, a): number}
    rings: dict[int, list[tuple[int, int]]] = {}
    for (a, b), number in leaving.items():
        if (b, a) in leaving:  # turning about a, the neighbour beyond the edge comes before
            rings.setdefault(a, []).append((leaving[b, a], number))
    matrix = scipy.sparse.csr_array(
        (np.full(3 * count, 1 / 3), (np.repeat(np.arange(count), 3), faces.ravel())),
        shape=(count, int(faces.max()) + 1),
    )
    return OtherBody(matrix, np.array(_fans(rings)), 100.0)
