"""How much a motion trembles, jumps and lags, measured on rotations of joints: no Euler angle enters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation
from torch import Tensor

from skelfit.body.dofs import dof_index
from skelfit.body.skel import SkelModel

Array = NDArray[np.float64]
OPPOSITE_DEG = 5.0  # lumbar and thorax bend against each other where both bend by more, in opposite ways
_MOTIONS = ("bending", "extension", "twist")
_MOST_LAG = 6  # frames


def label_rotations(pose: NDArray[np.floating[Any]]) -> Array:
    """Of SMPL's joints but for the root, and the hands, which labels do not move: (F,21,3,3) of poses (F,24,3) rad."""
    joints = np.asarray(pose, np.float64)[:, 1:22]
    found: Array = Rotation.from_rotvec(joints.reshape(-1, 3)).as_matrix().reshape(*joints.shape[:2], 3, 3)
    return found


def skel_rotations(model: SkelModel, poses: Tensor) -> Array:
    """Of the joints of SKEL poses (F,46) rad but for the root, relative to their parents: (F,23,3,3)."""
    at_rest = torch.zeros(len(poses), model.num_betas, dtype=torch.float64)
    found: Array = model.joints(model.frames(at_rest), poses.double()).local_rot[:, 1:].numpy()
    return found


def steps_deg(rotations: Array) -> Array:
    """Turns from frame to frame as vectors (F-1,J,3) deg, in the joints' own axes; rotations (F,J,3,3)."""
    turn = np.swapaxes(rotations[:-1], -1, -2) @ rotations[1:]
    vectors = Rotation.from_matrix(turn.reshape(-1, 3, 3)).as_rotvec(degrees=True)
    return vectors.reshape(*turn.shape[:-2], 3)


def jitter_deg(rotations: Array) -> float:
    """Mean change of the turns from frame to frame, deg per frame^2."""
    return float(np.linalg.norm(np.diff(steps_deg(rotations), axis=0), axis=-1).mean())


def largest_step_deg(rotations: Array) -> float:
    """The largest turn of a joint from one frame to the next, deg."""
    return float(np.linalg.norm(steps_deg(rotations), axis=-1).max())


def speeds(rotations: Array, joint: int, frame_rate: float) -> Array:
    """How fast a joint turns between frames, (F-1,) deg/s."""
    found: Array = frame_rate * np.linalg.norm(steps_deg(rotations)[:, joint], axis=-1)
    return found


def lag_frames(speed: Array, of: Array) -> float:
    """By how many frames a curve (F,) comes later than another: the peak of their correlation, between frames too."""
    one, other = speed - speed.mean(), of - of.mean()
    lags = np.arange(-_MOST_LAG, _MOST_LAG + 1)
    inner = slice(_MOST_LAG, len(of) - _MOST_LAG)
    found = np.array([other[inner] @ one[inner.start + k : inner.stop + k] for k in lags])
    k = int(found[1:-1].argmax()) + 1
    before, peak, after = found[k - 1 : k + 2]
    curve = before - 2 * peak + after  # of the parabola through the three
    return float(lags[k] + (0.5 * (before - after) / curve if curve < 0 else 0.0))


def opposite_share(poses: Tensor) -> float:
    """Share of frames in which lumbar and thorax bend, extend or twist against each other; poses (F,46) rad."""
    lumbar, thorax = (
        torch.rad2deg(poses[:, [dof_index(f"{segment}_{m}") for m in _MOTIONS]])
        for segment in ("lumbar", "thorax")
    )
    apart = torch.minimum(lumbar.abs(), thorax.abs()) > OPPOSITE_DEG
    return float((apart & (lumbar * thorax < 0)).any(1).double().mean())
