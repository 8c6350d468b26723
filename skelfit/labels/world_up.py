"""The axis of a world that is up, inferred from the people in it; rotation of labels to a world with another axis up.

People stand, walk, sit and crawl with the trunk above knees, feet and hands. The mean of that direction over all frames
is close to the axis that is up. It tells nothing only if the person lies or tumbles in most of the frames.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP, Array, UpAxis
from skelfit.config.manifest import ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.label_batch import Coordinates, FloatArray, LabelBatch, LabelProperties

# An axis is up where the mean of the unit vectors from limbs to trunk is within 45 degrees of it and at least this
# long. It is shorter for a person who lies and rolls over.
_ALONG, _LENGTH = 0.7, 0.4
# A person who lies with the head towards -y looks the same.
_Y_DOWN = (
    "if they stand, y points down, as in a camera's coordinates, and no option says so: "
    "turn global orientations and 'trans' by 180 degrees about x first"
)
# SMPL's joints, parents first: parent, and the offset from it at rest in cm (x to the left, y up, z forward), about as
# in the mean body.
_OFFSETS_CM: dict[int, tuple[int, tuple[int, int, int]]] = {
    1: (0, (6, -9, -1)), 2: (0, (-6, -9, -1)), 4: (1, (4, -38, 0)), 5: (2, (-4, -38, 0)),
    7: (4, (-1, -42, -4)), 8: (5, (1, -42, -4)), 3: (0, (0, 12, -3)), 6: (3, (0, 14, 3)), 9: (6, (0, 6, 0)),
    12: (9, (0, 21, -3)), 15: (12, (0, 9, 5)), 13: (9, (8, 12, -2)), 14: (9, (-8, 12, -2)),
    16: (13, (11, 4, -1)), 17: (14, (-11, 4, -1)), 18: (16, (26, -1, -3)), 19: (17, (-26, -1, -3)),
    20: (18, (25, 1, 0)), 21: (19, (-25, 1, 0)),
}  # fmt: skip
_TRUNK = (0, 12)  # pelvis, neck
_LIMBS = (4, 5, 7, 8, 20, 21)  # knees, ankles, wrists

# Rest positions (K,3) m of SMPL's root joint, of a gender and betas (K,10).
RootJoints = Callable[[str, FloatArray], Array]


def trunk_over_limbs(pose: FloatArray) -> Array:
    """Unit vectors (N,3) from the middle of the limbs to that of the trunk, of poses (N,24,3) rad; 0 if not finite."""
    directions = np.zeros((len(pose), 3))
    finite = np.isfinite(pose).all(axis=(1, 2))
    if finite.any():
        positions = _joint_positions(pose[finite].astype(np.float64))
        direction = positions[:, _TRUNK].mean(1) - positions[:, _LIMBS].mean(1)
        directions[finite] = direction / np.maximum(np.linalg.norm(direction, axis=1, keepdims=True), 1e-9)
    return directions


def _joint_positions(pose: Array) -> Array:
    """Approximate positions (N,24,3) cm of SMPL's joints in poses (N,24,3) rad; the pelvis is at 0."""
    positions, rotations = np.zeros_like(pose), {0: Rotation.from_rotvec(pose[:, 0])}
    for joint, (parent, offset) in _OFFSETS_CM.items():
        positions[:, joint] = positions[:, parent] + rotations[parent].apply(offset)
        rotations[joint] = rotations[parent] * Rotation.from_rotvec(pose[:, joint])
    return positions


def infer_up(upright: tuple[float, float, float], rows: int) -> UpAxis | None:
    """The axis that is up, from the sum of the directions of so many rows; None where neither y nor z is clearly up."""
    mean = np.array(upright) / max(rows, 1)
    least = max(_ALONG * float(np.linalg.norm(mean)), _ALONG * _LENGTH)
    return "y" if mean[1] >= least else "z" if mean[2] >= least else None


def _is_y_down(upright: tuple[float, float, float], rows: int) -> bool:
    """Whether trunks are below limbs along y, from the same sum."""
    x, y, z = upright
    return infer_up((-x, -y, -z), rows) == "y"


def infer_world(upright: tuple[float, float, float], rows: int, given: UpAxis | None) -> Coordinates:
    """The world of labels: as given, else inferred from the poses, else AMASS's, with z up."""
    up = given or infer_up(upright, rows) or "z"
    return "world_y_up" if up == "y" else "world_z_up"


