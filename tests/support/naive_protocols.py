"""A naive twin of the published evaluations, written from their facts in plain loops over people and joints.

| protocol | target | points | measured | root |
|---|---|---|---|---|
| camerahmr-3dpw | SMPL of the gender | Human3.6M's regressor, posed skin | 14, in LSP's order | 0, pelvis |
| emdb | SMPL of the gender | neutral SMPL's regressor, posed skin | 24 | mean of 1, 2: the hips |
| spec | SMPL of the gender | Human3.6M's regressor, posed skin | 17 | mean of 1, 2: left hip and left knee |
| moyo | neutral SMPL | SMPL's posed joints; of SKEL's skin by SMPL male's regressor | 24 | 0 |
| hmr2 | keypoints of the file | the 44 keypoints | 25..36, 37, 43 | 39 |
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.assets import SmplAsset
from skelfit.bodies.model_set import ModelSet

Array = NDArray[np.float64]
LSP_OF_H36M = [6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10]
LSP_OF_44 = [25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 43]
# (which points, which of them, root)
FACTS = {
    "camerahmr-3dpw": ("h36m", LSP_OF_H36M, [0]),
    "emdb": ("neutral", list(range(24)), [1, 2]),
    "spec": ("h36m", list(range(17)), [1, 2]),
    "moyo": ("posed", list(range(24)), [0]),
    "moyo-hard": ("posed", list(range(24)), [0]),
    "hmr2-3dpw": ("44", LSP_OF_44, [39]),
    "hmr2-h36m-p2": ("44", LSP_OF_44, [39]),
}
# SKEL's angles and their ranges in degrees, as HSMR has them.
HINGES: dict[str, list[tuple[int, float, float]]] = {
    "left knee": [(13, 0, 135)],
    "right knee": [(6, 0, 135)],
    "left elbow": [(42, 0, 135), (43, -90, 90)],
    "right elbow": [(32, 0, 135), (33, -67.5, 67.5)],
}


def regressors(models: ModelSet) -> dict[str, Array]:
    """The tables, as the published files hold them."""
    return {
        "h36m": models.joint_regressors["h36m17"].astype(float),
        "neutral": models.smpl["neutral"].J_regressor.astype(float),
        "posed": models.smpl["male"].J_regressor.astype(float),
        "44": np.asarray(models.keypoints44, float),
    }


def regressed(table: Array, skin: Array) -> Array:
    """Points (J,3) of one skin (V,3)."""
    return np.array([sum(row[v] * skin[v] for v in np.flatnonzero(row)) for row in table])


def posed_joints(asset: SmplAsset, pose: Array, betas: Array) -> Array:
    """SMPL's joints (24,3) of one person, along its tree."""
    rest = asset.v_template + asset.shapedirs[..., :10].astype(float) @ betas
    joints = asset.J_regressor.astype(float) @ rest
    turns, places = [np.eye(3)] * 24, [np.zeros(3)] * 24
    for j, parent in enumerate(asset.parents.tolist()):
        own = Rotation.from_rotvec(pose[j]).as_matrix()
        if parent < 0:
            turns[j], places[j] = own, joints[j]
        else:
            turns[j] = turns[parent] @ own
            places[j] = places[parent] + turns[parent] @ (joints[j] - joints[parent])
    return np.array(places)


def errors_of_person(
    name: str, target_points: Array, points: Array, target: Array | None, skin: Array
) -> list[float]:
    """MPJPE, PA-MPJPE and, with a target skin, PVE in mm of one person."""
    _, measured, root = FACTS[name]
    label_root = sum(target_points[j] for j in root) / len(root)
    own_root = sum(points[j] for j in root) / len(root)
    label = [target_points[j] - label_root for j in measured]
    own = [points[j] - own_root for j in measured]
    figures = [_mean_distance(label, own), _mean_distance(label, _aligned(own, label))]
    if target is not None:
        figures.append(_mean_distance([v - label_root for v in target], [v - own_root for v in skin]))
    return figures


def _mean_distance(one: list[Array], other: list[Array]) -> float:
    return (
        1000 * sum(float(np.sqrt(((a - b) ** 2).sum())) for a, b in zip(one, other, strict=True)) / len(one)
    )


def _aligned(points: list[Array], goal: list[Array]) -> list[Array]:
    """Points after scale, rotation and translation that take them nearest to a goal (Kabsch, by scipy)."""
    x, y = np.array(points), np.array(goal)
    x0, y0 = x - x.mean(0), y - y.mean(0)
    turn, _ = Rotation.align_vectors(y0, x0)
    turned = turn.apply(x0)
    scale = (turned * y0).sum() / (x0**2).sum()
    return list(scale * turned + y.mean(0))


def pck(predicted: Array, labelled: Array, size: Array, at: float) -> float:
    """The mean over keypoints of the share of people (N) whose keypoint is near; those never labelled do not count."""
    shares = []
    for k in range(predicted.shape[1]):
        right = total = 0
        for i in range(len(predicted)):
            if labelled[i, k, 2] > 0.5:
                total += 1
                apart = np.hypot(*(predicted[i, k] - labelled[i, k, :2])) / max(size[i])
                right += apart < at
        if total:
            shares.append(right / total)
    return float(np.mean(shares))


def violating(skel_pose: Array, joint: str, tolerance: float) -> bool:
    """Whether one person's joint lies beyond its range by more than a tolerance, in degrees."""
    for index, low, high in HINGES[joint]:
        angle = np.degrees(skel_pose[index])
        angle = (angle + 180) % 360 - 180
        if angle < low - tolerance or angle > high + tolerance:
            return True
    return False
