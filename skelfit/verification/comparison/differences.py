"""Differences of the same people in two sources: angles, rotations, joints, skins, limits, betas.

Both sides are posed by the same functions from parameters alone. Differences are file minus shards, in degrees and
millimetres; NaN where not known.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.angle_continuity import canonical_angles
from skelfit.bodies.dofs import DOF_JOINT, dof_limits, limits_middle
from skelfit.bodies.joint_distances import joint_errors
from skelfit.shards.label_vector import pack
from skelfit.verification.comparison.skel_labels import SkelLabels
from skelfit.verification.measures.anatomy import beyond
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import Array, BodyModels, Skin32

JOINTS = len(set(DOF_JOINT))
_TURN = 2 * np.pi


@dataclass(frozen=True)
class Differences:
    """The differences of N people."""

    dofs_deg: Array  # (N,46) of the angles, between -180 and 180
    turns_deg: (
        Array  # (N,24) angle between the rotations of each joint in its own frame; the pelvis' in the world
    )
    # Mean distances; not aligned, they are NaN where the file has no translations.
    joints_mm: Array  # (N,3) of the 24 joints, as in JOINT_ERRORS
    skin_mm: Array  # (N,2) of the skins: not aligned, and with the pelvis joints aligned
    to_label_mm: Array  # (N,2) of each skin to the label's mesh, centroids aligned
    excess_deg: Array  # (N,2,46) of each side's angles beyond the limits
    betas: Array  # (N,10); NaN where the genders of the two SKEL bodies differ

    def __len__(self) -> int:
        return len(self.dofs_deg)


@dataclass(frozen=True)
class _PosedSide:
    """People as one side has them, without translation."""

    poses: Array  # (N,46) rad
    joints: Array  # (N,24,3) m
    turns: Array  # (N,24,3,3) rotations of the joints in their own frames
    skin: Skin32  # (N,V,3) m
    target: Skin32  # (N,V,3) m, the label's mesh; NaN where there is none

    def rooted(self) -> Skin32:
        """The skins with their pelvis joints at 0."""
        return (self.skin - self.joints[:, :1]).astype(np.float32)


# (N,V,3) m of the shards and of the file, pelvis joints at 0.
Skins = tuple[Skin32, Skin32]


def differences(
    bodies: BodyModels, people: DecodedPeople, labels: SkelLabels, rows: NDArray[np.int64]
) -> tuple[Differences, Skins]:
    """People of shards beside rows (N,) of a label file. Raises ModelError."""
    one, other = _posed(bodies, people), _posed(bodies, _people_of_file(people, labels, rows))
    offset: Array = np.zeros((len(people), 3))
    if labels.trans is not None:
        offset = labels.trans[rows].astype(np.float64) - people.fields()["skel_trans"].astype(np.float64)
    joints = joint_errors(one.joints, other.joints + offset[:, None], (0,))
    rooted = one.rooted(), other.rooted()
    skin = np.stack([_mean_mm(other.skin - one.skin + offset[:, None]), _mean_mm(rooted[1] - rooted[0])], 1)
    if labels.trans is None:
        joints[:, 0] = skin[:, 0] = np.nan
    same = labels.female[rows] == np.array([meta["skel_gender"] == "female" for meta in people.metas])
    betas = labels.betas[rows].astype(np.float64) - people.fields()["skel_betas"]
    limits = dof_limits()
    result = Differences(
        dofs_deg=np.degrees((other.poses - one.poses + np.pi) % _TURN - np.pi),
        turns_deg=_angles(one.turns, other.turns),
        joints_mm=joints,
        skin_mm=skin,
        to_label_mm=np.stack([_mean_mm(_centered(side.skin - one.target)) for side in (one, other)], 1),
        excess_deg=np.degrees(
            np.stack([beyond(_without_whole_turns(side.poses), limits) for side in (one, other)], 1)
        ),
        betas=np.where(same[:, None], betas, np.nan),
    )
    return result, rooted


def _people_of_file(people: DecodedPeople, labels: SkelLabels, rows: NDArray[np.int64]) -> DecodedPeople:
    """The same people as the file has them, without SMPL labels."""
    fields = {name: part.copy() for name, part in people.fields().items()}
    fields |= {"skel_poses": labels.poses[rows], "skel_betas": labels.betas[rows]}
    genders = np.where(labels.female[rows], "female", "male").tolist()
    unknown = {"smpl": False, "target_gender": None, "angles": "canonical"}
    metas = [
        {**meta, **unknown, "skel_gender": gender} for meta, gender in zip(people.metas, genders, strict=True)
    ]
    return DecodedPeople(people.shard, people.keys, pack(fields), tuple(metas))


@torch.no_grad()
def _posed(bodies: BodyModels, people: DecodedPeople) -> _PosedSide:
    n, poses = len(people), people.fields()["skel_poses"].astype(np.float64)
    # Angles of a sequence are continuous in time: they may lie whole turns away, or on the other Euler branch.
    is_continuous = np.array([meta["angles"] == "continuous" for meta in people.metas], bool)
    poses[is_continuous] = canonical_angles(poses[is_continuous])
    joints, rotations = np.empty((n, JOINTS, 3)), np.empty((n, JOINTS, 3, 3))
    skins: list[Skin32] = []
    groups = bodies.pose(people)
    for group in groups:
        frames = group.frames.frame
        joints[group.rows] = group.joints
        local = group.skel.joints(group.frames, group.pose).local_rot
        rotations[group.rows] = (frames.mT @ local @ frames).numpy()
    for name in ("skin", "target"):
        whole = np.empty((n, *groups[0].skin.shape[1:]), np.float32)
        for group in groups:
            whole[group.rows] = getattr(group, name)
        skins.append(whole)
    return _PosedSide(poses, joints, rotations, skins[0], skins[1])


def _without_whole_turns(poses: Array) -> Array:
    """Angles (N,46) rad within half a turn of the middle of their limits."""
    middle = limits_middle()
    unwound: Array = middle + (poses - middle + np.pi) % _TURN - np.pi
    return unwound


def _angles(one: Array, other: Array) -> Array:
    """Angles (...) in degrees between rotations (...,3,3), from their distance: exact for small angles."""
    chord = np.sqrt(((one - other) ** 2).sum((-2, -1)) / 8)
    angles: Array = np.degrees(2 * np.arcsin(np.clip(chord, 0, 1)))
    return angles


def _mean_mm(vectors: NDArray[np.floating]) -> Array:
    """Mean lengths (N,) mm of vectors (N,V,3) m."""
    means: Array = 1000 * np.sqrt((vectors.astype(np.float64) ** 2).sum(-1)).mean(1)
    return means


def _centered(vectors: Skin32) -> Array:
    """Vectors (N,V,3) less their mean."""
    centered: Array = vectors - vectors.mean(1, keepdims=True, dtype=np.float64)
    return centered
