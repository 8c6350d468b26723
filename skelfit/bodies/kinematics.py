"""SKEL's joints: from 46 angles to joint transforms, and the analytic derivative of the transforms.

Pure tensor functions over any leading batch dimensions (written `...`). Lengths are in metres, angles in radians.
World here means the frame of the T-posed template: x to the person's left, y up, z forward.
Source: Keller et al., "From Skin to Skeleton", TOG 2023, and SKEL v1.1.1's model file.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi

import torch
from torch import Tensor

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.axis_rotations import cross_matrix, nearest_rotation, rotations_about
from skelfit.bodies.dofs import (
    NUM_DOFS,
    NUM_JOINTS,
    SKEL_PARENTS,
    dof_axes,
    dof_index,
    dofs_of_joint,
)

LUMBAR, THORAX, HEAD, SCAPULA_R, SCAPULA_L = 11, 12, 13, 14, 19
# The bone of an ulna is the whole forearm: to the radius and then to the hand.
FOREARM_BONES = {16: (17, 18), 21: (22, 23)}
# Joints that keep the template's learned orientation for every shape.
_FIXED_ORIENTATION = (0, 5, 10, 13, 18, 23)
SPINE = (LUMBAR, THORAX, HEAD)
SPINE_BENDING = tuple(dof_index(f"{n}_bending") for n in ("lumbar", "thorax", "head"))
SPINE_EXTENSION = tuple(dof_index(f"{n}_extension") for n in ("lumbar", "thorax", "head"))
SCAPULAE = (SCAPULA_R, SCAPULA_L)
ABDUCTION = tuple(dof_index(f"scapula_abduction_{s}") for s in "rl")
ELEVATION = tuple(dof_index(f"scapula_elevation_{s}") for s in "rl")
_SIDE_SIGN = (1.0, -1.0)


def tree_levels(parents: tuple[int, ...] = SKEL_PARENTS) -> list[list[int]]:
    """Joints grouped by their depth below the root; the first group is the root alone."""
    depth: list[int] = []
    for p in parents:
        depth.append(0 if p < 0 else depth[p] + 1)
    return [[j for j, d in enumerate(depth) if d == level] for level in range(max(depth) + 1)]


_LEVELS = tree_levels()
_LEVEL_ORDER = [j for level in _LEVELS for j in level]
_JOINT_OF_ORDER = [_LEVEL_ORDER.index(j) for j in range(NUM_JOINTS)]


@dataclass(frozen=True)
class Rig:
    """The tables of SKEL's joints that do not depend on the person; made once from an asset by `make_rig`."""

    axes: Tensor  # (46, 3) DoF axes in their joint frames
    axis_cross: Tensor  # (46, 3, 3) the axes' cross-product matrices K
    axis_cross2: Tensor  # (46, 3, 3) K @ K
    slots: Tensor  # (24, 3) int64: the joint's DoFs in order of application; 46 where it has fewer than three
    apose_rot: Tensor  # (24, 3, 3)
    per_joint_rot: Tensor  # (24, 3, 3)
    template_bone: Tensor  # (24, 3) m, the template's bone vectors turned by per_joint_rot
    bone_child: Tensor  # (24,) int64: the joint whose offset is the joint's bone vector
    free: Tensor  # (24,) bool: joints whose orientation follows the shape

    def to(self, device: torch.device | str, dtype: torch.dtype) -> Rig:
        """The same rig on another device or in another float type."""
        moved = {k: v.to(device, dtype if v.is_floating_point() else None) for k, v in vars(self).items()}
        return Rig(**moved)


@dataclass(frozen=True)
class RestFrames:
    """The joints' positions and frames in the T-pose, which follow from the shape; made by `shape_frames`."""

    joints: Tensor  # (..., 24, 3) m, T-pose positions
    offsets: Tensor  # (..., 24, 3) m, from the parent; the root's own position for the root
    bone_rot: Tensor  # (..., 24, 3, 3) Rk
    frame: Tensor  # (..., 24, 3, 3) C = Rk Ra^T, joint frame -> T-posed world
    spine_length: Tensor  # (..., 3) m: lumbar, thorax, head
    thorax_width: Tensor  # (...,) m
    thorax_height: Tensor  # (...,) m

    def take(self, rows: Tensor) -> RestFrames:
        """The frames of some people of a batch; rows (K,) int64."""
        return RestFrames(**{k: v[rows] for k, v in vars(self).items()})

    def put(self, rows: Tensor, new: RestFrames) -> RestFrames:
        """These frames with those of some people replaced; rows (K,) int64."""
        return RestFrames(**{k: v.index_copy(0, rows, getattr(new, k)) for k, v in vars(self).items()})


