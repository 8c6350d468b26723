"""The closed outer skin: cavities cut off and capped, then thinned to SMPL's 6890 vertices by edge collapses.

All work is done on the left half, whose border is the midline, and mirrored at the end: so left and right
agree exactly. A collapse removes one end of an edge and moves nothing, so that every vertex kept is a
MakeHuman vertex and carries its targets and weights with it.
"""

from __future__ import annotations

import heapq
from collections import defaultdict

import numpy as np

from tools.open_body_build.source import Source

VERTICES = 6890
EYE_HELPER = np.arange(14598, 14670)  # the left eyeball of the base mesh


def skin_mesh(source: Source, shape: np.ndarray, vertices: int = VERTICES) -> tuple[np.ndarray, np.ndarray]:
    """Base-mesh ids (V,) and triangles (2V-4,3) of the skin; `shape` (N,3) is the mesh that the collapses
    judge."""
    half = _left_half(source, shape)
    kept = _thin(half, shape, source.mirror, vertices)
    return _mirrored(kept, source.mirror)


def _left_half(source: Source, shape: np.ndarray) -> np.ndarray:
    """Triangles of the capped left half, in base-mesh ids."""
    quads = source.quads[~source.in_cavity]
    left = quads[(shape[quads, 0] > -1e-9).all(1)]
    triangles = [t for q in left for t in _split(q, shape)]
    eye, mouth = _open_loops(left, source.mirror)
    cornea = EYE_HELPER[np.argmax(shape[EYE_HELPER, 2])]
    triangles += [(b, a, int(cornea)) for a, b in zip(eye, eye[1:] + eye[:1], strict=True)]
    # The lip line runs from the midline round the corner of the mouth back to the midline: zip it.
    last = len(mouth) - 1
    for k in range(last // 2):
        a, b, c, d = mouth[k], mouth[k + 1], mouth[last - k - 1], mouth[last - k]
        triangles.append((b, a, d))
        if b != c:
            triangles.append((c, b, d))
    return np.array(triangles)


def _split(quad: np.ndarray, shape: np.ndarray) -> list[tuple[int, int, int]]:
    a, b, c, d = (int(x) for x in quad)
    if np.linalg.norm(shape[a] - shape[c]) <= np.linalg.norm(shape[b] - shape[d]):
        return [(a, b, c), (a, c, d)]
    return [(a, b, d), (b, c, d)]


def _open_loops(quads: np.ndarray, mirror: np.ndarray) -> tuple[list[int], list[int]]:
    """The closed eye loop and the lip path from midline to midline, both along the border's direction."""
    edges = {(int(a), int(b)) for q in quads for a, b in zip(q, np.roll(q, -1), strict=True)}
    follow = {a: b for a, b in edges if (b, a) not in edges and not (mirror[a] == a and mirror[b] == b)}
    (start,) = [a for a in follow if mirror[a] == a]
    mouth = [start]
    while mouth[-1] in follow:
        mouth.append(follow.pop(mouth[-1]))
    first = next(iter(follow))
    eye = [first]
    while follow[eye[-1]] != first:
        eye.append(follow[eye[-1]])
    if len(eye) != len(follow):
        raise ValueError(
            f"expected one eye loop on the left, found {len(follow)} border edges but a loop of {len(eye)}"
        )
    return eye, mouth


class _HalfMesh:
    """Triangles with vertex fans, for collapses that keep the mirrored whole a manifold."""

    def __init__(self, triangles: np.ndarray, mirror: np.ndarray) -> None:
        self.faces = {i: tuple(int(x) for x in t) for i, t in enumerate(triangles)}
        self.fan: dict[int, set[int]] = defaultdict(set)
        for i, t in self.faces.items():
            for x in t:
                self.fan[x].add(i)
        self.middle = {x for x in self.fan if mirror[x] == x}
        self.count = sum(1 if x in self.middle else 2 for x in self.fan)

    def neighbours(self, x: int) -> set[int]:
        return {y for i in self.fan[x] for y in self.faces[i]} - {x}

    def shared(self, a: int, b: int) -> set[int]:
        return self.fan[a] & self.fan[b]

    def allowed(self, gone: int, stays: int, shape: np.ndarray) -> bool:
        both = self.shared(gone, stays)
        on_border = gone in self.middle
        if not both or (on_border and (stays not in self.middle or len(both) != 1)):
            return False
        opposite = {y for i in both for y in self.faces[i]} - {gone, stays}
        around = self.neighbours(gone)
        if around & self.neighbours(stays) != opposite:
            return False
        if stays in self.middle and not on_border:  # no chord between two midline vertices
            for other in (around & self.middle) - {stays}:
                if len(self.shared(other, stays)) != 1:
                    return False
        for i in self.fan[gone] - both:
            old = [shape[y] for y in self.faces[i]]
            new = [shape[stays] if y == gone else shape[y] for y in self.faces[i]]
            n_old, n_new = (
                np.cross(old[1] - old[0], old[2] - old[0]),
                np.cross(new[1] - new[0], new[2] - new[0]),
            )
            size = np.linalg.norm(n_new)
            edge = max(float(((new[k] - new[k - 1]) ** 2).sum()) for k in range(3))
            if n_old @ n_new < 0.3 * np.linalg.norm(n_old) * size or size < 0.06 * edge:
                return False
        return True

    def collapse(self, gone: int, stays: int) -> None:
        for i in self.shared(gone, stays):
            for y in self.faces.pop(i):
                self.fan[y].discard(i)
        for i in self.fan.pop(gone):
            self.faces[i] = tuple(stays if y == gone else y for y in self.faces[i])
            self.fan[stays].add(i)
        self.count -= 1 if gone in self.middle else 2
        self.middle.discard(gone)


def _quadrics(triangles: np.ndarray, shape: np.ndarray) -> dict[int, np.ndarray]:
    corner = shape[triangles]
    normal = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    area = np.linalg.norm(normal, axis=1)
    unit = normal / np.maximum(area, 1e-15)[:, None]
    plane = np.concatenate([unit, -(unit * corner[:, 0]).sum(1, keepdims=True)], 1)
    per_face = area[:, None, None] * plane[:, :, None] * plane[:, None, :]
    total: dict[int, np.ndarray] = defaultdict(lambda: np.zeros((4, 4)))
    for t, q in zip(triangles, per_face, strict=True):
        for x in t:
            total[int(x)] += q
    return total


def _thin(triangles: np.ndarray, shape: np.ndarray, mirror: np.ndarray, vertices: int) -> np.ndarray:
    mesh = _HalfMesh(triangles, mirror)
    quadric = _quadrics(triangles, shape)
    stamp: dict[int, int] = defaultdict(int)
    queue: list[tuple[float, int, int, int, int]] = []

    def add_collapse(gone: int, stays: int) -> None:
        point = np.append(shape[stays], 1.0)
        length = float(((shape[gone] - shape[stays]) ** 2).sum())
        # The length term spends the collapses evenly where the surface is flat.
        cost = float(point @ (quadric[gone] + quadric[stays]) @ point) + 2e-2 * length**2
        heapq.heappush(queue, (cost, gone, stays, stamp[gone], stamp[stays]))

    for x in list(mesh.fan):
        for y in mesh.neighbours(x):
            add_collapse(x, y)
    while mesh.count > vertices:
        _, gone, stays, at_gone, at_stays = heapq.heappop(queue)
        if (
            gone not in mesh.fan
            or stays not in mesh.fan
            or (stamp[gone], stamp[stays]) != (at_gone, at_stays)
        ):
            continue
        if mesh.count == vertices + 1 and gone not in mesh.middle:
            continue
        if not mesh.allowed(gone, stays, shape):
            continue
        around = mesh.neighbours(gone)
        mesh.collapse(gone, stays)
        quadric[stays] = quadric[stays] + quadric[gone]
        for x in around & set(mesh.fan):
            stamp[x] += 1
        for x in around & set(mesh.fan):
            for y in mesh.neighbours(x):
                add_collapse(x, y)
                add_collapse(y, x)
    return np.array(list(mesh.faces.values()))


def _mirrored(triangles: np.ndarray, mirror: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    whole = np.concatenate([triangles, mirror[triangles][:, [0, 2, 1]]])
    ids, faces = np.unique(whole, return_inverse=True)
    return ids, faces.reshape(-1, 3)
