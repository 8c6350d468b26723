"""The objective of a sequence, written naively, for tests to compare kernels with.

    E(x) = sum_f E_f(x_f) + sum_f w_f sum_j |D_{f+1,j} - D_{f,j}|^2 / 2,   D_{f,j} = R_j(s_f)^T R_j(q_f),

in m^2, with E_f a frame's own `NaiveObjective`, w_f in m^2 / rad^2 and R_j the rotation of joint j in its own frame.
The matrix is dense: keep sequences short.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skelfit.bodies.dofs import DOF_JOINT, dof_axes
from skelfit.bodies.lazy_roma import roma
from skelfit.fitting.baseline.naive_objective import NaiveObjective


@dataclass(frozen=True)
class SequenceReference:
    """F frames, in order."""

    frames: NaiveObjective
    start: Tensor  # (F, 46) rad, s
    weight: Tensor  # (F - 1,) m^2 / rad^2

    def ties(self, x: Tensor) -> Tensor:
        """The residuals (F - 1, m) m of the ties at variables (F, n)."""
        dofs = self.frames.dofs.tolist()
        q, _ = self.frames.parts(x)
        joints = sorted({DOF_JOINT[i] for i in dofs})
        off = torch.stack(
            [joint_rotation(self.start, j).mT @ joint_rotation(q, j) for j in joints], 1
        ).flatten(1)
        return (0.5 * self.weight).sqrt()[:, None] * (off[1:] - off[:-1])

    def value(self, x: Tensor) -> Tensor:
        """E at variables (F, n)."""
        return self.frames.value(x).sum() + self.ties(x).square().sum()

    def gradient(self, x: Tensor) -> Tensor:
        """Its gradient (F, n)."""
        gradient: Tensor = torch.func.grad(self.value)(x)
        return gradient

    def matrix(self, x: Tensor) -> Tensor:
        """Gauss-Newton's model of its Hessian (F n, F n)."""
        slope = torch.func.jacfwd(lambda y: self.ties(y.view_as(x)).flatten())(x.flatten())
        return torch.block_diag(*self.frames.matrix(x)) + 2 * slope.mT @ slope


def joint_rotation(q: Tensor, joint: int) -> Tensor:
    """The rotation (F, 3, 3) of a joint in its own frame at angles q (F, 46) rad."""
    axes = torch.tensor(dof_axes(), dtype=q.dtype)
    rotation = torch.eye(3, dtype=q.dtype).expand(len(q), 3, 3)
    for i, owner in enumerate(DOF_JOINT):
        if owner == joint:
            rotation = roma.rotvec_to_rotmat(q[:, i, None] * axes[i] / axes[i].norm()) @ rotation
    return rotation
