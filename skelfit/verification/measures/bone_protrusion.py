"""Bones outside the skin: the share of their vertices, and how far they stick out."""

from __future__ import annotations

import zlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.dofs import NUM_JOINTS
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import Array, BodyModels, PosedGroup, bone_vertices

# Of 24752 bone vertices, one in eight gives the same share; of a joint with few vertices more are needed.
_EVERY, _MIN_VERTICES = 8, 160
_GIANT_M = 100.0


@dataclass(frozen=True)
class BoneProtrusion:
    """Bone measures of S sampled people."""

    rows: NDArray[np.int64]  # (S,) which of the people
    share: Array  # (S,) of bone vertices outside the skin
    depth_mm: Array  # (S,) of the furthest vertex outside; 0 for none
    joint_share: Array  # (S,24) the share of each joint's bones; NaN for a joint without bones


@dataclass(frozen=True)
class BoneSample:
    """The bone vertices that are measured."""

    vertices: NDArray[np.int64]  # (K,) ascending
    joint: NDArray[np.int64]  # (K,) which joint's bone each is
    size: NDArray[np.int64]  # (24,) all vertices of each joint's bones


def bone_sample(asset: SkelAsset) -> BoneSample:
    """Random vertices of every joint's bones, the same in every run.

    Every n-th vertex would not do: on a tube with n vertices around, those form one line along the bone.
    """
    joint = asset.bone_weights_rigid.argmax(1)
    size = np.bincount(joint, minlength=NUM_JOINTS)
    rng = np.random.default_rng(0)
    chosen = [
        rng.permutation(np.flatnonzero(joint == j))[: max(n // _EVERY, _MIN_VERTICES)]
        for j, n in enumerate(size)
    ]
    vertices = np.sort(np.concatenate(chosen))
    return BoneSample(vertices, joint[vertices], size)


def in_sample(key: str, every: int) -> bool:
    """Whether a person is in the sample of one in `every`; depends on the key alone."""
    return zlib.crc32(key.encode()) % every == 0


def measure_bones(
    bodies: BodyModels, people: DecodedPeople, groups: list[PosedGroup], every: int
) -> BoneProtrusion:
    """Bones of one in `every` of the people whose bodies are posed in `groups`."""
    rows, shares, depths, by_joint = [], [], [], []
    for group in groups:
        size = np.abs(group.skin).max((1, 2))  # absurd betas make giants, whose bones say nothing
        chosen = [in_sample(people.keys[row], every) for row in group.rows]
        sampled = np.flatnonzero(np.array(chosen) & (size < _GIANT_M)).tolist()
        if not sampled:
            continue
        sample = bone_sample(group.skel.asset)
        count = np.bincount(sample.joint, minlength=NUM_JOINTS)
        surface = bodies.surface(group.skel.gender)
        for k, bones in zip(sampled, bone_vertices(group, sampled, sample.vertices), strict=True):
            distance = 1000 * surface.signed_distances(group.skin[k], bones).astype(np.float64)
            outside = distance > 0
            rows.append(group.rows[k])
            depths.append(max(float(distance.max()), 0.0))
            part = np.bincount(sample.joint[outside], minlength=NUM_JOINTS) / np.maximum(count, 1)
            shares.append((part * sample.size).sum() / sample.size.sum())
            by_joint.append(np.where(count > 0, part, np.nan))
    return BoneProtrusion(
        np.array(rows, np.int64), np.array(shares, float), np.array(depths, float),
        np.array(by_joint, float).reshape(-1, NUM_JOINTS),
    )  # fmt: skip
