"""placeholder of the first version: one capsule per bone"""

from __future__ import annotations

import numpy as np

from skelfit.body.open_body_build.skel_rig import NAMES, first_children

COUNT = 24752


def skeleton(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Vertices (24752,3) in the T-posed world, faces, bone of each vertex, blended weights (24752,24)."""
    vertices, faces, bone = [], [], []
    child = first_children()
    around, total = 32, 0
    for j in range(24):
        rings = (COUNT - total - 2 * (24 - j)) // (around * (24 - j))
        a = joints[j]
        b = joints[child[j]] if child[j] else a + {"d": (0, 0.12, 0), "r": (-0.12, 0, 0), "l": (0.12, 0, 0), "s": (0, 0, 0.04)}[
            "d" if NAMES[j] == "head" else "s" if "toes" in NAMES[j] else NAMES[j][-1]
        ]
        a, b = a + 0.1 * (b - a), b - 0.1 * (b - a)
        way = (b - a) / np.linalg.norm(b - a)
        side = np.cross(way, np.eye(3)[np.argmin(np.abs(way))])
        side /= np.linalg.norm(side)
        other = np.cross(way, side)
        t = np.linspace(0, 2 * np.pi, around, endpoint=False)
        radius = 0.010
        ring = [
            a + (b - a) * s + radius * np.sin(np.pi * min(0.5, 4 * min(s, 1 - s) + 0.02)) * (np.cos(t)[:, None] * side + np.sin(t)[:, None] * other)
            for s in np.linspace(0, 1, rings)
        ]
        start = total
        vertices += [*ring, a[None], b[None]]
        for r in range(rings - 1):
            for k in range(around):
                p, q = start + r * around + k, start + r * around + (k + 1) % around
                faces += [(p, q, q + around), (p, q + around, p + around)]
        low, high = start + rings * around, start + rings * around + 1
        for k in range(around):
            faces += [(start + (k + 1) % around, start + k, low)]
            last = start + (rings - 1) * around
            faces += [(last + k, last + (k + 1) % around, high)]
        total += rings * around + 2
        bone += [j] * (rings * around + 2)
    while total < COUNT:
        f = faces.pop(0)
        flat = np.concatenate(vertices)
        vertices.append(flat[list(f)].mean(0)[None])
        faces += [(f[0], f[1], total), (f[1], f[2], total), (f[2], f[0], total)]
        bone.append(bone[f[0]])
        total += 1
    index = np.array(bone)
    return np.concatenate(vertices), np.array(faces), index, np.eye(24)[index]
