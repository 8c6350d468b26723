"""SMPL's 24 joints on the open body: joint centres, skinning weights, joint regressor."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.regressors import fit_regressor
from tools.open_body_build.shapes import ShapeSpace
from tools.open_body_build.source import Source
from tools.open_body_build.tpose import joint_names

NAMES = (
    "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 l_foot r_foot neck l_collar r_collar "
    "head l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hand r_hand"
).split()
PARENTS = np.array([-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21])
PARTNER = np.array([NAMES.index({"l_": "r_", "r_": "l_"}.get(n[:2], n[:2]) + n[2:]) for n in NAMES])
Y, X, Z = np.array([0, 1.0, 0]), np.array([1.0, 0, 0]), np.array([0, 0, 1.0])


def mixed_joint(recipe: dict[str, float]) -> np.ndarray:
    """Row (J,) of MakeHuman joint shares."""
    row = np.zeros(len(joint_names()))
    for name, share in recipe.items():
        row[joint_names().index(name)] += share
    return row


def _recipes() -> list[dict[str, float]]:
    """SMPL's joints as mixtures of MakeHuman's, whose hips sit too far out and whose spine divides
    otherwise."""
    recipe: dict[str, dict[str, float]] = {
        "pelvis": {"pelvis": 0.5, "spine-4": 0.5},
        "spine1": {"spine-3": 1.0},
        "spine2": {"spine-2": 0.5, "spine-1": 0.5},
        "spine3": {"spine-2": 0.2, "spine-1": 0.8},
        "neck": {"neck": 1.0},
        "head": {"head": 1.0},
    }
    for s, o in ("lr", "rl"):
        ball = {f"{s}-toe-{k}-1": 0.17 for k in range(1, 6)}
        knuckles = {f"{s}-finger-{k}-1": 0.175 for k in range(2, 6)}
        recipe |= {
            f"{s}_hip": {f"{s}-upper-leg": 0.875, f"{o}-upper-leg": 0.125},
            f"{s}_knee": {f"{s}-knee": 1.0},
            f"{s}_ankle": {f"{s}-ankle": 1.0},
            f"{s}_foot": {f"{s}-ankle": 0.15, **ball},
            f"{s}_collar": {f"{s}-clavicle": 0.4, f"{s}-scapula": 0.6},
            f"{s}_shoulder": {f"{s}-shoulder": 1.0},
            f"{s}_elbow": {f"{s}-elbow": 1.0},
            f"{s}_wrist": {f"{s}-hand": 1.0},
            f"{s}_hand": {f"{s}-hand": 0.3, **knuckles},
        }
    return [recipe[n] for n in NAMES]


def joint_centres(space: ShapeSpace) -> tuple[np.ndarray, np.ndarray]:
    """SMPL joints (24,3) and their shape motion (24,3,10)."""
    mix = np.stack([mixed_joint(r) for r in _recipes()])
    return mix @ space.joints, np.einsum("jk,kcb->jcb", mix, space.joint_dirs)


def slab_of(name: str) -> tuple[np.ndarray, float, float]:
    """Direction, half thickness and radius of the skin slab that serves a joint."""
    stem = name.split("_")[-1]
    if name in ("pelvis", "spine1", "spine2", "spine3"):
        return Y, 0.05, 0.30
    return {
        "neck": (Y, 0.04, 0.15),
        "head": (Y, 0.04, 0.15),
        "hip": (Y, 0.05, 0.16),
        "knee": (Y, 0.05, 0.12),
        "ankle": (Y, 0.04, 0.09),
        "foot": (Z, 0.04, 0.08),
        "collar": (X, 0.05, 0.22),
        "shoulder": (X, 0.05, 0.15),
        "elbow": (X, 0.04, 0.10),
        "wrist": (X, 0.03, 0.07),
        "hand": (X, 0.03, 0.07),
    }[stem]


def regressor(spaces: list[ShapeSpace], partner: np.ndarray) -> np.ndarray:
    """J_regressor (24,6890), symmetric."""
    x = spaces[0].template[:, 0]
    side = np.array(
        [x > -1e-6 if n.startswith("l_") else x < 1e-6 if n.startswith("r_") else x < 9 for n in NAMES]
    )
    rows = fit_regressor(spaces, [joint_centres(s) for s in spaces], [slab_of(n) for n in NAMES], side)
    return 0.5 * (rows + rows[PARTNER][:, partner])


def bone_matrix(source: Source, ids: np.ndarray) -> dict[str, np.ndarray]:
    """MakeHuman's weight of each bone on the skin vertices: name -> (V,)."""
    row_of = np.full(len(source.vertices), -1)
    row_of[ids] = np.arange(len(ids))
    out = {}
    for bone, (vertices, values) in source.bone_weights.items():
        column = np.zeros(len(ids))
        here = row_of[vertices] >= 0
        column[row_of[vertices[here]]] = values[here]
        out[bone] = column
    out["head"] = out["head"] + (1.0 - sum(out.values()))  # the corneas are helper vertices without weights
    return out