def notes_on_up(upright: tuple[float, float, float], rows: int, options: ReadOptions) -> list[str]:
    """The note on the axis that is up in a file of so many rows."""
    if not rows or options.labels_up is not None:
        return []
    if up := infer_up(upright, rows):
        return [f"{up} is up: along it people's trunks are above their limbs"]
    assumption = "z is taken to be up, as in AMASS"
    if _is_y_down(upright, rows):
        return [f"{assumption}, but people's trunks are below their limbs along y: {_Y_DOWN}"]
    return [f"{assumption}: the people do not tell"]


def note_head_down(pose: FloatArray, key: str) -> list[str]:
    """The note on poses (N,24,3) of a world whose y is known to be up, if people stand upside down in it."""
    directions = trunk_over_limbs(pose)
    x, y, z = directions.sum(0).tolist()
    if not _is_y_down((x, y, z), int(directions.any(1).sum())):
        return []
    return [
        f"warning: '{key}': people's trunks are below their limbs along y, which is up in such files: "
        "do they stand on their hands, or did something turn the world?"
    ]


def check_up(path: Path, options: ReadOptions, about: LabelProperties, rows: int) -> None:
    """Raise LabelError where labels must be rotated but neither an option nor the poses tell which axis is up."""
    if options.up is None or options.labels_up is not None or not rows:
        return
    advice = "say which is up with --labels-up y or z (read.labels_up in a manifest)"
    if all(about.told_up):
        (y, z), (one, other) = about.told_up, about.first_up
        actual = (
            f"y in {y} of them (the first: {one}) and z in {z} (the first: {other}); "
            f"convert these apart, or {advice}"
        )
        raise LabelError(path, None, f"files with the same axis up, for --up {options.up}", actual)
    if infer_up(about.upright, about.telling) is None:
        mean = np.array(about.upright) / max(about.telling, 1)
        actual = "their mean direction ({:.2f}, {:.2f}, {:.2f}); ".format(*mean) + advice
        if _is_y_down(about.upright, about.telling):
            actual = f"them below along y: {_Y_DOWN}, or drop --up; if they lie, {advice}"
        raise LabelError(path, None, f"trunks above limbs along y or z, for --up {options.up}", actual)


def rotate_to_up(batch: LabelBatch, up: UpAxis, root_joints: RootJoints) -> LabelBatch:
    """The same people in a world with the axis `up` up: rotated by 90 degrees about x if it is the other one.

    SMPL rotates a body about its root joint J and moves it by t. A rotation Q of the world therefore turns t into
    Q t + Q J - J. Bad rows stay as they are. Raises ValueError for labels that are in no world.
    """
    target: Coordinates = "world_y_up" if up == "y" else "world_z_up"
    about = batch.about
    if about.coordinates not in ("world_y_up", "world_z_up") or batch.vertices is not None:
        raise ValueError(f"expected labels in a world, found {about.coordinates}")
    if about.coordinates == target:
        return batch
    rotation = Y_UP_FROM_Z_UP if up == "y" else Y_UP_FROM_Z_UP.T
    good = np.array([not bad for bad in batch.bad], bool)
    pose, transl, keypoints = batch.pose.copy(), batch.transl.copy(), batch.keypoints3d.copy()
    pose[good, 0] = (Rotation.from_matrix(rotation) * Rotation.from_rotvec(pose[good, 0])).as_rotvec()
    roots = _roots(batch, good, root_joints)
    transl[good] = transl[good] @ rotation.T + (roots @ rotation.T - roots)
    keypoints[..., :3] = keypoints[..., :3] @ rotation.T
    return replace(
        batch, pose=pose, transl=transl, keypoints3d=keypoints, about=replace(about, coordinates=target)
    )


def place_roots(batch: LabelBatch, root_joints: RootJoints) -> LabelBatch:
    """The same people, with what their translations still lack: `root_shift` times their root joint at rest."""
    if batch.root_shift is None:
        return batch
    good = np.array([not bad for bad in batch.bad], bool)
    transl, roots = batch.transl.copy(), _roots(batch, good, root_joints)
    transl[good] += np.einsum("nij,nj->ni", batch.root_shift[good].astype(np.float64), roots)
    return replace(batch, transl=transl, root_shift=None)


def _roots(batch: LabelBatch, good: NDArray[np.bool_], root_joints: RootJoints) -> Array:
    """Root joints at rest (K,3) m of the K good rows."""
    genders, roots = np.array(batch.gender)[good], np.zeros((int(good.sum()), 3))
    for gender in sorted(set(genders.tolist())):
        roots[genders == gender] = root_joints(gender, batch.betas[good][genders == gender])
    return roots
