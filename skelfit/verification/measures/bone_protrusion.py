"""Bones that stick out of the skin: how many of their vertices, and how far."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.dofs import NUM_JOINTS
from skelfit.verification.measures.decoded_samples import People
from skelfit.verification.measures.remade_bodies import Array, Bodies, Group, bone_vertices

# A person's bones have 24752 vertices: an eighth of a joint's tell the same, but of few bones more are needed.
_EVERY, _LEAST = 8, 160
_GIANT_M = 100.0


@dataclass(frozen=True)
class Bones:
    """Of the S people of a sample."""

    rows: NDArray[np.int64]  # (S,) which of the people
    share: Array  # (S,) of bone vertices outside the skin
    depth_mm: Array  # (S,) how far the furthest is outside; 0 for none
    joint_share: Array  # (S,24) the share of each joint's bones; NaN for a joint without bones


@dataclass(frozen=True)
class BoneSample:
    """The bone vertices that are looked at."""

    vertices: NDArray[np.int64]  # (K,) ascending
    joint: NDArray[np.int64]  # (K,) which joint's bone each is
    size: NDArray[np.int64]  # (24,) vertices of each joint's bones, those that are not looked at too


def bone_sample(asset: SkelAsset) -> BoneSample:
    """Some vertices of every joint's bones, by chance, the same every time.

    Not every n-th: where tubes have n vertices around, that is one line along a bone, and another one of its twin.
    """
    joint = asset.bone_weights_rigid.argmax(1)
    size = np.bincount(joint, minlength=NUM_JOINTS)
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(joint == j))[: max(n // _EVERY, _LEAST)] for j, n in enumerate(size)
    ]
    vertices = np.sort(np.concatenate(chosen))
    return BoneSample(vertices, joint[vertices], size)


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
        sample = bone_sample(group.skel.asset)
        count = np.bincount(sample.joint, minlength=NUM_JOINTS)
        surface = bodies.surface(group.skel.gender)
        for k, bones in zip(some, bone_vertices(group, some, sample.vertices), strict=True):
            outside = 1000 * surface.signed_distances(group.skin[k], bones).astype(np.float64)
            out = outside > 0
            rows.append(group.rows[k])
            depths.append(max(float(outside.max()), 0.0))
            part = np.bincount(sample.joint[out], minlength=NUM_JOINTS) / np.maximum(count, 1)
            shares.append((part * sample.size).sum() / sample.size.sum())
            by_joint.append(np.where(count > 0, part, np.nan))
    return Bones(
        np.array(rows, np.int64), np.array(shares, float), np.array(depths, float),
        np.array(by_joint, float).reshape(-1, NUM_JOINTS),
    )  # fmt: skip
