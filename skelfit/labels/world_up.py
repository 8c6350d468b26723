"""Which axis of a world is up, told by the people in it, and labels turned to a world of the other axis.

People stand, walk, sit and crawl with the trunk above knees, feet and hands. The mean of that direction over all
frames is close to the axis that is up, however they turn; only who lies or tumbles for most of the frames tells none.
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

# An axis is up where the mean of the unit vectors from limbs to trunk is within 45 degrees of it, and is at least this
# long: who lies and rolls over has a short one.
_ALONG, _LENGTH = 0.7, 0.4
# Who lies with the head towards -y looks the same.
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
    found = np.zeros((len(pose), 3))
    good = np.isfinite(pose).all(axis=(1, 2))
    if good.any():
        places = _places(pose[good].astype(np.float64))
        away = places[:, _TRUNK].mean(1) - places[:, _LIMBS].mean(1)
        found[good] = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    return found


def _places(pose: Array) -> Array:
    """Where SMPL's joints are about (N,24,3) cm, in poses (N,24,3) rad; the pelvis at 0."""
    places, turns = np.zeros_like(pose), {0: Rotation.from_rotvec(pose[:, 0])}
    for joint, (parent, offset) in _OFFSETS_CM.items():
        places[:, joint] = places[:, parent] + turns[parent].apply(offset)
        turns[joint] = turns[parent] * Rotation.from_rotvec(pose[:, joint])
    return places


def clear_up(upright: tuple[float, float, float], rows: int) -> UpAxis | None:
    """The axis that is up, by the sum of so many rows' directions; None where trunks are above limbs along neither."""
    mean = np.array(upright) / max(rows, 1)
    least = max(_ALONG * float(np.linalg.norm(mean)), _ALONG * _LENGTH)
    return "y" if mean[1] >= least else "z" if mean[2] >= least else None


def _is_y_down(upright: tuple[float, float, float], rows: int) -> bool:
    """Whether, by the same sum, trunks are below limbs along y."""
    x, y, z = upright
    return clear_up((-x, -y, -z), rows) == "y"


def world_of(upright: tuple[float, float, float], rows: int, given: UpAxis | None) -> Coordinates:
    """The world that labels stand in: the one that is given, else by value, else AMASS's own, whose z is up."""
    up = given or clear_up(upright, rows) or "z"
    return "world_y_up" if up == "y" else "world_z_up"


def notes_on_up(upright: tuple[float, float, float], rows: int, options: ReadOptions) -> list[str]:
    """What is said of the axis that is up, in a file of so many rows."""
    if not rows or options.labels_up is not None:
        return []
    if up := clear_up(upright, rows):
        return [f"{up} is up: along it people's trunks are above their limbs"]
    taken = "z is taken to be up, as in AMASS"
    if _is_y_down(upright, rows):
        return [f"{taken}, but people's trunks are below their limbs along y: {_Y_DOWN}"]
    return [f"{taken}: the people do not tell"]


def check_up(path: Path, options: ReadOptions, about: LabelProperties, rows: int) -> None:
    """Raise LabelError where labels are to be turned, and neither an option nor their values tell how they stand."""
    if options.up is None or options.labels_up is not None or not rows:
        return
    say = "say which is up with --labels-up y or z (read.labels_up in a manifest)"
    if all(about.told_up):
        (y, z), (one, other) = about.told_up, about.first_up
        found = f"y in {y} of them (the first: {one}) and z in {z} (the first: {other}); convert these apart, or {say}"
        raise LabelError(path, None, f"files with the same axis up, for --up {options.up}", found)
    if clear_up(about.upright, about.telling) is None:
        mean = np.array(about.upright) / max(about.telling, 1)
        found = "their mean direction ({:.2f}, {:.2f}, {:.2f}); ".format(*mean) + say
        if _is_y_down(about.upright, about.telling):
            found = f"them below along y: {_Y_DOWN}, or drop --up; if they lie, {say}"
        raise LabelError(path, None, f"trunks above limbs along y or z, for --up {options.up}", found)


def turned(batch: LabelBatch, up: UpAxis, root_joints: RootJoints) -> LabelBatch:
    """The same people in a world whose `up` is up: everything that stands in the world turned by 90 degrees about x.

    SMPL turns a body about its root joint J and moves it by t, so that with Q the turn of the world t becomes
    Q t + Q J - J. Bad rows stay as they are. Raises ValueError for labels that stand in no world.
    """
    wanted: Coordinates = "world_y_up" if up == "y" else "world_z_up"
    about = batch.about
    if about.coordinates not in ("world_y_up", "world_z_up") or batch.vertices is not None:
        raise ValueError(f"expected labels in a world, found {about.coordinates}")
    if about.coordinates == wanted:
        return batch
    turn = Y_UP_FROM_Z_UP if up == "y" else Y_UP_FROM_Z_UP.T
    good = np.array([not bad for bad in batch.bad], bool)
    pose, transl, keypoints = batch.pose.copy(), batch.transl.copy(), batch.keypoints3d.copy()
    pose[good, 0] = (Rotation.from_matrix(turn) * Rotation.from_rotvec(pose[good, 0])).as_rotvec()
    roots = _roots(batch, good, root_joints)
    transl[good] = transl[good] @ turn.T + (roots @ turn.T - roots)
    keypoints[..., :3] = keypoints[..., :3] @ turn.T
    return replace(
        batch, pose=pose, transl=transl, keypoints3d=keypoints, about=replace(about, coordinates=wanted)
    )


def _roots(batch: LabelBatch, good: NDArray[np.bool_], root_joints: RootJoints) -> Array:
    """Root joints at rest (K,3) m of the K good rows."""
    genders, found = np.array(batch.gender)[good], np.zeros((int(good.sum()), 3))
    for gender in sorted(set(genders.tolist())):
        found[genders == gender] = root_joints(gender, batch.betas[good][genders == gender])
    return found
