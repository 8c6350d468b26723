"""Pose correctives, linear in (R - I): they restore the volume that linear blend skinning loses at flexed joints."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.smpl_rig import NAMES, PARENTS, PARTNER

SAMPLES = 160
RIDGE = 0.05
AMOUNT = 0.8  # share of the loss that is given back: the full amount would bulge on the inner side
LIMIT = 0.03  # metres per unit of (R - I)
# Rotation vectors that are plausible for a left joint in the T-pose (low, high), radians.
RANGES = {
    "hip": ((-2.2, -0.5, -0.5), (0.6, 0.5, 0.9)),
    "knee": ((0.0, -0.2, -0.1), (2.2, 0.2, 0.1)),
    "ankle": ((-0.6, -0.4, -0.4), (0.8, 0.4, 0.4)),
    "foot": ((-0.6, -0.1, -0.1), (0.4, 0.1, 0.1)),
    "spine1": ((-0.4, -0.4, -0.4), (0.7, 0.4, 0.4)),
    "spine2": ((-0.4, -0.4, -0.4), (0.6, 0.4, 0.4)),
    "spine3": ((-0.4, -0.4, -0.4), (0.6, 0.4, 0.4)),
    "neck": ((-0.5, -0.7, -0.5), (0.6, 0.7, 0.5)),
    "head": ((-0.5, -0.7, -0.4), (0.6, 0.7, 0.4)),
    "collar": ((-0.2, -0.4, -0.4), (0.2, 0.4, 0.5)),
    "shoulder": ((-1.0, -1.6, -1.5), (1.0, 0.7, 1.2)),
    "elbow": ((-0.8, -2.3, -0.2), (0.8, 0.1, 0.2)),
    "wrist": ((-0.9, -0.5, -1.2), (0.9, 0.5, 1.2)),
    "hand": ((-0.2, -0.2, -0.9), (0.2, 0.2, 0.4)),
}


def _rotations(vectors: np.ndarray) -> np.ndarray:
    angle = np.linalg.norm(vectors, axis=-1)[..., None, None]
    x, y, z = np.moveaxis(vectors / np.maximum(angle[..., 0], 1e-12), -1, 0)
    zero = np.zeros_like(x)
    k = np.stack([np.stack([zero, -z, y], -1), np.stack([z, zero, -x], -1), np.stack([-y, x, zero], -1)], -2)
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _one_joint(template: np.ndarray, pivot: np.ndarray, share: np.ndarray, vectors: np.ndarray) -> np.ndarray:
    """Regression (n,3,9) of the lost skin of vertices that follow a joint by `share` (n,)."""
    rotation = _rotations(vectors)
    arm = template - pivot
    partial = _rotations(share[None, :, None] * vectors[:, None])
    blended = np.eye(3) + share[None, :, None, None] * (rotation[:, None] - np.eye(3))
    lost = np.einsum("snij,nj->sni", partial - blended, arm)
    # Into the rest frame. The blend is nearly singular at large angles, so its inverse is damped.
    square = np.einsum("snki,snkj->snij", blended, blended) + 0.02 * np.eye(3)
    rest = np.linalg.solve(square, np.einsum("snki,snk->sni", blended, lost)[..., None])[..., 0]
    features = (rotation - np.eye(3)).reshape(len(vectors), 9)
    gram = features.T @ features + RIDGE * len(vectors) * np.eye(9) * 0.02
    solution = np.linalg.solve(gram, features.T @ rest.reshape(len(vectors), -1))
    return AMOUNT * solution.reshape(9, -1, 3).transpose(1, 2, 0)


def posedirs(
    template: np.ndarray, joints: np.ndarray, weights: np.ndarray, partner: np.ndarray, seed: int = 0
) -> np.ndarray:
    """(V,3,207), symmetric left to right; the features are (R - I) of joints 1..23, row by row."""
    rng = np.random.default_rng(seed)
    out = np.zeros((len(template), 3, 24, 9))
    descends = np.eye(24, dtype=bool)
    for j in range(23, 0, -1):
        descends[PARENTS[j]] |= descends[j]
    for j, name in enumerate(NAMES[1:], 1):
        if name.startswith("r_"):
            continue
        share = weights[:, descends[j]].sum(1)
        mixed = np.flatnonzero((share > 1e-3) & (share < 1 - 1e-3))
        low, high = RANGES[name.removeprefix("l_")]
        vectors = rng.uniform(low, high, (SAMPLES, 3))
        out[mixed, :, j] = _one_joint(template[mixed], joints[j], share[mixed], vectors)
    flip = np.array([-1.0, 1.0, 1.0])
    sign = flip[:, None] * np.outer(flip, flip).reshape(1, 9)
    mirrored = out[partner][:, :, PARTNER] * sign[None, :, None]
    for j in range(1, 24):
        if NAMES[j].startswith("r_"):
            out[:, :, j] = mirrored[:, :, j]
        elif not NAMES[j].startswith("l_"):
            out[:, :, j] = 0.5 * (out[:, :, j] + mirrored[:, :, j])
    return np.clip(out[:, :, 1:], -LIMIT, LIMIT).reshape(len(template), 3, 207)
