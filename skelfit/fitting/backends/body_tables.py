"""The joints and betas of a SKEL model, as tables for the kernels."""

# Warp reads annotations when it makes a struct, so that they cannot be postponed.
from typing import Any

import numpy as np
import warp as wp

from skelfit.bodies.dofs import DOF_JOINT, NUM_JOINTS, SKEL_PARENTS, dofs_of_joint
from skelfit.bodies.kinematics import FOREARM_BONES, tree_levels
from skelfit.bodies.skel import SkelModel

NUM_BETAS = 10  # K


@wp.struct
class BodyTables:
    """The tree of SKEL's joints, and how its K betas move them at rest. The T-posed frame: x left, y up, z forward."""

    parents: wp.array(dtype=int)  # (24,); -1: none
    first_dof: wp.array(dtype=int)  # (25,) of each joint
    order: wp.array(dtype=int)  # (24,) joints by their depth below the root
    level: wp.array(dtype=int)  # (levels + 1,) where each depth starts in `order`
    joints: wp.array2d(dtype=float)  # (24, 3) m, at rest, of betas 0
    speeds: wp.array3d(dtype=float)  # (24, 3, K) m per beta
    offsets: wp.array2d(dtype=float)  # (24, 3) m, from the parent, of betas 0; for the root its position
    offset_speeds: wp.array3d(dtype=float)  # (24, 3, K) m per beta
    bones: wp.array2d(dtype=int)  # (24, 2) joints whose offsets add up to a joint's bone vector; -1: none
    stretches: wp.array3d(dtype=float)  # (24, 3, K) m per beta, of a joint's bone vector
    directions: wp.array2d(dtype=float)  # (24, 3) unit, the template's bone
    axes: wp.array2d(dtype=float)  # (46, 3) the DoFs' axes in the frame of the T-posed template


def body_tables(model: SkelModel, device: str) -> BodyTables:
    """The tables of a model, on a device of Warp."""
    rig = model.rig.to("cpu", model.v_template.dtype)
    bones = np.full((NUM_JOINTS, 2), -1)
    free = rig.free.numpy()
    bones[free, 0] = rig.bone_child.numpy()[free]
    for joint, both in FOREARM_BONES.items():
        bones[joint] = both
    joints, speeds = (x.double().cpu().numpy() for x in (model.j_template, model.j_shapedirs))
    offsets, offset_speeds = _from_parents(joints), _from_parents(speeds)
    template = rig.template_bone.double().numpy()
    frame = (rig.per_joint_rot @ rig.apose_rot.mT)[list(DOF_JOINT)]
    levels = tree_levels()

    body = BodyTables()
    body.parents = _ints(SKEL_PARENTS, device)
    body.first_dof = _ints([dofs_of_joint(j)[0] for j in range(NUM_JOINTS)] + [len(DOF_JOINT)], device)
    body.order = _ints(np.concatenate(levels), device)
    body.level = _ints(np.cumsum([0, *map(len, levels)]), device)
    body.joints = _floats(joints, device)
    body.speeds = _floats(speeds, device)
    body.offsets = _floats(offsets, device)
    body.offset_speeds = _floats(offset_speeds, device)
    body.bones = _ints(bones, device)
    body.stretches = _floats(
        np.where((bones >= 0)[..., None, None], offset_speeds[bones], 0.0).sum(1), device
    )
    body.directions = _floats(template / np.linalg.norm(template, axis=1, keepdims=True), device)
    body.axes = _floats((frame @ rig.axes[..., None])[..., 0].numpy(), device)
    return body


def _from_parents(x: np.ndarray) -> np.ndarray:
    """Joints (24, ...) relative to their parents."""
    return np.concatenate((x[:1], x[1:] - x[list(SKEL_PARENTS[1:])]))


def _ints(x: object, device: str) -> Any:
    return wp.array(np.asarray(x, dtype=np.int32), dtype=int, device=device)


def _floats(x: np.ndarray, device: str) -> Any:
    return wp.array(x.astype(np.float32), dtype=float, device=device)
