"""Where the fit of a bare mesh starts: each body part laid onto the target by itself, then read as joint angles.

A part is the skin that hangs mostly on one joint. The rigid motion that takes it from rest to the target (weighted
Procrustes) is the joint's global rotation; relative to the parent's it is a local rotation, and from local rotations
`warm_start.body_angles` reads the angles, as it does for SMPL's. Parts too small or too blended to tell their own
rotation (talus, scapula, radius) take no part: the ankle is read between shin and foot, the arm between thorax and
upper arm, pronation between ulna and hand.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelfit.body.dofs import NUM_JOINTS, ROOT_DOFS
from skelfit.body.kinematics import Frames
from skelfit.body.lazy import roma
from skelfit.body.skel import SkelModel
from skelfit.fit.warm_start import body_angles, root_angles

# A part's rotation is read relative to the part before it; SMPL's joint of the same name takes it over.
# (SKEL joint of the part, SKEL joint that it turns against, SMPL joint)
_PARTS: tuple[tuple[int, int, int], ...] = (
    (0, -1, 0),  # pelvis
    (1, 0, 2), (2, 1, 5), (4, 2, 8), (5, 4, 11),  # right leg: femur, tibia, calcn, toes
    (6, 0, 1), (7, 6, 4), (9, 7, 7), (10, 9, 10),
    (11, 0, 3), (12, 11, 6), (13, 12, 12),  # lumbar, thorax, head
    (15, 12, 17), (16, 15, 19), (18, 16, 21),  # right arm: humerus, ulna, hand
    (20, 12, 16), (21, 20, 18), (23, 21, 20),
)  # fmt: skip
# A part is the vertices that hold at least this share of its joint's largest weight; each counts by a power of it.
_SHARE, _POWER = 0.75, 4


@dataclass(frozen=True)
class MeshParts:
    """The vertices of each rigid part and their weights; made once by `make_mesh_parts`."""

    rows: tuple[Tensor, ...]  # per part (n,) int64
    weights: tuple[Tensor, ...]  # per part (n,), sum 1


@dataclass(frozen=True)
class MeshStart:
    """Start of a mesh fit: angles (B, 46) rad, root included, and translation (B, 3) m."""

    q: Tensor
    trans: Tensor


def make_mesh_parts(model: SkelModel) -> MeshParts:
    """The rigid parts of a SKEL body."""
    rows, weights = [], []
    for joint, _, _ in _PARTS:
        weight = model.weights[:, joint]
        chosen = torch.nonzero(weight >= _SHARE * weight.max())[:, 0]
        power = weight[chosen] ** _POWER
        rows.append(chosen)
        weights.append(power / power.sum())
    return MeshParts(tuple(rows), tuple(weights))


def part_rotations(parts: MeshParts, rest: Tensor, target: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rotations (B, P, 3, 3) of the parts from rest (B, V, 3) to target (B, V, 3), and the first part's centroids.

    The centroids, (B, 3) m each, are the pelvis' at rest and on the target.
    """
    spread: list[Tensor] = []
    for rows, weights in zip(parts.rows, parts.weights, strict=True):
        x, y = rest[:, rows], target[:, rows]
        x_mean, y_mean = (weights @ x), (weights @ y)
        if not spread:
            centres = x_mean, y_mean
        spread.append((y - y_mean[:, None]).mT @ ((x - x_mean[:, None]) * weights[:, None]))
    return roma.special_procrustes(torch.stack(spread, 1)), *centres


def mesh_start(
    model: SkelModel,
    target: Tensor,
    betas: Tensor,
    parts: MeshParts | None = None,
    limits: np.ndarray | None = None,
) -> MeshStart:
    """Angles and translation with which SKEL roughly meets a mesh.

    target (B, V, 3) m in the model's topology, betas (B, 10); parts: from `make_mesh_parts`, made here if None;
    limits (46, 2) rad of the joints, None: the table's.
    """
    shape = model.shape(betas)
    frames = shape.frames
    return start_from(parts or make_mesh_parts(model), frames, shape.v_rest, target, limits)


def start_from(
    parts: MeshParts, frames: Frames, rest: Tensor, target: Tensor, limits: np.ndarray | None = None
) -> MeshStart:
    """As `mesh_start`, for people whose rest skin (B, V, 3) is given."""
    rotations, x_mean, y_mean = part_rotations(parts, rest, target)
    place = {joint: k for k, (joint, _, _) in enumerate(_PARTS)}
    local = torch.eye(3, dtype=rest.dtype, device=rest.device).repeat(len(rest), NUM_JOINTS, 1, 1)
    for joint, before, smpl_joint in _PARTS[1:]:
        local[:, smpl_joint] = rotations[:, place[before]].mT @ rotations[:, place[joint]]
    q = body_angles(frames.frame, local, limits)
    root = rotations[:, 0]
    q[:, list(ROOT_DOFS)] = root_angles(frames.frame[:, 0], root)
    pivot = frames.joints[:, 0]
    trans = y_mean - pivot - (root @ (x_mean - pivot)[..., None])[..., 0]
    return MeshStart(q, trans)
