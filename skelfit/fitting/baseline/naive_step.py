"""The damped step of the fit's solver, written down naively: it judges the baseline, and kernels are compared with it.

value(x) of a batch of unrelated problems x (B, n) comes with its gradient, a positive semi-definite model M of its
Hessian, and the Hessian H where that is to be used. A step solves (H + damping diag M + floor) d = -g; where that is
not positive definite, with M in place of H; where that is not either, d = -g / (largest of diag M, damped).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.config.fit_settings import SolverConfig
from skelfit.fitting.baseline.naive_objective import Evaluation

FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_DEFAULTS = SolverConfig()


def damped_step(state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The step (B, n), not bounded, and the decrease (B,) that it promises; damping (B,)."""
    diagonal = state.matrix.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.amax(-1, keepdim=True)
    floor = FLOOR * largest + torch.finfo(diagonal.dtype).tiny
    added = torch.diag_embed(damping[:, None] * diagonal + floor)
    step = -state.gradient / (largest * (1 + damping[:, None]) + floor)
    used = state.matrix
    for curvature in (state.matrix, state.hessian):  # the later one, where it will do
        if curvature is not None:
            found, good = _solved(curvature + added, state.gradient)
            step, used = torch.where(good, found, step), torch.where(good[..., None], curvature, used)
    along = (step * (used @ step[..., None])[..., 0]).sum(-1)
    return step, -(step * state.gradient).sum(-1) - 0.5 * along


def _solved(matrix: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """-matrix^-1 gradient (B, n), and where (B, 1) the matrix is positive definite and that is finite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return step, ((info == 0) & step.isfinite().all(-1))[:, None]


def promised_decrease(state: Evaluation, config: SolverConfig = _DEFAULTS) -> Tensor:
    """What a step with as good as no damping promises, (B,): g^T H^-1 g / 2, or of M for H."""
    return damped_step(state, torch.full_like(state.value, config.damping_min))[1]
