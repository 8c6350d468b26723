"""Shape spaces: mean and principal components of T-posed random adults, for each of SMPL's three genders."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tools.open_body_build.source import Source, phenotype_mesh, random_phenotype, restrict
from tools.open_body_build.tpose import CENTRAL_JOINTS, FLIP, segment_weights, side_joints, to_tpose

BETAS = 10
SAMPLES = 500
STATURE = {"neutral": 1.70, "male": 1.77, "female": 1.64}
MALE_SHARE = {"neutral": (0.0, 1.0), "male": (1.0,), "female": (0.0,)}
PELVIS = np.array([0.0, -0.22, 0.0])  # where SMPL keeps its pelvis joint


@dataclass(frozen=True)
class ShapeSpace:
    """Template (V,3), shapedirs (V,3,10), and the same for the MakeHuman joint centres: (J,3) and
    (J,3,10)."""

    template: np.ndarray
    shapedirs: np.ndarray
    joints: np.ndarray
    joint_dirs: np.ndarray


def shape_space(
    source: Source, ids: np.ndarray, faces: np.ndarray, partner: np.ndarray, gender: str, seed: int = 0
) -> ShapeSpace:
    """`ids` are the skin's base-mesh ids and `partner` (V,) its left-right map."""
    rng = np.random.default_rng(seed)
    cubes = [source.joints[n] for n in CENTRAL_JOINTS] + [source.joints[f"l-{n}"] for n in side_joints()]
    offsets = restrict(source, np.concatenate([ids, *cubes]))
    ends = np.cumsum([len(ids), *(len(c) for c in cubes)])
    weights = segment_weights(source, ids)
    rows = []
    for k in range(SAMPLES):
        shares = MALE_SHARE[gender]
        mesh = phenotype_mesh(offsets, random_phenotype(rng, shares[k % len(shares)]))
        centres = [mesh[a:b].mean(0) for a, b in zip(ends[:-1], ends[1:], strict=True)]
        joints = dict(zip([*CENTRAL_JOINTS, *side_joints()], centres, strict=True))
        skin, joint = to_tpose(mesh[: len(ids)], joints, weights)
        skin = 0.5 * (skin + FLIP * skin[partner])
        pelvis = smpl_pelvis(joint)
        rows.append(np.concatenate([skin - pelvis, joint - pelvis]))
    bodies = np.stack(rows)
    mean = bodies.mean(0)
    size = STATURE[gender] / np.ptp(mean[: len(ids), 1])
    parts = (bodies - mean) * size
    _, _, axes = np.linalg.svd(parts[:, : len(ids)].reshape(SAMPLES, -1), full_matrices=False)
    score = parts[:, : len(ids)].reshape(SAMPLES, -1) @ axes[:BETAS].T
    score = score / score.std(0)
    # Least squares on unit scores gives each point's motion per standard deviation, joints included.
    moves = np.linalg.lstsq(score, parts.reshape(SAMPLES, -1), rcond=None)[0]
    directions = moves.reshape(BETAS, -1, 3).transpose(1, 2, 0)
    mean = mean * size + PELVIS
    skin_moves = directions[: len(ids)]
    sign = np.sign([_volume_change(mean[: len(ids)], faces, skin_moves[..., b]) for b in range(BETAS)])
    directions = directions * sign
    return ShapeSpace(mean[: len(ids)], directions[: len(ids)], mean[len(ids) :], directions[len(ids) :])


def smpl_pelvis(joints: np.ndarray) -> np.ndarray:
    """SMPL's pelvis from MakeHuman's: halfway between its pelvis and the lowest vertebra joint."""
    return 0.5 * (joints[CENTRAL_JOINTS.index("pelvis")] + joints[CENTRAL_JOINTS.index("spine-4")])


def _volume_change(template: np.ndarray, faces: np.ndarray, move: np.ndarray) -> float:
    corner, motion = template[faces], move[faces].mean(1)
    return float((np.cross(corner[:, 1] - corner[:, 0], corner[:, 2] - corner[:, 0]) * motion).sum())
