"""SKEL's 24 anatomical joints on the open body: joint centres, joint frames, skinning weights."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.regressors import fit_regressor
from tools.open_body_build.shapes import ShapeSpace
from tools.open_body_build.smpl_rig import X, Y, Z, mixed_joint, rise, settle, summed

NAMES = (
    "pelvis femur_r tibia_r talus_r calcn_r toes_r femur_l tibia_l talus_l calcn_l toes_l lumbar_body "
    "thorax head scapula_r humerus_r ulna_r radius_r hand_r scapula_l humerus_l ulna_l radius_l hand_l"
).split()
PARENTS = np.array([-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 12, 14, 15, 16, 17, 12, 19, 20, 21, 22])
PARTNER = np.array(
    [NAMES.index(n[:-2] + {"_r": "_l", "_l": "_r"}[n[-2:]] if n[-2] == "_" else n) for n in NAMES]
)

# Joint -> (MakeHuman joints and shares, offset in metres on a person 1.70 m tall: x is lateral, y up, z
# forward).
# `s` is the side of the joint and `o` the other one. The offsets are what tells these from SMPL's joints.
RECIPES: dict[str, tuple[dict[str, float], tuple[float, float, float]]] = {
    "pelvis": ({"pelvis": 1.0}, (0, 0.055, 0.050)),
    "lumbar_body": ({"spine-4": 0.5, "spine-3": 0.5}, (0, 0, -0.015)),
    "thorax": ({"spine-2": 0.75, "spine-1": 0.25}, (0, 0, -0.020)),
    "head": ({"neck": 0.75, "head": 0.25}, (0, 0, -0.012)),
    "femur": ({"s-upper-leg": 0.95, "o-upper-leg": 0.05}, (0, 0.012, -0.006)),
    "tibia": ({"s-knee": 1.0}, (0, -0.008, -0.012)),
    "talus": ({"s-ankle": 1.0}, (0.002, -0.010, 0.006)),
    "calcn": ({"s-ankle": 1.0}, (0.004, -0.040, -0.038)),
    "toes": ({f"s-toe-{k}-1": 0.2 for k in range(1, 6)}, (0, -0.006, 0.004)),
    "scapula": ({"s-scapula": 0.55, "s-shoulder": 0.45}, (0, -0.012, -0.025)),
    "humerus": ({"s-scapula": 0.06, "s-shoulder": 0.94}, (0, -0.006, -0.006)),
    "ulna": ({"s-elbow": 1.0}, (-0.004, 0, -0.006)),
    "radius": ({"s-elbow": 0.94, "s-hand": 0.06}, (0, 0, 0.008)),
    "hand": ({"s-hand": 0.95, "s-finger-3-1": 0.05}, (0, 0, 0.003)),
}
SLABS = {
    "pelvis": (Y, 0.05, 0.30),
    "lumbar_body": (Y, 0.05, 0.30),
    "thorax": (Y, 0.05, 0.30),
    "head": (Y, 0.04, 0.15),
    "femur": (Y, 0.05, 0.16),
    "tibia": (Y, 0.05, 0.12),
    "talus": (Y, 0.04, 0.09),
    "calcn": (Z, 0.05, 0.09),
    "toes": (Z, 0.03, 0.08),
    "scapula": (X, 0.05, 0.20),
    "humerus": (X, 0.05, 0.15),
    "ulna": (X, 0.04, 0.10),
    "radius": (X, 0.04, 0.10),
    "hand": (X, 0.03, 0.07),
}
TRUNK_FRAME = np.stack([Z, Y, -X], 1)
RIGHT_ARM_FRAME, LEFT_ARM_FRAME = np.stack([Z, X, Y], 1), np.stack([Z, -X, -Y], 1)


def joint_centres(space: ShapeSpace) -> tuple[np.ndarray, np.ndarray]:
    """SKEL joints (24,3) and their shape motion (24,3,10)."""
    size = np.ptp(space.template[:, 1]) / 1.70
    mix, shift = [], []
    for name in NAMES:
        stem, side = (name[:-2], name[-1]) if name[-2] == "_" else (name, "")
        recipe, offset = RECIPES[stem]
        named = {k.replace("s-", f"{side}-", 1) if k[:2] == "s-" else k: v for k, v in recipe.items()}
        other = {"l": "r", "r": "l", "": ""}[side]
        named = {k.replace("o-", f"{other}-", 1) if k[:2] == "o-" else k: v for k, v in named.items()}
        mix.append(mixed_joint(named))
        shift.append(np.array(offset) * (-1 if side == "r" else 1, 1, 1) * size)
    rows = np.stack(mix)
    return rows @ space.joints + np.array(shift), np.einsum("jk,kcb->jcb", rows, space.joint_dirs)


def regressor(spaces: list[ShapeSpace], partner: np.ndarray) -> np.ndarray:
    """J_regressor_osim (24,6890), symmetric."""
    x = spaces[0].template[:, 0]
    side = np.array(
        [x > -1e-6 if n.endswith("_l") else x < 1e-6 if n.endswith("_r") else x < 9 for n in NAMES]
    )
    slabs = [SLABS[n[:-2] if n[-2] == "_" else n] for n in NAMES]
    rows = fit_regressor(spaces, [joint_centres(s) for s in spaces], slabs, side)
    return 0.5 * (rows + rows[PARTNER][:, partner])


def skin_weights(
    bones: dict[str, np.ndarray],
    template: np.ndarray,
    joints: np.ndarray,
    faces: np.ndarray,
    partner: np.ndarray,
) -> np.ndarray:
    """SKEL weights (V,24)."""
    at = {n: joints[k] for k, n in enumerate(NAMES)}
    weights = np.zeros((len(template), 24))
    trunk = summed(bones, "", "root", "spine") + sum(summed(bones, s, "pelvis", "breast") for s in "LR")
    for side in "LR":
        s = side.lower()

        def put(name: str, amount: np.ndarray, s: str = s) -> None:
            weights[:, NAMES.index(f"{name}_{s}")] = amount

        put("femur", summed(bones, side, "upperleg"))
        put("tibia", summed(bones, side, "lowerleg"))
        put("toes", summed(bones, side, "toe"))
        foot = summed(bones, side, "foot")
        away = np.linalg.norm(template - at[f"talus_{s}"], axis=1)
        ring = 0.8 * np.exp(-((away / 0.055) ** 2))
        put("talus", foot * ring)
        put("calcn", foot * (1 - ring))
        girdle = summed(bones, side, "clavicle", "shoulder01")
        # The chest wall under the shoulder blade moves with the ribs, so the scapula owns only a part of it.
        put("scapula", 0.85 * girdle)
        trunk = trunk + 0.15 * girdle
        put("humerus", summed(bones, side, "upperarm"))
        along = np.abs(template[:, 0] - at[f"ulna_{s}"][0]) / np.abs(at[f"hand_{s}"][0] - at[f"ulna_{s}"][0])
        twist = rise(along, 0.5, 0.5) * (np.abs(template[:, 0]) > np.abs(at[f"ulna_{s}"][0]))
        forearm = summed(bones, side, "lowerarm")
        put("ulna", forearm * (1 - twist))
        put("radius", forearm * twist)
        put("hand", summed(bones, side, "wrist", "metacarpal", "finger"))
    y = template[:, 1]
    low = rise(y, at["lumbar_body"][1], 0.085)
    high = rise(y, at["thorax"][1] + 0.01, 0.085)
    weights[:, NAMES.index("pelvis")] = trunk * (1 - low)
    weights[:, NAMES.index("lumbar_body")] = trunk * low * (1 - high)
    weights[:, NAMES.index("thorax")] = trunk * low * high + 0.75 * bones["neck01"] + 0.15 * bones["neck02"]
    weights[:, NAMES.index("head")] = 1.0 - weights.sum(1)
    return settle(weights, faces, partner, PARTNER, 5, rounds=4)


def joint_frames() -> np.ndarray:
    """C (24,3,3): frame of each joint in the T-posed world, as columns."""
    arms = ("humerus", "ulna", "radius", "hand")
    frames = []
    for name in NAMES:
        arm = name.startswith(arms)
        frames.append((RIGHT_ARM_FRAME if name.endswith("_r") else LEFT_ARM_FRAME) if arm else TRUNK_FRAME)
    return np.stack(frames)


def _about(axis: int, angle: float) -> np.ndarray:
    k = np.zeros((3, 3))
    i, j = (axis + 1) % 3, (axis + 2) % 3
    k[j, i], k[i, j] = 1.0, -1.0
    return np.eye(3) + np.sin(angle) * k + (1 - np.cos(angle)) * k @ k


def apose_rotations() -> np.ndarray:
    """Ra (24,3,3): an A-pose, arms lowered by 45 degrees.

    Two constraints come from the model's definition: the pelvis turns about y only (the height of the
    lumbar offset is read in its frame), and the hand's first bone axis is its thickness (so it turns a
    quarter about its length).
    """
    angle = {
        "pelvis": (1, 0.05),
        "femur": (0, 0.06),
        "tibia": (2, -0.08),
        "talus": (2, 0.05),
        "calcn": (1, 0.04),
        "toes": (2, 0.03),
        "lumbar_body": (2, 0.04),
        "thorax": (2, -0.05),
        "head": (2, 0.0),
        "scapula": (1, 0.15),
        "humerus": (0, 0.785),
        "ulna": (2, 0.2),
        "radius": (2, 0.2),
        "hand": (1, np.pi / 2),
    }
    out = []
    for name in NAMES:
        axis, value = angle[name[:-2] if name[-2] == "_" else name]
        out.append(_about(axis, -value if name.endswith("_l") and axis != 2 else value))
    return np.stack(out)


def apose(joints: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """apose_rel_transfo (24,4,4) and per_joint_rot (24,3,3) of a template with these joints (24,3).

    The bone vectors are the template's own, so that the minimal rotation of the shaped bones is the
    identity at beta 0. The thorax is measured by the model against the lumbar segment, so its first child
    (the head) is placed along that segment, at its own distance.
    """
    turn = apose_rotations()
    per_joint = joint_frames() @ turn
    rel = np.tile(np.eye(4), (24, 1, 1))
    rel[:, :3, :3] = turn
    rel[0, :3, 3] = joints[0]
    for j in range(1, 24):
        bone = joints[j] - joints[PARENTS[j]]
        if NAMES[j] == "head":
            spine = joints[NAMES.index("thorax")] - joints[NAMES.index("lumbar_body")]
            bone = spine * np.linalg.norm(bone) / np.linalg.norm(spine)
        rel[j, :3, 3] = per_joint[PARENTS[j]].T @ bone
    return rel, per_joint
