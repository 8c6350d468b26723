"""A person's skeleton in motion as BVH: a hierarchy of joints, then a line of channels for each frame.

Every joint has six channels, because SKEL's spine and shoulder blades slide. Its position channels are the place in the
parent, and so stand in for OFFSET. Metres, degrees. Frames have equal distances in time: those that are missing
lie between their neighbours.
Source: Meredith and Maddock, "Motion Capture File Formats Explained", 2001.
"""

from __future__ import annotations

from dataclasses import replace
from math import pi

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation, Slerp

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.exports.animation_files.skeleton_motion import SkeletonMotion
from skelfit.exports.exported_bodies import Array

CHANNELS = "CHANNELS 6 Xposition Yposition Zposition Zrotation Xrotation Yrotation"


def bvh_text(motion: SkeletonMotion, tips: dict[int, Array], rate: float) -> str:
    """The text of a motion without missing frames; `tips` are the ends (3,) m, in the T-pose, of joints without child.

    `rate` is that of the frames, in Hz.
    """
    angles = np.degrees(euler_angles(motion.turns))
    numbers = np.concatenate([motion.places, angles], axis=-1).reshape(len(angles), -1)
    lines = ["HIERARCHY", *_joint_lines(0, motion, tips, "")]
    lines += ["MOTION", f"Frames: {len(numbers)}", f"Frame Time: {1 / rate:.9f}"]
    lines += [" ".join(f"{number:.6f}" for number in row) for row in numbers.tolist()]
    return "\n".join(lines) + "\n"


def _joint_lines(joint: int, motion: SkeletonMotion, tips: dict[int, Array], indent: str) -> list[str]:
    inner = indent + "  "
    lines = [
        f"{indent}{'JOINT' if joint else 'ROOT'} {SKEL_JOINT_NAMES[joint]}",
        f"{indent}{{",
        f"{inner}OFFSET {_triple(motion.offsets[joint])}",
        f"{inner}{CHANNELS}",
    ]
    for child in range(NUM_JOINTS):
        if SKEL_PARENTS[child] == joint:
            lines += _joint_lines(child, motion, tips, inner)
    if joint in tips:
        offset = _triple(tips[joint] - motion.rest[joint])
        lines += [f"{inner}End Site", f"{inner}{{", f"{inner}  OFFSET {offset}", f"{inner}}}"]
    return [*lines, f"{indent}}}"]


def _triple(point: Array) -> str:
    return " ".join(f"{number:.6f}" for number in point.tolist())


def evenly_timed(motion: SkeletonMotion) -> tuple[SkeletonMotion, int]:
    """The motion with all its frames, and how many times the step between them is that of the sequence.

    Frames that are missing, as those that were not fitted, get places and orientations between those around them.
    """
    frames = np.array(motion.frames)
    if len(frames) == 1:
        return motion, 1
    step = int(np.gcd.reduce(np.diff(frames)))
    wanted = np.arange(frames[0], frames[-1] + 1, step)
    if len(wanted) == len(frames):
        return motion, step
    turns, places = np.empty((len(wanted), NUM_JOINTS, 3, 3)), np.empty((len(wanted), NUM_JOINTS, 3))
    for joint in range(NUM_JOINTS):
        turns[:, joint] = Slerp(frames, Rotation.from_matrix(motion.turns[:, joint]))(wanted).as_matrix()
        for axis in range(3):
            places[:, joint, axis] = np.interp(wanted, frames, motion.places[:, joint, axis])
    times = np.interp(wanted, frames, motion.times)
    return replace(motion, frames=wanted.tolist(), times=times, turns=turns, places=places), step


def euler_angles(turns: Array) -> Array:
    """Angles (T,J,3) rad about z, x', y'' of rotations (T,J,3,3), each triple the nearest to the one before."""
    first = np.arctan2(-turns[..., 0, 1], turns[..., 1, 1])
    # At a pole `first` is any angle; the others are those that go with it.
    rows = np.cos(first)[..., None] * turns[..., 0, :] + np.sin(first)[..., None] * turns[..., 1, :]
    across = np.cos(first) * turns[..., 1, 1] - np.sin(first) * turns[..., 0, 1]
    angles = np.stack(
        [first, np.arctan2(turns[..., 2, 1], across), np.arctan2(rows[..., 2], rows[..., 0])], axis=-1
    )
    for frame in range(1, len(angles)):
        angles[frame] = _nearest(angles[frame], angles[frame - 1])
    return angles


def _nearest(angles: Array, before: Array) -> Array:
    """Of the two triples (J,3) of each rotation, up to whole turns, the one nearer to `before` (J,3)."""
    flipped = np.stack([angles[:, 0] + pi, pi - angles[:, 1], angles[:, 2] + pi], axis=-1)
    both = np.stack([angles, flipped])
    both -= 2 * pi * np.round((both - before) / (2 * pi))
    nearer: NDArray[np.intp] = np.abs(both - before).sum(-1).argmin(0)
    chosen: Array = both[nearer, np.arange(len(angles))]
    return chosen
