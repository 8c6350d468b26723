"""SKEL's forward model: from betas and 46 angles to skin, joints, joint orientations and bones.

Batched and differentiable; every table is dense or gathered, so it runs on any device. Prepare a person's shape once
with `shape`, then pose it any number of times. Lengths in metres, angles in radians, frame as in
`skelfit.bodies.kinematics`. Source: Keller et al., TOG 2023, and the v1.1.1 model file.
"""

from __future__ import annotations

from copy import copy
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.axis_rotations import blend_shapes
from skelfit.bodies.dofs import NUM_DOFS, SMPL_JOINT_OF_SKEL
from skelfit.bodies.kinematics import (
    LUMBAR,
    THORAX,
    PosedJoints,
    RestFrames,
    Rig,
    make_rig,
    pose_joints,
    shape_frames,
)
from skelfit.errors import ArgumentError, found_text

# Bone scale along a bone's own axis from the distance of two skin vertices along a world axis:
# (joint, bone axis, world axis, vertex, vertex). The vertex numbers belong to SMPL's topology.
_WIDTHS: tuple[tuple[int, int, int, int, int], ...] = (
    (13, 0, 2, 410, 384),
    (13, 1, 1, 414, 384),
    (13, 2, 0, 196, 3708),
    (18, 0, 1, 6179, 6137),
    (18, 1, 0, 5670, 5906),
    (23, 0, 1, 6179, 6137),
    (23, 1, 0, 5670, 5906),
)
_CHEST_BACK, _CHEST_FRONT = 3027, (3495, 3506)
# A bone is as long as the offset of its child; the ulnae are measured by the hand, past the short radius offset.
_LENGTH_CHILD = {16: 18, 21: 23}


def corrective_sources() -> tuple[list[int], list[int]]:
    """SMPL joints (1..23) whose correctives SKEL drives, and the SKEL joint that drives each of them."""
    driver: dict[int, int] = {}
    for skel_joint, smpl_joint in enumerate(SMPL_JOINT_OF_SKEL):
        if smpl_joint > 0:
            driver[smpl_joint] = skel_joint
    smpl_joints = sorted(driver)
    return smpl_joints, [driver[j] for j in smpl_joints]


@dataclass(frozen=True)
class SkelShape:
    """A person's shape, prepared once: rest skin (..., V, 3) m and joint frames."""

    v_rest: Tensor
    frames: RestFrames


@dataclass(frozen=True)
class SkelOutput:
    """Posed people, in metres: skin (..., V, 3), joints (..., 24, 3), joint orientations (..., 24, 3, 3)."""

    vertices: Tensor
    joints: Tensor
    rotations: Tensor


