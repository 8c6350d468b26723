"""Bones that stick out of the skin: how many of their vertices, and how far."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.verify.bodies import Array, Bodies, Group, bone_vertices
from skelfit.verify.samples import People

# A person's bones have 24752 vertices: every eighth tells the same.
STRIDE = 8
_GIANT_M = 100.0


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
        joint = np.asarray(group.skel.asset.bone_weights_rigid).argmax(1)[::STRIDE]
        count = np.bincount(joint, minlength=24)
        surface = bodies.surface(group.skel.gender)
        for k, bones in zip(some, bone_vertices(group, some, STRIDE), strict=True):
            outside = 1000 * surface.signed_distances(group.skin[k], bones).astype(np.float64)
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