@dataclass(frozen=True)
class PosedJoints:
    """Joint transforms of posed people; made by `pose_joints`."""

    local_rot: Tensor  # (..., 24, 3, 3) relative to the parent
    rot: Tensor  # (..., 24, 3, 3) global
    pos: Tensor  # (..., 24, 3) m, global, without the person's translation


def minimal_rotation(a: Tensor, b: Tensor) -> Tensor:
    """Smallest rotation that takes the direction of a (..., 3) to that of b (..., 3); (..., 3, 3).

    Undefined for opposite vectors, which bone vectors of one joint never are.
    """
    a = a / a.norm(dim=-1, keepdim=True)
    b = b / b.norm(dim=-1, keepdim=True)
    k = cross_matrix(torch.linalg.cross(a, b))
    cos = (a * b).sum(-1)[..., None, None]
    eye = torch.eye(3, dtype=a.dtype, device=a.device)
    return eye + k + k @ k / (1 + cos)


def make_rig(asset: SkelAsset) -> Rig:
    """The joint tables of a SKEL asset, float64 on the CPU."""
    axes = torch.tensor(dof_axes(), dtype=torch.float64)
    # The listed axes of ulna and radius are off unit length by 1e-8; normalised, their rotations are exact.
    axes = axes / axes.norm(dim=-1, keepdim=True)
    cross = cross_matrix(axes)
    slots = torch.full((NUM_JOINTS, 3), NUM_DOFS, dtype=torch.int64)
    for j in range(NUM_JOINTS):
        dofs = dofs_of_joint(j)
        slots[j, : len(dofs)] = torch.tensor(dofs)
    apose = torch.tensor(asset.apose_rel_transfo, dtype=torch.float64)
    # The files hold float32 rotations; made exact, a joint's frame is a rotation in float64 too.
    apose_rot = nearest_rotation(apose[:, :3, :3])
    per_joint_rot = nearest_rotation(torch.tensor(asset.per_joint_rot, dtype=torch.float64))
    first_child = [SKEL_PARENTS.index(j) if j in SKEL_PARENTS else 0 for j in range(NUM_JOINTS)]
    bone = apose[first_child, :3, 3].clone()
    for j, (radius, hand) in FOREARM_BONES.items():
        bone[j] = apose[radius, :3, 3] + apose[hand, :3, 3]
    bone_child = list(first_child)
    bone_child[THORAX] = THORAX  # the shaped vector of the thorax is the lumbar one
    free = torch.ones(NUM_JOINTS, dtype=torch.bool)
    free[list(_FIXED_ORIENTATION)] = False
    return Rig(
        axes=axes,
        axis_cross=cross,
        axis_cross2=cross @ cross,
        slots=slots,
        apose_rot=apose_rot,
        per_joint_rot=per_joint_rot,
        template_bone=(per_joint_rot @ bone[..., None])[..., 0],
        bone_child=torch.tensor(bone_child),
        free=free,
    )


def shape_frames(rig: Rig, joints: Tensor) -> RestFrames:
    """Joint frames of people with T-pose joints (..., 24, 3) m."""
    parents = list(SKEL_PARENTS[1:])
    offsets = torch.cat((joints[..., :1, :], joints[..., 1:, :] - joints[..., parents, :]), -2)
    bone = offsets[..., rig.bone_child, :]
    forearm = {
        j: offsets[..., radius, :] + offsets[..., hand, :] for j, (radius, hand) in FOREARM_BONES.items()
    }
    bone = torch.stack([forearm.get(j, bone[..., j, :]) for j in range(NUM_JOINTS)], -2)
    eye = torch.eye(3, dtype=joints.dtype, device=joints.device)
    # The bone vectors of the fixed joints are not used; a constant one keeps their gradient finite.
    safe_bone = torch.where(rig.free[:, None], bone, rig.template_bone.new_tensor((0.0, 1.0, 0.0)))
    safe_template = torch.where(
        rig.free[:, None], rig.template_bone, rig.template_bone.new_tensor((0.0, 1.0, 0.0))
    )
    turn = minimal_rotation(safe_template.expand_as(safe_bone), safe_bone)
    turn = torch.where(rig.free[:, None, None], turn, eye)
    bone_rot = turn @ rig.per_joint_rot
    spine = list(SPINE)
    above, below = joints[..., spine, 1], joints[..., [SKEL_PARENTS[j] for j in spine], 1]
    return RestFrames(
        joints=joints,
        offsets=offsets,
        bone_rot=bone_rot,
        frame=bone_rot @ rig.apose_rot.mT,
        spine_length=(above - below).abs(),
        thorax_width=(joints[..., SCAPULA_L, :] - joints[..., SCAPULA_R, :]).norm(dim=-1),
        thorax_height=(joints[..., THORAX, :] - joints[..., LUMBAR, :]).norm(dim=-1),
    )


