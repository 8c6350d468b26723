"""MakeHuman's A-pose turned into SMPL's T-pose, with the joint centres of the MakeHuman rig carried along."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.source import Source

COLLAR_RAISE = np.radians(12.0)  # of the raise of the arm from MakeHuman's A-pose
# Left segments, parents first: name -> (parent, pivot joint, bones of the rig that it owns)
SEGMENTS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "trunk": ("", "pelvis", ()),
    "collar": ("trunk", "clavicle", ("clavicle", "shoulder01")),
    "upperarm": ("collar", "shoulder", ("upperarm01", "upperarm02")),
    "forearm": ("upperarm", "elbow", ("lowerarm01",)),
    "forearm_end": ("forearm", "elbow", ("lowerarm02",)),
    "hand": ("forearm_end", "hand", ("wrist", "metacarpal", "finger")),
    "thigh": ("trunk", "upper-leg", ("upperleg",)),
    "shin": ("thigh", "knee", ("lowerleg",)),
    "foot": ("shin", "ankle", ("foot", "toe")),
}
JOINT_SEGMENT = {"clavicle": "collar", "scapula": "collar", "shoulder": "upperarm", "elbow": "forearm"}
JOINT_SEGMENT |= {"hand": "hand", "upper-leg": "thigh", "knee": "shin", "ankle": "foot"}
CENTRAL_JOINTS = ("pelvis", "spine-4", "spine-3", "spine-2", "spine-1", "neck", "head", "head-2", "jaw")
FLIP = np.array([-1.0, 1.0, 1.0])


def side_joints() -> list[str]:
    """Names of the paired joints that are carried along, without their side."""
    names = [
        "clavicle",
        "scapula",
        "shoulder",
        "elbow",
        "hand",
        "upper-leg",
        "knee",
        "ankle",
        "foot-1",
        "foot-2",
        "eye",
    ]
    names += [f"finger-{k}-{n}" for k in range(1, 6) for n in range(1, 5)]
    return names + [f"toe-{k}-{n}" for k in range(1, 6) for n in range(1, 5 if k > 1 else 4)]


def joint_names() -> list[str]:
    """Central joints, then `l-` and `r-` of each paired one."""
    return [*CENTRAL_JOINTS, *(f"{s}-{n}" for n in side_joints() for s in "lr")]


def segment_weights(source: Source, ids: np.ndarray) -> np.ndarray:
    """Share of each left segment, then of each right one, in the given vertices: (V, 2S). Trunk takes the
    rest."""
    names = list(SEGMENTS)
    row_of = {int(v): k for k, v in enumerate(ids)}
    weights = np.zeros((len(ids), 2 * len(names)))
    for bone, (vertices, values) in source.bone_weights.items():
        stem, _, side = bone.partition(".")
        for s, (_, _, bones) in enumerate(SEGMENTS.values()):
            if side and stem.startswith(bones) and bones:
                column = s + (len(names) if side == "R" else 0)
                for v, w in zip(vertices, values, strict=True):
                    if int(v) in row_of:
                        weights[row_of[int(v)], column] += w
    weights[:, 0] = 1.0 - weights.sum(1)
    return weights


def _turn(axis: np.ndarray, angle: float) -> np.ndarray:
    x, y, z = axis / np.linalg.norm(axis)
    k = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def _frame(along: np.ndarray, across: np.ndarray) -> np.ndarray:
    x = along / np.linalg.norm(along)
    y = across - (across @ x) * x
    y = y / np.linalg.norm(y)
    return np.stack([x, y, np.cross(x, y)], 1)


def _partial(rotation: np.ndarray, share: float) -> np.ndarray:
    angle = np.arccos(np.clip((np.trace(rotation) - 1) / 2, -1.0, 1.0))
    axis = np.array(
        [rotation[2, 1] - rotation[1, 2], rotation[0, 2] - rotation[2, 0], rotation[1, 0] - rotation[0, 1]]
    )
    return np.eye(3) if np.linalg.norm(axis) < 1e-9 else _turn(axis, share * angle)


def _left_rotations(at: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """World rotation of each left segment that brings the body into the T-pose."""
    upper, fore = at["elbow"] - at["shoulder"], at["hand"] - at["elbow"]
    palm_out = np.cross(at["finger-2-1"] - at["hand"], at["finger-5-1"] - at["hand"])  # back of the left hand
    target = _frame(np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))
    hinge = np.cross(fore, upper)  # elbow axis: flexion brings the left forearm forward in the T-pose
    upperarm = target @ _frame(upper, hinge).T
    forearm = target @ _frame(fore, hinge).T
    middle = 0.5 * (at["finger-3-1"] + at["finger-4-1"]) - at["hand"]
    hand = target @ _frame(middle, palm_out).T
    twisted = target @ _frame(fore, palm_out).T
    thigh_vector, shin_vector = at["knee"] - at["upper-leg"], at["ankle"] - at["knee"]

    def upright(vector: np.ndarray, lean: float) -> np.ndarray:
        return _turn(np.array([0, 0, 1.0]), np.arctan2(lean, 1.0) - np.arctan2(vector[0], -vector[1]))

    return {
        "trunk": np.eye(3),
        "collar": _turn(np.array([0, 0, 1.0]), COLLAR_RAISE),
        "upperarm": upperarm,
        "forearm": _partial(twisted @ forearm.T, 0.35) @ forearm,
        "forearm_end": _partial(twisted @ forearm.T, 0.85) @ forearm,
        "hand": hand,
        "thigh": upright(thigh_vector, 0.03),
        "shin": upright(shin_vector, 0.0),
        "foot": np.eye(3),
    }


def to_tpose(
    vertices: np.ndarray, joints: dict[str, np.ndarray], weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """T-posed vertices (V,3) and joints (J,3) in the order of `joint_names`, symmetric left to right.

    `joints` are the A-posed centres of central and left joints, by name without side.
    """
    rotation = _left_rotations(joints)
    shift: dict[str, np.ndarray] = {}
    for name, (parent, pivot, _) in SEGMENTS.items():
        p = joints[pivot]
        above = p if not parent else rotation[parent] @ p + shift[parent]
        shift[name] = above - rotation[name] @ p
    r = np.stack([*rotation.values(), *(FLIP[:, None] * m * FLIP for m in rotation.values())])
    t = np.stack([*shift.values(), *(FLIP * m for m in shift.values())])
    posed = np.einsum("vs,sij,vj->vi", weights, r, vertices, optimize=True) + weights @ t
    out = [joints[n] for n in CENTRAL_JOINTS]
    for name in side_joints():
        segment = JOINT_SEGMENT.get(name)
        if segment is None:
            segment = {"f": "hand", "e": "trunk", "t": "foot"}[name[0]] if "foot" not in name else "foot"
        moved = rotation[segment] @ joints[name] + shift[segment]
        out += [moved, FLIP * moved]
    return posed, np.array(out)