class SkelModel:
    """SKEL of one gender. Holds tables only; every method is a pure function of its arguments."""

    def __init__(
        self, asset: SkelAsset, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
    ) -> None:
        if not isinstance(asset, SkelAsset):
            expected = "a SkelAsset, as load_models().skel_of(gender) gives it"
            raise ArgumentError("asset", expected, found_text(asset))

        def tensor(array: object) -> Tensor:
            return torch.tensor(array, device=device, dtype=dtype)

        self.asset = asset
        self.gender = asset.gender
        self.rig: Rig = make_rig(asset).to(device, dtype)
        self.v_template = tensor(asset.v_template)
        self.shapedirs = tensor(asset.shapedirs)
        self.weights = tensor(asset.skin_weights)
        # Joints are regressed once, in float64: 6890-term sums lose a micrometre in float32.
        regressor = torch.tensor(asset.J_regressor_osim, dtype=torch.float64)
        self.j_template = (regressor @ torch.tensor(asset.v_template, dtype=torch.float64)).to(device, dtype)
        self.j_shapedirs = torch.einsum(
            "jv,vcb->jcb", regressor, torch.tensor(asset.shapedirs, dtype=torch.float64)
        ).to(device, dtype)
        smpl_joints, self.corrective_joints = corrective_sources()
        columns = [9 * (j - 1) + k for j in smpl_joints for k in range(9)]
        self.posedirs = tensor(asset.posedirs[:, :, columns])  # (V, 3, 9 per driven joint)
        self.bone_v_template = tensor(asset.bone_v_template)
        self._bone_rigid = torch.tensor(asset.bone_weights_rigid.argmax(1), device=device)
        self._bone_weights = tensor(asset.bone_weights)

    @property
    def num_betas(self) -> int:
        """Number of shape components."""
        return int(self.shapedirs.shape[-1])

    def with_vertices(self, vertices: NDArray[np.int64] | Tensor) -> SkelModel:
        """The same body with only these skin vertices (K,). `bone_scale` needs the whole skin: do not use it here."""
        reduced = copy(self)
        for table in ("v_template", "shapedirs", "weights", "posedirs"):
            setattr(reduced, table, getattr(self, table)[vertices])
        return reduced

    def with_bone_vertices(self, vertices: NDArray[np.int64] | Tensor) -> SkelModel:
        """The same body with only these bone vertices (K,)."""
        reduced = copy(self)
        for table in ("bone_v_template", "_bone_rigid", "_bone_weights"):
            setattr(reduced, table, getattr(self, table)[vertices])
        return reduced

    def shape(self, betas: Tensor) -> SkelShape:
        """Prepare people of shape betas (..., 10)."""
        _expect_last(betas, self.num_betas, "betas")
        v_rest = self.v_template + torch.einsum("vcb,...b->...vc", self.shapedirs, betas)
        return SkelShape(v_rest, self.frames(betas))

    def frames(self, betas: Tensor) -> RestFrames:
        """Joint frames of people of shape betas (..., 10), without their skin."""
        joints = self.j_template + blend_shapes(self.j_shapedirs, betas)
        return shape_frames(self.rig, joints)

    def correctives(self, local_rot: Tensor) -> Tensor:
        """Pose-corrective offsets (..., V, 3) m of local joint rotations (..., 24, 3, 3)."""
        feature = corrective_feature(local_rot, self.corrective_joints)
        return torch.einsum("vcp,...p->...vc", self.posedirs, feature)

    def joints(self, frames: RestFrames, q: Tensor) -> PosedJoints:
        """Joint transforms of people posed by q (..., 46), without translation."""
        _expect_last(q, NUM_DOFS, "q")
        return pose_joints(self.rig, frames, q)

    def forward(self, shape: SkelShape, q: Tensor, trans: Tensor | None = None) -> SkelOutput:
        """Skin, joints and joint orientations of people posed by q (..., 46) and moved by trans (..., 3)."""
        posed = self.joints(shape.frames, q)
        v_posed = shape.v_rest + self.correctives(posed.local_rot)
        vertices = _skin(v_posed, self.weights, posed, shape.frames.joints)
        joints = posed.pos
        if trans is not None:
            vertices, joints = vertices + trans[..., None, :], joints + trans[..., None, :]
        return SkelOutput(vertices, joints, posed.rot)

    def bones(self, shape: SkelShape, q: Tensor, trans: Tensor | None = None) -> Tensor:
        """Bone-mesh vertices (..., Vs, 3) m: each bone scaled to the person, then skinned to the joints."""
        posed = self.joints(shape.frames, q)
        scale = self.bone_scale(shape)
        local = self.bone_v_template * scale[..., self._bone_rigid, :]
        frames = shape.frames
        rest = (frames.bone_rot[..., self._bone_rigid, :, :] @ local[..., None])[..., 0]
        rest = rest + frames.joints[..., self._bone_rigid, :]
        bones = _skin(rest, self._bone_weights, posed, frames.joints)
        return bones if trans is None else bones + trans[..., None, :]

    def bone_scale(self, shape: SkelShape) -> Tensor:
        """Scale of each bone along its own axes, (..., 24, 3): joint distances, and skin widths for head and hands."""
        offsets, v = shape.frames.offsets, shape.v_rest
        apose = torch.tensor(self.asset.apose_rel_transfo[:, :3, 3], device=v.device, dtype=v.dtype)
        # Joints without a child keep their size; index 1 is only a placeholder for them.
        child = [_LENGTH_CHILD.get(j, int(c)) for j, c in enumerate(self.rig.bone_child.tolist())]
        ratio = (offsets.norm(dim=-1)[..., 1:] / apose.norm(dim=-1)[1:])[..., [max(c, 1) - 1 for c in child]]
        ratio = torch.where(
            torch.tensor([c > 0 for c in child], device=v.device), ratio, torch.ones_like(ratio)
        )
        columns = [[length] * 3 for length in ratio.unbind(-1)]
        columns[LUMBAR] = [offsets[..., LUMBAR, 1].abs() / apose[LUMBAR, 1].abs()] * 3
        v0 = self.v_template

        def width(a: int, b: int, axis: int) -> Tensor:
            return (v[..., a, axis] - v[..., b, axis]) / (v0[a, axis] - v0[b, axis])

        for joint, bone_axis, world_axis, a, b in _WIDTHS:
            columns[joint][bone_axis] = width(a, b, world_axis)
        depth = torch.minimum(*(width(_CHEST_BACK, front, 2) for front in _CHEST_FRONT))
        columns[THORAX][0] = columns[LUMBAR][0] = depth
        return torch.stack([torch.stack(c, -1) for c in columns], -2)


def corrective_feature(local_rot: Tensor, joints: list[int]) -> Tensor:
    """vec(R - I) of the given joints of local_rot (..., 24, 3, 3), joint-major: (..., 9 per joint)."""
    eye = torch.eye(3, dtype=local_rot.dtype, device=local_rot.device)
    return (local_rot[..., joints, :, :] - eye).flatten(-3)


def skinning_transforms(posed: PosedJoints, rest_joints: Tensor) -> Tensor:
    """A = [R | p - R J] of each joint, (..., 24, 3, 4): takes rest points to posed ones."""
    shift = posed.pos - (posed.rot @ rest_joints[..., None])[..., 0]
    return torch.cat((posed.rot, shift[..., None]), -1)


def _skin(points: Tensor, weights: Tensor, posed: PosedJoints, rest_joints: Tensor) -> Tensor:
    """Linear blend skinning of points (..., N, 3) with weights (N, 24)."""
    blended = torch.einsum("vj,...jrc->...vrc", weights, skinning_transforms(posed, rest_joints))
    return (blended[..., :3] @ points[..., None])[..., 0] + blended[..., 3]


def _expect_last(value: Tensor, size: int, name: str) -> None:
    if value.ndim < 1 or value.shape[-1] != size:
        raise ValueError(f"{name}: expected shape (..., {size}), found {tuple(value.shape)}")
