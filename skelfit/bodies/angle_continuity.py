"""Angles of neighbouring frames without jumps, and back: several sets of angles describe one rotation.

A hinge's angle may be off by whole turns. A ball joint has a second triple of angles for every rotation, the flipped
one: (a + pi, pi - b, c + pi). Each frame is fitted by itself and described by the angles nearest to the joint limits
(canonical), so a fast turn may jump from one description to another. `make_continuous` takes, frame by frame, the
description nearest to the frame before. The pose does not change.

At a pole of a ball joint, where its middle angle b is 90 degrees, the first and the third axis are parallel. Only
a - c is fixed there (a + c at -90), so a line of triples (a + d, b, c + d) describes the same rotation. Of these, too,
the one nearest to the frame before is taken: a and c share the turn about the common axis. While a joint stays at the
pole, a and c move linearly to the values that they have when it leaves. Close to a pole every description changes
fast: two angles change by far more than the bone turns.

The spine's joints are left out: their segments bend with the angles, so every pose has one description only.
"""

from __future__ import annotations

from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import (
    NUM_DOFS,
    NUM_JOINTS,
    ROOT_DOFS,
    SKEL_JOINT_NAMES,
    dof_axes,
    dof_limits,
    dofs_of_joint,
    limits_middle,
)

Array = NDArray[np.float64]
_SPINE = ("lumbar_body", "thorax", "head")
# The shoulder blades slide on the trunk with their angles: the flipped triple would put them elsewhere.
_NOT_FLIPPABLE = (*_SPINE, "scapula_r", "scapula_l")


def _joints(left_out: tuple[str, ...]) -> list[list[int]]:
    return [list(dofs_of_joint(j)) for j in range(NUM_JOINTS) if SKEL_JOINT_NAMES[j] not in left_out]


# DoFs whose angles may be off by whole turns, and the triples of DoFs that have a flipped triple.
WRAPPING_DOFS: tuple[int, ...] = tuple(dof for dofs in _joints(_SPINE) for dof in dofs)
FLIPPABLE_TRIPLES: tuple[tuple[int, ...], ...] = tuple(
    tuple(dofs) for dofs in _joints(_NOT_FLIPPABLE) if len(dofs) == 3
)
_FIRST, _MIDDLE, _THIRD = np.array(FLIPPABLE_TRIPLES).T  # (5,) DoFs of the triples each
# +1 where a triple's axes are right-handed, else -1.
_HANDEDNESS = np.round(np.linalg.det(dof_axes()[np.array(FLIPPABLE_TRIPLES)]))
# rad; a middle angle this near to 90 degrees is at the pole. A move along the line then turns the pose by at most twice
# this, 1e-6 rad. Angles in float32 are as near when they mean the pole.
POLE_TOLERANCE = 5e-7
_GUESSED, _ONE_BY_ONE = 1024, 32  # frames


def make_continuous(poses: NDArray[np.floating[Any]]) -> Array:
    """The same poses (T,46) rad, with the angles of every frame as near to those of the frame before as possible.

    The first frame stays as it is. A joint that turns by more than half a turn between two frames cannot be followed.
    Raises ValueError for another shape.
    """
    angles = np.array(poses, np.float64)
    if angles.ndim != 2 or angles.shape[1] != NUM_DOFS:
        raise ValueError(f"poses: expected shape (T, {NUM_DOFS}), found {angles.shape}")
    _follow(angles)
    for triple in range(len(FLIPPABLE_TRIPLES)):
        _interpolate_at_poles(angles, triple)
    return angles


def _follow(angles: Array) -> None:
    """Describe each frame (T,46) but the first as `nearest_angles` to the one before, in place.

    Frame by frame that is slow. So many frames are guessed together; where each of them is the nearest to the guess
    before it, all are what they would be one by one. It goes on one by one where the first is not: at a pole.
    """
    done = 1
    while done < len(angles):
        before, frames = angles[done - 1], angles[done : done + _GUESSED]
        guess = _guess(frames, before)
        nearest = nearest_angles(frames, np.concatenate([before[None], guess[:-1]]))
        right = int(np.append((guess == nearest).all(axis=1), False).argmin())
        frames[:right] = guess[:right]
        done += right
        for t in range(done, min(done + _ONE_BY_ONE, len(angles)) if right < len(frames) else done):
            angles[t] = nearest_angles(angles[t], angles[t - 1])
            done = t + 1


def _guess(frames: Array, before: Array) -> Array:
    """Descriptions of frames (T,46) that follow one (46,), as if none were at a pole: flips and whole turns add up."""
    guess, flipped = np.array(frames), _flipped(frames)
    flips = _flips(frames, np.concatenate([before[None], frames[:-1]]))
    for triple, dofs in enumerate(map(list, FLIPPABLE_TRIPLES)):
        is_flipped = np.logical_xor.accumulate(flips[:, triple])
        guess[:, dofs] = np.where(is_flipped[:, None], flipped[:, dofs], guess[:, dofs])
    dofs = list(WRAPPING_DOFS)
    steps = np.diff(guess[:, dofs], axis=0, prepend=before[None, dofs])
    guess[:, dofs] -= 2 * pi * np.round(steps / (2 * pi)).cumsum(axis=0)
    return guess


