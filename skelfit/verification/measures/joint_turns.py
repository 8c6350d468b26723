"""Rotations of joints from frame to frame: of SKEL's joints in the fit, and of SMPL's joints in the label.

The angle between two rotations does not depend on their Euler angles: gimbal lock and whole turns do not matter. The
rotation of a joint is that of its degrees of freedom, in the joint's own frame. Constant rotations, such as the rest
orientation of a bone, do not change the angle between two frames.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import NUM_JOINTS, dof_axes, dofs_of_joint
from skelfit.verification.measures.posed_bodies import Array

Quaternions = NDArray[np.float32]  # (..., 24, 4) x y z w; NaN where not known

# SKEL joint -> the SMPL joints whose product of rotations, from the trunk outwards, it corresponds to. SKEL's scapula
# has a small range, so the humerus takes the rotations of collar and shoulder; forearms those of elbow and wrist.
LABEL_JOINTS: tuple[tuple[int, ...], ...] = (
    (0,), (2,), (5,), (8,), (8,), (11,), (1,), (4,), (7,), (7,), (10,), (3,), (6, 9), (12, 15),
    (14,), (14, 17), (19,), (19, 21), (21,), (13,), (13, 16), (18,), (18, 20), (20,),
)  # fmt: skip
BODY = slice(1, NUM_JOINTS)  # of SKEL: all joints but the pelvis
LABEL_BODY = slice(1, 22)  # of SMPL: all but the pelvis and the hands, which labels do not move


def fit_rotations(poses: NDArray[np.floating[Any]]) -> Quaternions:
    """Joint rotations (N,24,4) of SKEL's angles (N,46) rad."""
    axes = dof_axes() / np.linalg.norm(dof_axes(), axis=1, keepdims=True)
    vectors = np.zeros((3, len(poses), NUM_JOINTS, 3))
    for joint in range(NUM_JOINTS):
        for k, dof in enumerate(dofs_of_joint(joint)):
            vectors[k, :, joint] = np.asarray(poses[:, dof, None], np.float64) * axes[dof]
    first, second, third = (Rotation.from_rotvec(x.reshape(-1, 3)) for x in vectors)
    return _to_quaternions(third * second * first, len(poses))


def label_rotations(pose: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> Quaternions:
    """Rotations (N,24,4) of SMPL's own joints of poses (N,24,3) rad; NaN where `known` (N,) is false."""
    rotations = _to_quaternions(Rotation.from_rotvec(np.asarray(pose, np.float64).reshape(-1, 3)), len(pose))
    rotations[~known] = np.nan
    return rotations


def followed(label: Quaternions) -> Quaternions:
    """The label's rotations (N,24,4) that correspond to SKEL's joints, from those of SMPL's joints (N,24,4)."""
    known = np.isfinite(label).all(axis=(1, 2))
    rotations = np.full_like(label, np.nan)
    if known.any():
        turns = [Rotation.from_quat(label[known, j].astype(np.float64)) for j in range(NUM_JOINTS)]
        for joint, (first, *others) in enumerate(LABEL_JOINTS):
            turn = turns[first]
            for other in others:
                turn = turn * turns[other]
            rotations[known, joint] = turn.as_quat()
    return rotations


def _to_quaternions(turns: Rotation, people: int) -> Quaternions:
    quaternions: Quaternions = turns.as_quat().astype(np.float32).reshape(people, NUM_JOINTS, 4)
    return quaternions


def turns_between(one: Quaternions, two: Quaternions) -> Array:
    """Rotation vectors (P,24,3) in degrees from one set of rotations (P,24,4) to another, in the joints' frames."""
    known = np.isfinite(one).all(axis=(1, 2)) & np.isfinite(two).all(axis=(1, 2))
    vectors = np.full((*one.shape[:2], 3), np.nan)
    if known.any():
        a, b = (Rotation.from_quat(x[known].reshape(-1, 4).astype(np.float64)) for x in (one, two))
        vectors[known] = np.degrees((a.inv() * b).as_rotvec()).reshape(-1, NUM_JOINTS, 3)
    return vectors


def lengths(turns: Array) -> Array:
    """Angles (...) of rotation vectors (..., 3)."""
    angles: Array = np.linalg.norm(turns, axis=-1)
    return angles
