"""How much the labels of a sequence jump: frames that are wrong are not to drag their neighbours along.

A motion of two frames is compared with those just before and after it, and only what is unlike both counts: the start
of a fast motion is like what follows it. A wrong label differs from both its neighbours by more than a body can, mostly
in many joints. A sequence of two frames has nothing to compare its one motion with: they are tied whatever it is.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Of 1 + trace, which is 0 at half a turn: closer to it, rounding decides which way the axis points.
_HALF_TURN = 1e-6


def label_jumps(
    rotations: NDArray[np.float32], sequences: Sequence[NDArray[np.int64]], time: NDArray[np.float64]
) -> NDArray[np.float64]:
    """From each of N frames to the one after it, (N,) rad / s, mean over the joints; 0 where there is none.

    rotations (N, K, 9) of joints; time (N,) s. Sums are in a fixed order, so that bits depend on no other sequence.
    """
    found = np.zeros(len(time))
    for frames in sequences:
        speed = _turns(rotations[frames].astype(np.float64)) / np.diff(time[frames])[:, None, None]
        if len(speed) > 1:
            unlike = np.sqrt(np.square(np.diff(speed, axis=0)).sum(2))
            ends = np.full((1, unlike.shape[1]), np.inf)
            least = np.minimum(np.concatenate((unlike, ends)), np.concatenate((ends, unlike)))
            found[frames[:-1]] = least.sum(1) / least.shape[1]
    return found


def _turns(rotations: NDArray[np.float64]) -> NDArray[np.float64]:
    """Of rotations (F, K, 9) the vectors (F - 1, K, 4), 2 sin(x / 2) long for a turn by x: along its axis.

    The axis of half a turn has no sign: it is along the fourth direction, to and fro from frame to frame, so that half
    a turn and the same again are unlike, as a little less than half a turn and the way back are.
    """
    matrices = rotations.reshape(*rotations.shape[:2], 3, 3)
    turn = (matrices[1:, :, :, None] * matrices[:-1, :, None]).sum(-1)
    axial = np.stack([turn[..., i - 1, i - 2] - turn[..., i - 2, i - 1] for i in range(3)], -1)
    trace = turn[..., 0, 0] + turn[..., 1, 1] + turn[..., 2, 2]
    half = (1 + trace < _HALF_TURN)[..., None]
    along = np.where(half, 0.0, axial / np.sqrt(np.maximum(1 + trace, _HALF_TURN))[..., None])
    fro = (-1.0) ** np.arange(len(turn))[:, None, None]
    return np.concatenate((along, np.where(half, 2.0, 0.0) * fro), -1)
