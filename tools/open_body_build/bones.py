"""The whole skeleton: all solids put together, kept inside the skin, brought to SKEL's vertex count."""

from __future__ import annotations

import heapq

import numpy as np
from scipy.spatial import cKDTree

from tools.open_body_build.bones_arm import arm_bones, clavicle, scapula
from tools.open_body_build.bones_leg import leg_bones
from tools.open_body_build.bones_pelvis import pelvis_bones
from tools.open_body_build.bones_skull import skull
from tools.open_body_build.bones_trunk import rib_cage, spine_bones
from tools.open_body_build.skel_rig import NAMES
from tools.open_body_build.smpl_rig import rise
from tools.open_body_build.solids import Body, Solid, Weigher, mirrored
from tools.open_body_build.tpose import joint_names

COUNT = 24752
CLEARANCE = 0.003


def body_of(
    skin: np.ndarray, skin_weights: np.ndarray, joints: np.ndarray, source_joints: np.ndarray
) -> Body:
    """The body that bones are fitted to: `joints` are SKEL's (24,3), `source_joints` those of
    `joint_names`."""
    trunk = skin_weights[:, [NAMES.index(n) for n in ("pelvis", "lumbar_body", "thorax")]].sum(1)
    return Body(
        at=dict(zip(joint_names(), source_joints, strict=True)),
        skel=dict(zip(NAMES, joints, strict=True)),
        skin=skin,
        trunk=trunk,
        head=skin_weights[:, NAMES.index("head")],
        size=float(np.ptp(skin[:, 1])) / 1.70,
    )


def skeletons(
    bodies: list[Body], faces: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (24752,3) in the T-posed world of each body (skin triangles `faces`); and, common to all,
    the bone faces, the bone of each vertex (24752,), the blended weights (24752,24)."""
    sets = [_solids(body) for body in bodies]
    first = sets[0]
    start = np.cumsum([0, *(len(s.vertices) for s in first)])
    if start[-1] > COUNT:
        raise ValueError(f"the solids have {start[-1]} vertices, {COUNT} is the most")
    triangles = np.concatenate([s.faces + a for s, a in zip(first, start, strict=False)])
    bone = np.concatenate([np.full(len(s.vertices), NAMES.index(s.bone)) for s in first])
    weights = np.concatenate(
        [
            np.eye(24)[bone[a : a + len(s.vertices)]] if s.weights is None else s.weights(s.vertices)
            for s, a in zip(first, start, strict=False)
        ]
    )
    vertices = [
        _inside(np.concatenate([s.vertices for s in part]), b, faces)
        for part, b in zip(sets, bodies, strict=True)
    ]
    return _filled(vertices, triangles, bone, weights)


def _solids(body: Body) -> list[Solid]:
    left = [*arm_bones(body), *leg_bones(body), clavicle(body, _clavicle_weights(body)), *scapula(body)]
    return [
        *skull(body),
        *spine_bones(body),
        *rib_cage(body),
        *pelvis_bones(body),
        *left,
        *map(mirrored, left),
    ]


def _clavicle_weights(body: Body) -> Weigher:
    end = float(body.skel["humerus_l"][0])

    def weigh(points: np.ndarray) -> np.ndarray:
        share = rise(points[:, 0], 0.5 * end, 0.5 * end)
        out = np.zeros((len(points), 24))
        out[:, NAMES.index("scapula_l")] = share
        out[:, NAMES.index("thorax")] = 1 - share
        return out

    return weigh


def _normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
    corner = vertices[faces]
    face = np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0])
    out = np.zeros_like(vertices)
    for c in range(3):
        np.add.at(out, faces[:, c], face)
    return out / np.linalg.norm(out, axis=1, keepdims=True)


def _inside(vertices: np.ndarray, body: Body, faces: np.ndarray) -> np.ndarray:
    """Move vertices that are too near the skin inside, along the normal of the nearest skin."""
    face_normal = _normals(body.skin, faces)
    points = np.concatenate([body.skin, body.skin[faces].mean(1)])
    normal = np.concatenate([face_normal, face_normal[faces].mean(1)])
    tree = cKDTree(points)
    for _ in range(3):
        near = tree.query(vertices)[1]
        out = ((vertices - points[near]) * normal[near]).sum(1) + CLEARANCE
        vertices = vertices - np.maximum(out, 0.0)[:, None] * normal[near]
    return vertices


def _filled(
    vertices: list[np.ndarray], faces: np.ndarray, bone: np.ndarray, weights: np.ndarray
) -> tuple[list[np.ndarray], np.ndarray, np.ndarray, np.ndarray]:
    """Split the longest edges, as judged on the first body, until the count is met."""
    points, triangles = [*vertices[0]], {}
    owner: dict[tuple[int, int], int] = {}
    queue: list[tuple[float, int, int]] = []

    def add(index: int, triangle: tuple[int, int, int]) -> None:
        triangles[index] = triangle
        for k in range(3):
            a, b = triangle[k - 1], triangle[k]
            owner[a, b] = index
            heapq.heappush(queue, (-float(((points[a] - points[b]) ** 2).sum()), a, b))

    for i, f in enumerate(faces):
        add(i, (int(f[0]), int(f[1]), int(f[2])))
    number, split = len(triangles), []
    while len(points) < COUNT:
        _, a, b = heapq.heappop(queue)
        if (a, b) not in owner or (b, a) not in owner:
            continue
        middle = len(points)
        points.append(0.5 * (points[a] + points[b]))
        split.append((a, b))
        for p, q in ((a, b), (b, a)):
            triangle = triangles.pop(owner.pop((p, q)))
            (c,) = set(triangle) - {p, q}
            add(number, (p, middle, c))
            add(number + 1, (middle, q, c))
            number += 2
    out, rows, bones = [[*v] for v in vertices], [*weights], [*bone]
    for a, b in split:
        for one in out:
            one.append(0.5 * (one[a] + one[b]))
        rows.append(0.5 * (rows[a] + rows[b]))
        bones.append(bones[a])
    return [np.array(v) for v in out], np.array(list(triangles.values())), np.array(bones), np.array(rows)
