"""Betas that some frames of one person have in common, from what each frame would have by itself.

Around where frame i is, with its own betas b_i and its own pose, its objective is a quadratic form of both. With the
pose that is best for each betas, the betas' own form has the matrix S_i = H_bb - H_bq H_qq^-1 H_qb and the gradient
r_i = g_b - H_bq H_qq^-1 g_q. The sum over the frames is least at

    (sum_i S_i) betas = sum_i (S_i b_i - r_i):

a mean in which a frame counts where it knows the betas. What a pose can stand in for, it knows little of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp
from torch import Tensor

from skelfit.fitting.passes import Batch, state_of, vertex_pass, whole_groups

if TYPE_CHECKING:
    from skelfit.fitting.backends.backend import Backend
    from skelfit.fitting.schedule import Schedule


@dataclass(frozen=True)
class Known:
    """What N frames know of their betas, float64 on the host; rows that are not finite know nothing."""

    matrix: Tensor  # (N, K, K) S
    right: Tensor  # (N, K) S b - r

    def common(self) -> Tensor:
        """The betas (K,) of all frames; zeros where none knows any."""
        good = self.matrix.isfinite().flatten(1).all(1) & self.right.isfinite().all(1)
        if not good.any():
            return torch.zeros_like(self.right[0])
        return torch.linalg.solve(self.matrix[good].sum(0), self.right[good].sum(0))

    def take(self, rows: slice) -> Known:
        """Some of the frames."""
        return Known(self.matrix[rows], self.right[rows])


def alike(betas: Tensor) -> Known:
    """Of frames that know their betas (N, K) equally well: what they have in common is the mean."""
    right = betas.double()
    return Known(torch.eye(betas.shape[1], dtype=torch.float64).expand(len(betas), -1, -1), right)


def together(parts: Sequence[Known]) -> Known:
    """All frames of some parts."""
    return Known(torch.cat([p.matrix for p in parts]), torch.cat([p.right for p in parts]))


def know_betas(backend: Backend, schedule: Schedule, batch: Batch) -> Known:
    """What the frames of a batch know of betas, where they are; by the coarse vertices of the last stage."""
    k, stage, rows = backend.kernels, schedule.stages[-1], np.arange(batch.count)
    tables, count = stage.coarse, batch.count
    found = vertex_pass(backend, tables, batch, rows, True)
    groups = whole_groups(rows, backend.lanes)
    joints, pairs = len(tables.tree.joints), len(tables.tree.pairs)
    n, free = len(tables.tree.dofs), batch.betas.shape[1]
    sequences = k.temporal_terms.make_sequence_terms(count, n + free, 1, backend.device)
    system = k.cyclic_reduction.make_chain_system(count, n + free, backend.device)
    backend.launch(
        k.frame_steps.evaluate_frames,
        len(groups),
        [
            backend.ints(groups), backend.ints(groups), backend.slots(len(groups)),
            schedule.rules(stage, 1, True, False), state_of(backend, batch), batch.located,
            found.moments, found.beta_moments, tables.variables, tables.body,
            backend.room(k.joint_frames.make_joint_frames, len(groups)),
            backend.room(k.quadratic.make_quadratic_form, len(groups), joints, pairs, tables.variables.num_cells),
            backend.room(k.betas_terms.make_beta_terms, len(groups), joints),
            backend.room(k.objective.make_variable_scratch, len(groups), n + free, tables.balls.index.shape[0]),
            backend.room(k.damped_step.make_newton_scratch, len(groups), n + free),
            sequences, system,
        ],
    )  # fmt: skip
    upper = backend.read(wp.to_torch(system.matrix)).double().triu()
    whole = upper + upper.triu(1).mT
    gradient = backend.read(wp.to_torch(sequences.gradient)).double()
    return known(whole, gradient, backend.read(batch.betas).double())


def known(matrix: Tensor, gradient: Tensor, betas: Tensor) -> Known:
    """Of matrices (N, n + K, n + K) and gradients (N, n + K) of poses, then betas, at betas (N, K)."""
    n = matrix.shape[1] - betas.shape[1]
    across = matrix[:, :n, n:]
    # Of a frame that is not finite, no error: it knows nothing.
    shares, _ = torch.linalg.solve_ex(matrix[:, :n, :n], torch.cat((across, gradient[:, :n, None]), 2))
    own = torch.cat((matrix[:, n:, n:], gradient[:, n:, None]), 2) - across.mT @ shares
    return Known(own[..., :-1], (own[..., :-1] @ betas[..., None])[..., 0] - own[..., -1])