def rise(value: np.ndarray, centre: float, half_width: float) -> np.ndarray:
    """Smooth step from 0 to 1 around `centre`."""
    t = np.clip((value - centre) / (2 * half_width) + 0.5, 0.0, 1.0)
    return t * t * (3 - 2 * t)


def summed(bones: dict[str, np.ndarray], side: str, *stems: str) -> np.ndarray:
    """Total weight of the bones of a side ('L', 'R' or '' for the unpaired) whose names start with a stem."""
    total = np.zeros(len(next(iter(bones.values()))))
    for bone, column in bones.items():
        stem, _, s = bone.partition(".")
        if s == side and stem.startswith(stems):
            total = total + column
    return total


def skin_weights(
    bones: dict[str, np.ndarray],
    template: np.ndarray,
    joints: np.ndarray,
    faces: np.ndarray,
    partner: np.ndarray,
) -> np.ndarray:
    """SMPL weights (V,24): limbs from the MakeHuman rig, the trunk divided by height."""
    weights = np.zeros((len(template), 24))
    for s in "LR":
        parts = {
            "hip": ("upperleg",),
            "knee": ("lowerleg",),
            "ankle": ("foot",),
            "foot": ("toe",),
            "collar": ("clavicle", "shoulder01"),
            "shoulder": ("upperarm",),
            "elbow": ("lowerarm",),
            "wrist": ("wrist", "metacarpal"),
            "hand": ("finger",),
        }
        for part, stems in parts.items():
            weights[:, NAMES.index(f"{s.lower()}_{part}")] = summed(bones, s, *stems)
    neck = bones["neck01"] + bones["neck02"] + 0.6 * bones["neck03"]
    spine = summed(bones, "", "root", "spine") + sum(summed(bones, s, "pelvis", "breast") for s in "LR")
    y = template[:, 1]
    a, b, c = (
        rise(y, joints[NAMES.index(n), 1], w)
        for n, w in (("spine1", 0.09), ("spine2", 0.06), ("spine3", 0.06))
    )
    weights[:, 0] = spine * (1 - a)
    weights[:, 3], weights[:, 6], weights[:, 9] = (
        spine * a * (1 - b),
        spine * a * b * (1 - c),
        spine * a * b * c,
    )
    weights[:, 12] = neck
    weights[:, 15] = 1.0 - weights.sum(1)
    return settle(weights, faces, partner, PARTNER, 4)


def settle(
    weights: np.ndarray,
    faces: np.ndarray,
    partner: np.ndarray,
    joint_partner: np.ndarray,
    most: int,
    rounds: int = 3,
) -> np.ndarray:
    """Smooth over the mesh, make symmetric, keep the `most` largest per vertex, rows summing to 1."""
    edges = np.unique(
        np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1), axis=0
    )
    degree = np.bincount(edges.ravel(), minlength=len(weights))[:, None]
    weights = np.maximum(weights, 0.0)
    for _ in range(rounds):
        total = np.zeros_like(weights)
        np.add.at(total, edges[:, 0], weights[edges[:, 1]])
        np.add.at(total, edges[:, 1], weights[edges[:, 0]])
        weights = 0.5 * weights + 0.5 * total / degree
    weights = 0.5 * (weights + weights[partner][:, joint_partner])
    order = np.argsort(-weights, axis=1, kind="stable")
    kept = np.zeros_like(weights)
    np.put_along_axis(kept, order[:, :most], np.take_along_axis(weights, order[:, :most], 1), 1)
    # A cut that splits a left-right tie on the midline drops both sides, to stay symmetric.
    kept = np.where(kept[partner][:, joint_partner] > 0, kept, 0.0)
    kept[kept < 2e-3] = 0.0
    return kept / kept.sum(1, keepdims=True)
