"""The open body: a substitute for SMPL and SKEL, free of licensed data, in their official schemas.

The compact file in `resources/` is made by `python -m tools.open_body_build` from CC0 MakeHuman
geometry (see docs/open-body.md). Frame and units are SMPL's: metres, y up, z forward, x to the person's
left, T-pose.
"""

from __future__ import annotations

import pickle
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

DATA = Path(__file__).parents[1] / "resources" / "open_body.npz"
VERTICES, JOINTS, BONE_VERTICES, BETAS = 6890, 24, 24752, 10
NO_PARENT = 4294967295

SMPL_PARENTS = (-1, 0, 0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9, 9, 12, 13, 14, 16, 17, 18, 19, 20, 21)
SMPL_PARTNER = (0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10, 12, 14, 13, 15, 17, 16, 19, 18, 21, 20, 23, 22)
SKEL_PARENTS = (-1, 0, 1, 2, 3, 4, 0, 6, 7, 8, 9, 0, 11, 12, 12, 14, 15, 16, 17, 12, 19, 20, 21, 22)
SKEL_JOINTS = (
    "pelvis femur_r tibia_r talus_r calcn_r toes_r femur_l tibia_l talus_l calcn_l toes_l lumbar_body "
    "thorax head scapula_r humerus_r ulna_r radius_r hand_r scapula_l humerus_l ulna_l radius_l hand_l"
).split()
_ARM = (
    "scapula_abduction scapula_elevation scapula_upward_rot shoulder__x shoulder__y shoulder__z elbow_flexion "
    "pro_sup wrist_flexion wrist_deviation"
).split()
_LEG = "hip_flexion hip_adduction hip_rotation knee_angle ankle_angle subtalar_angle mtp_angle".split()
SKEL_DOFS = [
    *"pelvis_tilt pelvis_list pelvis_rotation".split(),
    *(f"{name}_{side}" for side in "rl" for name in _LEG),
    *(
        f"{part}_{move}"
        for part in ("lumbar", "thorax", "head")
        for move in ("bending", "extension", "twist")
    ),
    *(
        name.replace("__", f"_{side}_") if "__" in name else f"{name}_{side}"
        for side in "rl"
        for name in _ARM
    ),
]


def open_body_models() -> dict[str, dict[str, Any]]:
    """'smpl_neutral', 'smpl_male', 'smpl_female', 'skel_male', 'skel_female' -> dict in the official file
    schema.

    Arrays are numpy or scipy.sparse; `posedirs` and faces are shared between the dicts, so treat them as
    read-only.
    """
    return unpacked_models(_packed())


def unpacked_models(packed: dict[str, np.ndarray]) -> dict[str, dict[str, Any]]:
    """As `open_body_models`, from the arrays of a compact file."""
    faces, posedirs = _faces(packed), _posedirs(packed)
    regressor = _table(packed, "J_regressor", (JOINTS, VERTICES))
    skin = {gender: _skin(packed, gender) for gender in ("neutral", "male", "female")}
    parents = np.array(SMPL_PARENTS, np.int64)
    kintree = np.stack([np.where(parents < 0, NO_PARENT, parents), np.arange(JOINTS)]).astype(np.uint32)
    models: dict[str, dict[str, Any]] = {}
    for gender, (template, shapedirs) in skin.items():
        models[f"smpl_{gender}"] = {
            "v_template": template,
            "f": faces,
            "shapedirs": shapedirs,
            "posedirs": posedirs,
            "J_regressor": regressor,
            "weights": _table(packed, "smpl_weights", (VERTICES, JOINTS)).toarray(),
            "kintree_table": kintree,
            "bs_style": "lbs",
            "bs_type": "lrotmin",
        }
    for gender in ("male", "female"):
        template, shapedirs = skin[gender]
        models[f"skel_{gender}"] = {
            "version": "1.1.1",
            "skin_template_v": template,
            "skin_template_f": faces,
            "shapedirs": shapedirs,
            "posedirs": posedirs,
            "J_regressor": regressor,
            "J_regressor_osim": _table(packed, "J_regressor_osim", (JOINTS, VERTICES)),
            "skin_weights": _table(packed, "skel_weights", (VERTICES, JOINTS)),
            **_skeleton(packed, gender),
        }
    return models


def open_keypoint_regressor() -> np.ndarray:
    """(44, 6890) float32: the 44 keypoints (25 OpenPose, then 19 extra) as weights of posed skin vertices."""
    return _table(_packed(), "keypoints44", (44, VERTICES)).toarray().astype(np.float32)


