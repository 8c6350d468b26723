"""The term between the frames of a sequence: their joints deviate from the labels' by a smooth motion.

    weight_f sum_j |D_{f+1,j} - D_{f,j}|^2 / 2  m^2,      D_{f,j} = R_j(label)^T R_j(fit),

over the joints j that the last stage moves. `label_jumps` lowers the weight where labels jump.
"""

# Warp reads the annotations of a struct, so they cannot be postponed here.
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import DOF_JOINT, dof_axes
from skelfit.fitting.backends.variable_tables import JointTree


@wp.struct
class TiedJoints:
    """K joints that a stage's n variables rotate."""

    first: wp.array(dtype=int)  # (K + 1,) where each joint's variables begin
    dofs: wp.array(dtype=int)  # (n,) of the 46
    axes: wp.array2d(dtype=float)  # (n, 3) unit, in the joint's frame


def make_tied(tree: JointTree, device: str) -> TiedJoints:
    """The table of a stage, on a device of Warp."""
    joints = [DOF_JOINT[i] for i in tree.dofs]
    first = [k for k, j in enumerate(joints) if k == 0 or j != joints[k - 1]]
    axes = dof_axes()[list(tree.dofs)]
    tied = TiedJoints()
    tied.first = wp.array(np.array([*first, len(joints)], dtype=np.int32), dtype=int, device=device)
    tied.dofs = wp.array(np.array(tree.dofs, dtype=np.int32), dtype=int, device=device)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    tied.axes = wp.array(axes.astype(np.float32), dtype=float, device=device)
    return tied


@dataclass(frozen=True)
class FrameTies:
    """The neighbours in time of each of N frames."""

    before: NDArray[np.int64]  # (N,) -1: none
    after: NDArray[np.int64]  # (N,) -1: none
    weight: Tensor  # (N, 2) m^2 / rad^2, of the tie to the frame before and to the frame after


def make_frame_ties(
    sequences: Sequence[NDArray[np.int64]], time: NDArray[np.float64], weight: NDArray[np.float64]
) -> FrameTies:
    """The ties along sequences of frames; time (N,) s.

    weight (N,) m^2 s^2 / rad^2 belongs to the tie to the next frame. It is divided by the square of the time between.
    """
    before, after = np.full(len(time), -1), np.full(len(time), -1)
    weights = np.zeros((len(time), 2))
    for frames in sequences:
        one, two = frames[:-1], frames[1:]
        before[two], after[one] = one, two
        weights[two, 0] = weights[one, 1] = weight[one] / (time[two] - time[one]) ** 2
    return FrameTies(before, after, torch.tensor(weights, dtype=torch.float32))
