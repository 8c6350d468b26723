"""How much the labels of a sequence jump: a wrong frame must not drag its neighbours along.

The motion between two frames is compared with the motions just before and after it, and the smaller difference counts:
the start of a fast motion is like what follows it. A wrong label differs from both of its neighbours by more than a
body can move, mostly in many joints. A sequence of two frames has one motion and nothing to compare it with: its tie
keeps its weight.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of 1 + trace, which is 0 at half a turn. Nearer to it, rounding decides the sign of the axis.
_HALF_TURN = 1e-6


def label_jumps(
    rotations: NDArray[np.float32], sequences: Sequence[NDArray[np.int64]], time: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The jump from each of N frames to the next, (N,) rad / s, mean over the joints; 0 where there is no next frame.

    rotations (N, K, 9) of joints; time (N,) s. Sums are in a fixed order: no bit depends on another sequence.
    """
    jumps = np.zeros(len(time))
    for frames in sequences:
        speed = _turns(rotations[frames].astype(np.float64)) / np.diff(time[frames])[:, None, None]
        if len(speed) > 1:
            changes = np.sqrt(np.square(np.diff(speed, axis=0)).sum(2))
            ends = np.full((1, changes.shape[1]), np.inf)
            least = np.minimum(np.concatenate((changes, ends)), np.concatenate((ends, changes)))
            jumps[frames[:-1]] = least.sum(1) / least.shape[1]
    return jumps


def _turns(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """The turns from frame to frame, (F - 1, K, 4), of rotations (F, K, 9).

    A turn by x is a vector along its axis, of length 2 sin(x / 2). The axis of half a turn has no sign: such a turn is
    along the fourth direction, with a sign that alternates. So two half turns in a row differ, like a turn of a little
    less than half and the turn back.
    """
    matrices = rotations.reshape(*rotations.shape[:2], 3, 3)
    turn = (matrices[1:, :, :, None] * matrices[:-1, :, None]).sum(-1)
    axial = np.stack([turn[..., i - 1, i - 2] - turn[..., i - 2, i - 1] for i in range(3)], -1)
    trace = turn[..., 0, 0] + turn[..., 1, 1] + turn[..., 2, 2]
    half = (1 + trace < _HALF_TURN)[..., None]
    along = np.where(half, 0.0, axial / np.sqrt(np.maximum(1 + trace, _HALF_TURN))[..., None])
    sign = (-1.0) ** np.arange(len(turn))[:, None, None]
    return np.concatenate((along, np.where(half, 2.0, 0.0) * sign), -1)