def write_official(models: dict[str, dict[str, Any]], folder: str | Path) -> list[Path]:
    """Write `SMPL_{NEUTRAL,MALE,FEMALE}.pkl` and `skel_{male,female}.pkl`; returns the paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for name, model in models.items():
        kind, gender = name.split("_")
        path = folder / (f"SMPL_{gender.upper()}.pkl" if kind == "smpl" else f"skel_{gender}.pkl")
        with open(path, "wb") as f:
            pickle.dump(model, f, protocol=2)  # the protocol of the official files
        paths.append(path)
    return paths


@lru_cache(maxsize=1)
def _packed() -> dict[str, np.ndarray]:
    with np.load(DATA, allow_pickle=False) as file:
        return dict(file)


def _whole(packed: dict[str, np.ndarray], half: np.ndarray, flip: np.ndarray) -> np.ndarray:
    """Half body (midline, left; then any shape) -> all vertices in SMPL's order; `flip` mirrors a vertex's
    values."""
    right = half[int(packed["middle"]) :] * flip
    return np.concatenate([half, right])[packed["order"]]


def _mirror_map(packed: dict[str, np.ndarray]) -> np.ndarray:
    """Mirror partner of each vertex in the packed sequence: midline, left, right."""
    middle, half = int(packed["middle"]), len(packed["template_neutral"])
    return np.concatenate([np.arange(middle), np.arange(half, 2 * half - middle), np.arange(middle, half)])


def _faces(packed: dict[str, np.ndarray]) -> np.ndarray:
    left = packed["faces"].astype(np.int64)
    new_index = np.empty(VERTICES, np.int64)
    new_index[packed["order"]] = np.arange(VERTICES)
    return new_index[np.concatenate([left, _mirror_map(packed)[left][:, [0, 2, 1]]])].astype(np.int32)


def _skin(packed: dict[str, np.ndarray], gender: str) -> tuple[np.ndarray, np.ndarray]:
    flip = np.array([-1, 1, 1], np.float32)
    template = _whole(packed, packed[f"template_{gender}"], flip)
    half = packed[f"shapedirs_{gender}"] * packed[f"shapedirs_scale_{gender}"]
    return template, _whole(packed, half.astype(np.float32), flip[:, None])


def _posedirs(packed: dict[str, np.ndarray]) -> np.ndarray:
    """(6890,3,207). Mirroring swaps left and right joints and turns the signs of x in motion and in R - I."""
    half = np.zeros((len(packed["template_neutral"]), JOINTS - 1, 27), np.float32)
    joint = packed["posedirs_joint"].astype(np.int64)
    half[packed["posedirs_vertex"], joint] = (
        packed["posedirs_value"] * packed["posedirs_scale"][joint][:, None]
    )
    flip = np.array([-1, 1, 1], np.float32)
    sign = (flip[:, None] * np.outer(flip, flip).reshape(1, 9)).reshape(27)
    partner = np.array(SMPL_PARTNER)[1:] - 1
    right = half[int(packed["middle"]) :][:, partner] * sign
    whole = np.concatenate([half, right])[packed["order"]].reshape(VERTICES, JOINTS - 1, 3, 9)
    return np.ascontiguousarray(whole.transpose(0, 2, 1, 3)).reshape(VERTICES, 3, 207)


def _table(packed: dict[str, np.ndarray], name: str, shape: tuple[int, int]) -> sparse.coo_matrix:
    """Sparse non-negative table whose rows sum to 1."""
    row = np.repeat(np.arange(shape[0]), packed[f"{name}_count"])
    value = packed[f"{name}_value"].astype(np.float64)
    value /= np.bincount(row, value, minlength=shape[0])[row]
    return sparse.coo_matrix((value, (row, packed[f"{name}_column"].astype(np.int64))), shape)


def _skeleton(packed: dict[str, np.ndarray], gender: str) -> dict[str, Any]:
    """The entries of a SKEL file that are not skin."""
    rel = packed[f"apose_rel_transfo_{gender}"].copy()
    per_joint = packed[f"per_joint_rot_{gender}"].copy()
    apose, tpose = rel.copy(), np.tile(np.eye(4), (JOINTS, 1, 1))
    for j, parent in enumerate(SKEL_PARENTS):
        if parent >= 0:
            apose[j] = apose[parent] @ rel[j]
    tpose[:, :3, :3], tpose[:, :3, 3] = per_joint, packed[f"skel_joints_{gender}"]
    bone = packed["bone_of_vertex"].astype(np.int64)
    rigid = sparse.coo_matrix(
        (np.ones(BONE_VERTICES), (np.arange(BONE_VERTICES), bone)), (BONE_VERTICES, JOINTS)
    )
    return {
        "skel_template_v": (packed[f"bone_vertices_{gender}"] * packed["bone_scale"]).astype(np.float32),
        "skel_template_f": packed["bone_faces"].astype(np.int32),
        "skel_weights": _table(packed, "bone_weights", (BONE_VERTICES, JOINTS)),
        "skel_weights_rigid": rigid,
        "per_joint_rot": per_joint,
        "apose_rel_transfo": rel,
        "apose_transfo": apose,
        "tpose_transfo": tpose,
        "osim_kintree_table": np.stack([np.array(SKEL_PARENTS), np.arange(JOINTS)]),
        "parameter_mapping": {name: i for i, name in enumerate(SKEL_DOFS)},
        "bone_names": list(SKEL_JOINTS),
        "joints_name": list(SKEL_JOINTS),
        "pose_params_name": list(SKEL_DOFS),
    }
