"""Angles of neighbouring frames without jumps, and back: one rotation has many descriptions.

A hinge's angle may be any whole turns off. A ball joint has besides a second triple of angles for every rotation,
(a + pi, pi - b, c + pi). Each frame is fitted by itself and described by the angles nearest to the joint limits
(canonical), so a fast turn may jump from one description to another. `continuous` takes, frame by frame, the
description nearest to the frame before; the pose does not change.

At a pole of a ball joint, its middle angle b at 90 degrees, the first and the third axis are parallel: only a - c is
fixed there (a + c at -90), and the rotation has a whole line of descriptions, (a + d, b, c + d) for every d. Of these,
too, the one nearest to the frame before is taken, so that a and c share what the joint turns about the axis. While a
joint stays at the pole, a and c go over evenly to what they have to be when it leaves. Near a pole every description
runs: two angles change by far more there than the bone turns. Of the spine's joints, whose segments bend with the
angles, every pose has one description only.
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
# The shoulder blades glide on the trunk as their angles say: a second triple would put them elsewhere.
_ONE_TRIPLE = (*_SPINE, "scapula_r", "scapula_l")


def _joints(left_out: tuple[str, ...]) -> list[list[int]]:
    return [list(dofs_of_joint(j)) for j in range(NUM_JOINTS) if SKEL_JOINT_NAMES[j] not in left_out]


# DoFs that may turn round, and the triples that have a twin.
WRAPPING_DOFS: tuple[int, ...] = tuple(dof for dofs in _joints(_SPINE) for dof in dofs)
FLIPPABLE_TRIPLES: tuple[tuple[int, ...], ...] = tuple(
    tuple(dofs) for dofs in _joints(_ONE_TRIPLE) if len(dofs) == 3
)
_FIRST, _MIDDLE, _THIRD = np.array(FLIPPABLE_TRIPLES).T  # (5,) DoFs of the triples each
# +1 or -1: whether the triples' axes are right-handed.
_HAND = np.round(np.linalg.det(dof_axes()[np.array(FLIPPABLE_TRIPLES)]))
# rad; a middle angle this near to 90 degrees is at the pole. Whatever d is, the pose then turns by no more than twice
# this, 1e-6 rad; angles of float32 are as near when they mean the pole.
AT_POLE = 5e-7


def make_continuous(poses: NDArray[np.floating[Any]]) -> Array:
    """The same poses (T,46) rad, every frame as near to the one before as its rotations allow.

    The first frame stays as it is. What turns by more than half a turn between two frames cannot be followed.
    """
    found = np.array(poses, np.float64)
    if found.ndim != 2 or found.shape[1] != NUM_DOFS:
        raise ValueError(f"poses: expected shape (T, {NUM_DOFS}), found {found.shape}")
    for before, frame in zip(found[:-1], found[1:], strict=True):
        frame[:] = nearest_angles(frame, before)
    for triple in range(len(FLIPPABLE_TRIPLES)):
        _go_over_evenly(found, triple)
    return found


def nearest_angles(pose: Array, other: Array) -> Array:
    """The description of a pose (...,46) rad that is nearest to another (...,46), joint by joint."""
    one = _along_poles(_turned(pose, other), other)
    two = _along_poles(_turned(_twins(pose), other), other)
    away, away_two = (one - other) ** 2, (two - other) ** 2
    for dofs in map(list, FLIPPABLE_TRIPLES):
        is_two = away_two[..., dofs].sum(-1) < away[..., dofs].sum(-1)
        one[..., dofs] = np.where(is_two[..., None], two[..., dofs], one[..., dofs])
    return one


def canonical_angles(poses: NDArray[np.floating[Any]], limits: Array | None = None) -> Array:
    """The same poses (...,46) rad as every frame has them by itself: nearest to the limits (46,2) rad.

    limits None: the table's.
    """
    limits = dof_limits() if limits is None else limits
    middle = limits_middle(limits)
    angles: Array = np.asarray(poses, np.float64)
    one, two = (_along_poles(_turned(x, middle), middle) for x in (angles, _twins(angles)))
    excess, excess_two = (_beyond(x, limits) for x in (one, two))
    for dofs in map(list, FLIPPABLE_TRIPLES):
        # The pelvis has no limits: its middle angle stays within a quarter turn.
        if dofs == list(ROOT_DOFS):
            is_two = np.cos(one[..., dofs[1]]) < 0
        else:
            is_two = excess_two[..., dofs].sum(-1) < excess[..., dofs].sum(-1)
        one[..., dofs] = np.where(is_two[..., None], two[..., dofs], one[..., dofs])
    return one


def _free_way(poses: Array) -> Array:
    """How c moves with a while a triple at its pole stays the same rotation (...,5): +1 or -1; 0 away from the pole."""
    middle = poses[..., _MIDDLE]
    found: Array = np.where(np.abs(np.cos(middle)) <= AT_POLE, _HAND * np.sign(np.sin(middle)), 0.0)
    return found


def _along_poles(poses: Array, other: Array) -> Array:
    """Triples at a pole moved along their line of descriptions, to the one nearest to another's.

    Whole turns need no thought: of a triple and its twin, one is less than half a turn off in what is fixed.
    """
    way = _free_way(poses)
    if not way.any():
        return poses
    found = np.array(poses)
    off_first, off_third = (other[..., dofs] - poses[..., dofs] for dofs in (_FIRST, _THIRD))
    along = (off_first + way * off_third) / 2
    found[..., _FIRST] += np.where(way != 0, along, 0.0)
    found[..., _THIRD] += way * along
    return found


def _go_over_evenly(poses: Array, triple: int) -> None:
    """While a triple of poses (T,46) stays at its pole, move it evenly from the frame before to the frame after.

    Only along its line of descriptions. The first frame stays as it is; who never leaves the pole needs no move.
    """
    a, c = _FIRST[triple], _THIRD[triple]
    ways = _free_way(poses)[:, triple]
    at_pole = np.flatnonzero(ways)
    for run in np.split(at_pole, np.flatnonzero(np.diff(at_pole) != 1) + 1) if len(at_pole) else ():
        before, after = max(run[0] - 1, 0), run[-1] + 1
        if after == len(poses):
            continue
        way, frames = ways[run[0]], np.arange(before + 1, after)
        place = (poses[:, a] + way * poses[:, c]) / 2
        along = np.interp(frames, (before, after), place[[before, after]]) - place[frames]
        poses[frames, a] += along
        poses[frames, c] += way * along


def _turned(poses: Array, other: Array) -> Array:
    """Whole turns added, so that every angle is within half a turn of another."""
    found = np.array(poses)
    dofs = list(WRAPPING_DOFS)
    off = found[..., dofs] - other[..., dofs]
    found[..., dofs] -= 2 * pi * np.round(off / (2 * pi))
    return found


def _twins(poses: Array) -> Array:
    """Every triple that has a twin, exchanged for it."""
    found = np.array(poses)
    for a, b, c in FLIPPABLE_TRIPLES:
        found[..., a] += pi
        found[..., b] = pi - found[..., b]
        found[..., c] += pi
    return found


def _beyond(angles: Array, limits: Array) -> Array:
    low, high = limits.T
    return np.maximum(np.maximum(low - angles, angles - high), 0.0) ** 2