def dof_rotations(rig: Rig, q: Tensor) -> Tensor:
    """The rotation of each DoF about its own axis, (..., 47, 3, 3); the last one is the identity."""
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    turns = rotations_about(q, rig.axis_cross, rig.axis_cross2)
    return torch.cat((turns, eye.expand(*q.shape[:-1], 1, 3, 3)), -3)


def _spine_curve(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Sideways and upward displacement of the end of a circular arc of unit length that turns by an angle."""
    return angle / 2 * _sine_share(angle / 2) ** 2, _sine_share(angle)


def _sine_share(x: Tensor) -> Tensor:
    """sin x / x; series near 0, where torch.sinc has no second derivative, and cancels in the first."""
    small = x.abs() < 0.1
    safe = torch.where(small, torch.ones_like(x), x)
    x2 = x * x
    series = 1 - x2 / 6 * (1 - x2 / 20 * (1 - x2 / 42 * (1 - x2 / 72)))
    return torch.where(small, series, torch.sin(safe) / safe)


def _scapula_angles(q: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    sign = q.new_tensor(_SIDE_SIGN)
    return sign, sign * q[..., list(ABDUCTION)], sign * q[..., list(ELEVATION)] - pi / 4


def _joint_offsets(frames: RestFrames, q: Tensor) -> Tensor:
    """Local joint translations (..., 24, 3) m: the shaped offsets, plus the sliding of spine and scapulae."""
    side_b, up_b = _spine_curve(q[..., list(SPINE_BENDING)])
    side_e, up_e = _spine_curve(q[..., list(SPINE_EXTENSION)])
    spine = torch.stack((-side_b, up_b + up_e - 2, -side_e), -1) * frames.spine_length[..., None]

    sign, a, e = _scapula_angles(q)
    w, h = frames.thorax_width[..., None], frames.thorax_height[..., None]
    rest_cos, rest_sin = torch.cos(e.new_tensor(-pi / 4)), torch.sin(e.new_tensor(-pi / 4))
    scapula = torch.stack(
        (
            -sign * w / 4 * (torch.cos(e) * torch.cos(a) - rest_cos),
            -h / 2 * (torch.sin(e) - rest_sin),
            w / 4 * torch.sin(a),
        ),
        -1,
    )
    slide = torch.zeros(*q.shape[:-1], NUM_JOINTS, 3, dtype=q.dtype, device=q.device)
    moving = torch.tensor(SPINE + SCAPULAE, device=q.device)
    slide = slide.index_copy(-2, moving, torch.cat((spine, scapula), -2))
    return frames.offsets + slide


# The pairs of DoFs in which a sliding offset has second derivatives: each sliding DoF with itself, then mixed pairs.
SLIDE_PAIRS = tuple((i, i) for i in (*SPINE_BENDING, *SPINE_EXTENSION, *ABDUCTION, *ELEVATION)) + tuple(
    zip(ELEVATION, ABDUCTION, strict=True)
)


def _compose(local_rot: Tensor, local_pos: Tensor) -> tuple[Tensor, Tensor]:
    """Global rotations and positions from local ones, one tree level at a time."""
    rots, poss = [local_rot[..., :1, :, :]], [local_pos[..., :1, :]]
    for above, level in zip(_LEVELS, _LEVELS[1:], strict=False):
        up = [above.index(SKEL_PARENTS[j]) for j in level]
        parent_rot, parent_pos = rots[-1][..., up, :, :], poss[-1][..., up, :]
        rots.append(parent_rot @ local_rot[..., level, :, :])
        poss.append(parent_pos + (parent_rot @ local_pos[..., level, :, None])[..., 0])
    return torch.cat(rots, -3)[..., _JOINT_OF_ORDER, :, :], torch.cat(poss, -2)[..., _JOINT_OF_ORDER, :]


def pose_joints(rig: Rig, frames: RestFrames, q: Tensor) -> PosedJoints:
    """Joint transforms of people posed by q (..., 46) rad, root included, translation not."""
    turns = dof_rotations(rig, q)
    first, second, third = (turns[..., rig.slots[:, k], :, :] for k in range(3))
    local_rot = frames.frame @ (third @ second @ first) @ frames.frame.mT
    rot, pos = _compose(local_rot, _joint_offsets(frames, q))
    return PosedJoints(local_rot, rot, pos)
