"""Clinical angles after the ISB's recommendations, from SKEL's joint centres and joint axes.

Sources: Wu et al., J. Biomech. 35 (2002) 543-548 (hip, ankle, spine) and 38 (2005) 981-992 (shoulder, elbow);
Grood and Suntay, J. Biomech. Eng. 105 (1983) 136-144 (knee). Landmarks that SKEL does not have are replaced by its
joint centres and axes; docs/opensim.md has the table. Left segments are mirrored, so that both sides have the same
signs.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy.spatial.transform import Rotation

from skelfit.bodies.dofs import SKEL_JOINT_NAMES, dof_index
from skelfit.bodies.kinematics import RestFrames, Rig
from skelfit.exports.opensim_files.person_rig import Array

_JOINT = {name: j for j, name in enumerate(SKEL_JOINT_NAMES)}
_FORWARD, _UP, _RIGHT = np.array([0.0, 0, 1]), np.array([0.0, 1, 0]), np.array([-1.0, 0, 0])  # in the T-pose
_MIRROR = np.diag([1.0, 1, -1])

_LEG = (
    "hip_flexion", "hip_adduction", "hip_internal_rotation", "knee_flexion",
    "ankle_dorsiflexion", "ankle_inversion", "ankle_internal_rotation",
)  # fmt: skip
_ARM = (
    "shoulder_plane", "shoulder_elevation", "shoulder_internal_rotation", "elbow_flexion", "elbow_pronation",
)  # fmt: skip
CLINICAL_NAMES: tuple[str, ...] = (
    "trunk_flexion",
    "trunk_bending_right",
    "trunk_rotation_left",
    *(f"{name}_{side}" for names in (_LEG, _ARM) for side in "rl" for name in names),
)


def clinical_angles(orientations: Array, segments: dict[str, Array]) -> Array:
    """Angles (N,27) rad of CLINICAL_NAMES, each within half a turn.

    orientations: (N,24,3,3) of SKEL's joint frames in one ground; segments: as `anatomical_frames` gives them.
    """

    def turned(name: str, body: str, side: str = "") -> Array:
        frame: Array = orientations[:, _JOINT[body + side]] @ segments[name + side]
        return frame

    def between(proximal: Array, distal: Array, side: str = "") -> Array:
        turn: Array = np.swapaxes(proximal, -1, -2) @ distal
        return _MIRROR @ turn @ _MIRROR if side == "_l" else turn

    pelvis, thorax = turned("pelvis", "pelvis"), turned("thorax", "thorax")
    trunk = _euler(between(pelvis, thorax), "ZXY") * [-1, 1, 1]
    columns = [trunk]
    for side in ("_r", "_l"):
        thigh, shank = turned("thigh", "femur", side), turned("shank", "tibia", side)
        columns += [
            _euler(between(pelvis, thigh, side), "ZXY"),
            -_euler(between(thigh, shank, side), "ZXY")[:, :1],
            _euler(between(shank, turned("foot", "calcn", side), side), "ZXY"),
        ]
    for side in ("_r", "_l"):
        arm = turned("upper_arm", "humerus", side)
        plane, elevation, rotation = _euler(between(thorax, arm, side), "YXY").T
        # Of the two descriptions: the one whose elevation raises the arm in the plane, not behind it.
        shoulder = [_half_turn(plane + np.pi), elevation, _half_turn(rotation - np.pi)]
        elbow = _euler(between(arm, turned("forearm", "radius", side), side), "ZXY")
        columns += [np.stack(shoulder, 1), elbow[:, [0, 2]]]
    return np.concatenate(columns, axis=1)


def anatomical_frames(rig: Rig, frames: RestFrames) -> dict[str, Array]:
    """Each segment's axes (N,3,3) in SKEL's frame of its body, for N people: x forward, y towards the head, z right."""
    centers, axes = frames.joints.numpy(), frames.frame.numpy()

    def line(start: str, end: str) -> Array:
        along: Array = centers[:, _JOINT[end]] - centers[:, _JOINT[start]]
        return along

    def turning(dof: str) -> Array:
        """The axis of a DoF in the T-pose."""
        index = dof_index(dof)
        joint = int(torch.nonzero(rig.slots == index)[0, 0])
        axis: Array = axes[:, joint] @ rig.axes[index].double().numpy()
        return axis

    def local(body: str, along: Array, right: Array) -> Array:
        """y along a line; z in the plane of this line and `right`; in the frame of a body."""
        y = _unit(along)
        x = _unit(np.cross(y, right))
        frame: Array = np.swapaxes(axes[:, _JOINT[body]], -1, -2) @ np.stack([x, y, np.cross(x, y)], -1)
        return frame

    standing = np.stack([_FORWARD, _UP, _RIGHT], -1)
    own = np.broadcast_to(np.eye(3), (len(centers), 3, 3))
    result = {"pelvis": own, "thorax": np.swapaxes(axes[:, _JOINT["thorax"]], -1, -2) @ standing}
    for side, sign in (("_r", 1.0), ("_l", -1.0)):
        knee, elbow = -turning(f"knee_angle{side}"), turning(f"elbow_flexion{side}")
        # The axis of the wrist's flexion points to the thumb on the right, away from it on the left; that of pronation
        # to the elbow on the right, to the hand on the left.
        wrist, forearm = turning(f"wrist_flexion{side}"), sign * turning(f"pro_sup{side}")
        result[f"thigh{side}"] = local(f"femur{side}", line(f"tibia{side}", f"femur{side}"), knee)
        result[f"shank{side}"] = local(f"tibia{side}", line(f"talus{side}", f"tibia{side}"), knee)
        foot = line(f"calcn{side}", f"toes{side}") * [1, 0, 1]
        up = np.broadcast_to(_UP, foot.shape)
        result[f"foot{side}"] = local(f"calcn{side}", up, np.cross(foot, up))
        result[f"upper_arm{side}"] = local(f"humerus{side}", line(f"ulna{side}", f"humerus{side}"), elbow)
        result[f"forearm{side}"] = local(f"radius{side}", forearm, wrist)
    return result


def _euler(turns: Array, order: str) -> Array:
    """Angles (N,3) rad of rotations (N,3,3) about axes that turn with the body."""
    angles: Array = Rotation.from_matrix(turns).as_euler(order)
    return angles


def _half_turn(angle: Array) -> Array:
    wrapped: Array = np.remainder(angle + np.pi, 2 * np.pi) - np.pi
    return wrapped


def _unit(vectors: Array) -> Array:
    unit: Array = vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)
    return unit
