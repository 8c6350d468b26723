"""Jitter, jumps and lag of a motion, measured on rotations of joints as in `verify`, without Euler angles.

The jitter of a label is that of its own joints. Its steps and speeds are those of the joints that SKEL's joints follow:
the two upper joints of the spine together, the shoulder with the collar.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import dof_index
from skelfit.verification.measures.joint_turns import BODY, Quaternions, lengths, turns_between

Array = NDArray[np.float64]
OPPOSITE_DEG = 5.0  # lumbar and thorax oppose each other if both turn by more, in opposite directions
_MOTIONS = ("bending", "extension", "twist")
_MOST_LAG = 6  # frames


def turns(rotations: Quaternions, joints: slice = BODY) -> Array:
    """Of some joints from frame to frame, as vectors (F-1,J,3) deg; rotations (F,24,4)."""
    return turns_between(rotations[:-1], rotations[1:])[:, joints]


def jitter_deg(rotations: Quaternions, joints: slice = BODY) -> float:
    """Mean change of the turns from frame to frame, deg per frame^2."""
    return float(lengths(np.diff(turns(rotations, joints), axis=0)).mean())


def largest_step_deg(rotations: Quaternions) -> float:
    """The largest turn of a joint from one frame to the next, deg."""
    return float(lengths(turns(rotations)).max())


def speeds(rotations: Quaternions, joint: int, frame_rate: float) -> Array:
    """How fast a joint turns between frames: (F-1,) deg/s."""
    return frame_rate * lengths(turns(rotations, slice(None))[:, joint])


def lag_frames(speed: Array, of: Array) -> float:
    """The lag of a curve (F,) behind another in frames: the interpolated peak of their correlation."""
    one, other = speed - speed.mean(), of - of.mean()
    lags = np.arange(-_MOST_LAG, _MOST_LAG + 1)
    inner = slice(_MOST_LAG, len(of) - _MOST_LAG)
    correlations = np.array([other[inner] @ one[inner.start + k : inner.stop + k] for k in lags])
    k = int(correlations[1:-1].argmax()) + 1
    before, peak, after = correlations[k - 1 : k + 2]
    curve = before - 2 * peak + after  # of the parabola through the three
    return float(lags[k] + (0.5 * (before - after) / curve if curve < 0 else 0.0))


def opposite_share(poses: Tensor) -> float:
    """Share of frames in which lumbar and thorax flex or rotate against each other; poses (F,46) rad."""
    lumbar, thorax = (
        torch.rad2deg(poses[:, [dof_index(f"{segment}_{m}") for m in _MOTIONS]])
        for segment in ("lumbar", "thorax")
    )
    apart = torch.minimum(lumbar.abs(), thorax.abs()) > OPPOSITE_DEG
    return float((apart & (lumbar * thorax < 0)).any(1).double().mean())
