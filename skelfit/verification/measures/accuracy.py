"""Distances in mm of the fitted skin and joints to those of the label, both posed again from stored parameters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.joint_distances import JOINT_ERRORS, joint_errors
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.posed_bodies import MAX_M, Array, BodyModels, PosedGroup, Skin32

VERTICES = 6890
# Parts of the skin, by the SKEL joint that moves a vertex most.
PARTS: tuple[str, ...] = (
    "pelvis", "thigh_r", "shank_r", "foot_r", "thigh_l", "shank_l", "foot_l", "abdomen", "chest", "head",
    "shoulder_r", "upper_arm_r", "forearm_r", "hand_r", "shoulder_l", "upper_arm_l", "forearm_l", "hand_l",
)  # fmt: skip
_PART_OF_JOINT = (0, 1, 2, 3, 3, 3, 4, 5, 6, 6, 6, 7, 8, 9, 10, 11, 12, 12, 13, 14, 15, 16, 16, 17)


@dataclass(frozen=True)
class JointSet:
    """Points that a regressor gives for a posed skin. The root is the mean of the points in `root`."""

    regressor: str
    points: tuple[int, ...]
    root: tuple[int, ...]  # indices in `points`


_KEYPOINTS = "keypoints44.npz of the models, on both skins"
JOINT_SETS: Mapping[str, JointSet] = {
    "smpl24": JointSet("J_regressor of the label's SMPL, on both skins", tuple(range(24)), (0,)),
    "skel24": JointSet("J_regressor_osim of the fitted SKEL, on both skins", tuple(range(24)), (0,)),
    "openpose25": JointSet(_KEYPOINTS, tuple(range(25)), (8,)),
    "lsp14": JointSet(_KEYPOINTS, tuple(range(25, 39)), (2, 3)),
    "keypoints44": JointSet(_KEYPOINTS, tuple(range(44)), (39,)),
}


@dataclass(frozen=True)
class Accuracy:
    """Errors of N people in mm; NaN where the label has no SMPL parameters, or the models lack the regressor."""

    vertex_mm: Array  # (N,V) distance of each skin vertex
    pve_mm: Array  # (N,) mean of them
    max_vertex_mm: Array  # (N,)
    part_mm: Array  # (N,P) mean over the vertices of each of PARTS
    joints_mm: Mapping[str, Array]  # by joint set (N,3): not aligned, roots aligned, similarity-aligned
    stored_off_mm: Array  # (N,2) how far the stored PVE and max vertex error lie from these
    extremity_deg: Array  # (N,) root mean square rotation of SMPL's body joints in the label
    smpl_joints: Array  # (N,2,24,3) m, SMPL's joints of the label's and the fitted skin, with translation


def parts_of_vertices(asset: SkelAsset) -> NDArray[np.int64]:
    """Which of PARTS each skin vertex belongs to, (V,)."""
    return np.array(_PART_OF_JOINT)[np.asarray(asset.skin_weights).argmax(1)]


def measure_accuracy(bodies: BodyModels, people: DecodedPeople, groups: list[PosedGroup]) -> Accuracy:
    """The errors of people whose bodies are posed in `groups`."""
    n, fields = len(people), people.fields()

    def nans(*shape: int) -> Array:
        return np.full((n, *shape), np.nan)

    vertex, part, joints24 = nans(VERTICES), nans(len(PARTS)), nans(2, 24, 3)
    joints = {name: nans(len(JOINT_ERRORS)) for name in JOINT_SETS}
    for group in groups:
        if group.smpl_joints is None:
            continue
        distance = vertex_distances(group)
        vertex[group.rows] = distance
        vertex_part = parts_of_vertices(group.skel.asset)
        for p in range(len(PARTS)):
            part[group.rows, p] = distance[:, vertex_part == p].mean(1)
        regressors = {"smpl24": group.smpl_joints, "skel24": bodies.skel_joints(group.skel.gender)}
        if bodies.has_keypoints:
            regressors["keypoints44"] = bodies.keypoints()
        offset = group.target_to_skin
        points = {name: (r(group.target), r.moved(r(group.skin), offset)) for name, r in regressors.items()}
        for name, joint_set in JOINT_SETS.items():
            source = "keypoints44" if joint_set.regressor == _KEYPOINTS else name
            if source in points:
                label, fit = (x[:, list(joint_set.points)] for x in points[source])
                joints[name][group.rows] = joint_errors(label, fit, joint_set.root)
        trans = fields["smpl_trans"][group.rows].astype(np.float64)[:, None]
        joints24[group.rows] = np.stack([x + trans for x in points["smpl24"]], 1)
    pve, furthest = vertex.mean(1), vertex.max(1)
    return Accuracy(
        vertex_mm=vertex,
        pve_mm=pve,
        max_vertex_mm=furthest,
        part_mm=part,
        joints_mm=joints,
        stored_off_mm=np.abs(fields["errors"] - np.stack([pve, furthest], 1)),
        extremity_deg=np.where(np.isfinite(pve), _extremity(fields["smpl_pose"]), np.nan),
        smpl_joints=joints24,
    )


def vertex_distances(group: PosedGroup) -> Skin32:
    """Distances (K,V) mm of a group's fitted skins to those of the labels."""
    offset = np.clip(group.target_to_skin, -MAX_M, MAX_M).astype(np.float32)
    x, y, z = (group.skin[..., c] - group.target[..., c] + offset[:, None, c] for c in range(3))
    distances: Skin32 = np.float32(1000) * np.sqrt(x * x + y * y + z * z)
    return distances


def _extremity(pose: NDArray[np.float32]) -> Array:
    """Root mean square angle (N,) in degrees of SMPL's body joints, 1 to 21, of poses (N,24,3) axis-angle."""
    angle = np.linalg.norm(pose[:, 1:22].astype(np.float64), axis=-1)
    angle = np.abs((angle + np.pi) % (2 * np.pi) - np.pi)  # a whole turn is none
    rms: Array = np.degrees(np.sqrt((angle**2).mean(1)))
    return rms
