"""Betas that the frames of one person share, from the objective of each frame.

Near frame i, with its own betas b_i and pose, its objective is a quadratic form of both. With the best pose for given
betas, it is a form of the betas alone: matrix S_i = H_bb - H_bq H_qq^-1 H_qb, gradient r_i = g_b - H_bq H_qq^-1 g_q.
The sum over the frames is least at

    (sum_i S_i) betas = sum_i (S_i b_i - r_i).

This is a mean: a frame has more weight where its objective determines the betas, less where a pose can replace them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
import warp as wp
from torch import Tensor

from skelfit.fitting.passes import FitBatch, solver_scratch, state_of, vertex_pass, whole_groups

if TYPE_CHECKING:
    from skelfit.fitting.backends.backend import Backend
    from skelfit.fitting.schedule import Schedule


@dataclass(frozen=True)
class BetasSystems:
    """The forms of N frames' betas, float64 on the host; rows that are not finite have no weight."""

    matrix: Tensor  # (N, K, K) S
    right: Tensor  # (N, K) S b - r

    def common(self) -> Tensor:
        """The shared betas (K,) of all frames; zeros if no frame has a weight."""
        good = self.matrix.isfinite().flatten(1).all(1) & self.right.isfinite().all(1)
        if not good.any():
            return torch.zeros_like(self.right[0])
        return torch.linalg.solve(self.matrix[good].sum(0), self.right[good].sum(0))

    def take(self, rows: slice | Tensor) -> BetasSystems:
        """The systems of some frames."""
        return BetasSystems(self.matrix[rows], self.right[rows])


def equal_systems(betas: Tensor) -> BetasSystems:
    """Frames with betas (N, K) of equal weight: the shared betas are the mean."""
    right = betas.double()
    return BetasSystems(torch.eye(betas.shape[1], dtype=torch.float64).expand(len(betas), -1, -1), right)


def concatenate(parts: Sequence[BetasSystems]) -> BetasSystems:
    """The systems of all parts."""
    return BetasSystems(torch.cat([p.matrix for p in parts]), torch.cat([p.right for p in parts]))


def betas_systems(backend: Backend, schedule: Schedule, batch: FitBatch) -> BetasSystems:
    """The systems of a batch's frames where they are, from the coarse vertices of the last stage."""
    k, stage, rows = backend.kernels, schedule.stages[-1], np.arange(batch.count)
    tables, count = stage.coarse, batch.count
    moments = vertex_pass(backend, tables, batch, rows, True)
    groups = whole_groups(rows, backend.lanes)
    n = len(tables.tree.dofs) + batch.betas.shape[1]
    sequences = k.temporal_terms.make_sequence_terms(count, n, 1, backend.device)
    system = k.cyclic_reduction.make_chain_system(count, n, backend.device)
    backend.launch(
        k.frame_steps.evaluate_frames,
        len(groups),
        [
            backend.ints(groups), backend.ints(groups), backend.slots(len(groups)),
            schedule.rules(stage, 1, True, False), state_of(backend, batch), batch.located,
            moments.moments, moments.beta_moments, tables.variables, tables.body,
            *solver_scratch(backend, tables, len(groups), True), sequences, system,
        ],
    )  # fmt: skip
    upper = backend.read(wp.to_torch(system.matrix)).double().triu()
    whole = upper + upper.triu(1).mT
    gradient = backend.read(wp.to_torch(sequences.gradient)).double()
    return eliminate_pose(whole, gradient, backend.read(batch.betas).double())


def eliminate_pose(matrix: Tensor, gradient: Tensor, betas: Tensor) -> BetasSystems:
    """The systems of matrices (N, n + K, n + K) and gradients (N, n + K) of pose, then betas, at betas (N, K)."""
    n = matrix.shape[1] - betas.shape[1]
    across = matrix[:, :n, n:]
    # solve_ex raises no error for a frame that is not finite.
    shares, _ = torch.linalg.solve_ex(matrix[:, :n, :n], torch.cat((across, gradient[:, :n, None]), 2))
    own = torch.cat((matrix[:, n:, n:], gradient[:, n:, None]), 2) - across.mT @ shares
    return BetasSystems(own[..., :-1], (own[..., :-1] @ betas[..., None])[..., 0] - own[..., -1])