def _flips(poses: Array, other: Array) -> NDArray[np.bool_]:
    """Which triples (...,5) of poses are nearer to another pose's when they are flipped."""
    distances = [(_wrapped(x, other) - other) ** 2 for x in (_flipped(poses), poses)]
    near, far = (np.stack([d[..., list(dofs)].sum(-1) for dofs in FLIPPABLE_TRIPLES], -1) for d in distances)
    flips: NDArray[np.bool_] = near < far
    return flips


def nearest_angles(pose: Array, other: Array) -> Array:
    """The description of a pose (...,46) rad that is nearest to another (...,46), joint by joint."""
    angles = _shift_at_poles(_wrapped(pose, other), other)
    flipped = _shift_at_poles(_wrapped(_flipped(pose), other), other)
    distance, flipped_distance = (angles - other) ** 2, (flipped - other) ** 2
    for dofs in map(list, FLIPPABLE_TRIPLES):
        flip = flipped_distance[..., dofs].sum(-1) < distance[..., dofs].sum(-1)
        angles[..., dofs] = np.where(flip[..., None], flipped[..., dofs], angles[..., dofs])
    return angles


def canonical_angles(poses: NDArray[np.floating[Any]], limits: Array | None = None) -> Array:
    """The same poses (...,46) rad, every frame by itself: described by the angles nearest to the limits.

    limits: (46,2) rad; None: the table's.
    """
    limits = dof_limits() if limits is None else limits
    middle = limits_middle(limits)
    given: Array = np.asarray(poses, np.float64)
    angles, flipped = (_shift_at_poles(_wrapped(x, middle), middle) for x in (given, _flipped(given)))
    excess, flipped_excess = (_squared_excess(x, limits) for x in (angles, flipped))
    for dofs in map(list, FLIPPABLE_TRIPLES):
        # The pelvis has no limits: its middle angle stays within a quarter turn.
        if dofs == list(ROOT_DOFS):
            flip = np.cos(angles[..., dofs[1]]) < 0
        else:
            flip = flipped_excess[..., dofs].sum(-1) < excess[..., dofs].sum(-1)
        angles[..., dofs] = np.where(flip[..., None], flipped[..., dofs], angles[..., dofs])
    return angles


def _pole_signs(poses: Array) -> Array:
    """How c changes with a along a pole's line (...,5): +1 or -1; 0 for triples that are not at a pole."""
    middle = poses[..., _MIDDLE]
    signs: Array = np.where(
        np.abs(np.cos(middle)) <= POLE_TOLERANCE, _HANDEDNESS * np.sign(np.sin(middle)), 0.0
    )
    return signs


def _shift_at_poles(poses: Array, other: Array) -> Array:
    """Triples at a pole moved along their line, to the point nearest to another pose.

    Whole turns need no care: of a triple and its flipped triple, one is within half a turn in what is fixed.
    """
    sign = _pole_signs(poses)
    if not sign.any():
        return poses
    moved = np.array(poses)
    off_first, off_third = (other[..., dofs] - poses[..., dofs] for dofs in (_FIRST, _THIRD))
    shift = (off_first + sign * off_third) / 2
    moved[..., _FIRST] += np.where(sign != 0, shift, 0.0)
    moved[..., _THIRD] += sign * shift
    return moved


def _interpolate_at_poles(poses: Array, triple: int) -> None:
    """While a triple of poses (T,46) stays at its pole, interpolate it from the frame before to the frame after.

    It moves along its line only. The first frame stays as it is. A triple that never leaves the pole is not moved.
    """
    a, c = _FIRST[triple], _THIRD[triple]
    signs = _pole_signs(poses)[:, triple]
    at_pole = np.flatnonzero(signs)
    for run in np.split(at_pole, np.flatnonzero(np.diff(at_pole) != 1) + 1) if len(at_pole) else ():
        first, last = max(run[0] - 1, 0), run[-1] + 1
        if last == len(poses):
            continue
        sign, frames = signs[run[0]], np.arange(first + 1, last)
        position = (poses[:, a] + sign * poses[:, c]) / 2
        shift = np.interp(frames, (first, last), position[[first, last]]) - position[frames]
        poses[frames, a] += shift
        poses[frames, c] += sign * shift


def _wrapped(poses: Array, other: Array) -> Array:
    """The angles with whole turns added, so that each is within half a turn of the other pose's."""
    wrapped = np.array(poses)
    dofs = list(WRAPPING_DOFS)
    offset = wrapped[..., dofs] - other[..., dofs]
    wrapped[..., dofs] -= 2 * pi * np.round(offset / (2 * pi))
    return wrapped


def _flipped(poses: Array) -> Array:
    """The poses with every flippable triple replaced by its flipped triple."""
    flipped = np.array(poses)
    for a, b, c in FLIPPABLE_TRIPLES:
        flipped[..., a] += pi
        flipped[..., b] = pi - flipped[..., b]
        flipped[..., c] += pi
    return flipped


def _squared_excess(angles: Array, limits: Array) -> Array:
    """Squares of how far angles (...,46) are beyond limits (46,2), rad^2."""
    low, high = limits.T
    return np.maximum(np.maximum(low - angles, angles - high), 0.0) ** 2
