"""Which axis of a world is up, told by the people in it, and labels turned to a world of the other axis.

People stand, walk and sit with their heads over their feet. The mean of that direction over all frames is close to
the axis that is up, however they turn; only who lies or tumbles for most of the frames tells none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.config import ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.batch import About, Coordinates, FloatArray, LabelBatch
from skelfit.world import Y_UP_FROM_Z_UP, Array, Up

# The mean of the unit vectors from feet to head has at least this component along an axis that is up: frames that all
# lean by 45 degrees, or 15 % of frames upside down, still tell it.
CLEAR = 0.7
# Chains of SMPL's joints from the pelvis, and how far along the body's y axis each segment reaches, in m: those of the
# mean male body, to 1 cm.
_TRUNK = ((0, 0.11), (3, 0.13), (6, 0.05), (9, 0.21), (12, 0.09))
_LEGS = (((0, -0.09), (1, -0.38), (4, -0.40)), ((0, -0.09), (2, -0.38), (5, -0.40)))

# Rest positions (K,3) m of SMPL's root joint, of a gender and betas (K,10).
RootJoints = Callable[[str, FloatArray], Array]


def head_over_feet(pose: FloatArray) -> Array:
    """Unit vectors (N,3) from the middle of the feet to the head, of poses (N,24,3) rad; 0 where one is not finite."""
    found = np.zeros((len(pose), 3))
    good = np.isfinite(pose).all(axis=(1, 2))
    if good.any():
        turns = pose[good].astype(np.float64)
        feet = (_reach(turns, _LEGS[0]) + _reach(turns, _LEGS[1])) / 2
        away = _reach(turns, _TRUNK) - feet
        found[good] = away / np.maximum(np.linalg.norm(away, axis=1, keepdims=True), 1e-9)
    return found


def _reach(turns: Array, chain: tuple[tuple[int, float], ...]) -> Array:
    """Where a chain of segments along y ends (N,3) m, of local rotations (N,24,3) rad."""
    end, along = np.zeros((len(turns), 3)), Rotation.identity(len(turns))
    for joint, length in chain:
        along = along * Rotation.from_rotvec(turns[:, joint])
        end = end + along.apply([0.0, length, 0.0])
    return end


def clear_up(upright: tuple[float, float, float], rows: int) -> Up | None:
    """The axis that is up; None where heads are over feet along neither. upright: the sum of the rows' directions."""
    _, y, z = np.array(upright) / max(rows, 1)
    return "y" if y >= CLEAR else "z" if z >= CLEAR else None


def world_of(upright: tuple[float, float, float], rows: int, given: Up | None) -> Coordinates:
    """The world that labels stand in: the one that is given, else by value, else AMASS's own, whose z is up."""
    up = given or clear_up(upright, rows) or "z"
    return "world_y_up" if up == "y" else "world_z_up"


def notes_on_up(upright: tuple[float, float, float], rows: int, options: ReadOptions) -> list[str]:
    """What is said of the axis that is up, in a file of so many rows."""
    notes = []
    if rows and options.labels_up is None:
        up = clear_up(upright, rows)
        told = "heads are over feet along it"
        notes.append(
            f"{up} is up: {told}" if up else "z is taken to be up, as in AMASS: no axis has heads over feet"
        )
    if options.up is not None:
        notes.append(f"{options.up} is up in the shards")
    return notes


def check_up(path: Path, options: ReadOptions, about: About, rows: int) -> None:
    """Raise LabelError where labels are to be turned, and neither an option nor their values tell how they stand."""
    if options.up is None or options.labels_up is not None or not rows:
        return
    if clear_up(about.upright, rows) is None:
        x, y, z = np.array(about.upright) / rows
        found = f"their mean direction ({x:.2f}, {y:.2f}, {z:.2f}); say which is up with --labels-up y or z"
        raise LabelError(path, None, f"heads over feet along y or z, for --up {options.up}", found)


def turned(batch: LabelBatch, up: Up, root_joints: RootJoints) -> LabelBatch:
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
