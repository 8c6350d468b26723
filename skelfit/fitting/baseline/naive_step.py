"""The damped step of the fit's solver, written naively: the baseline is judged by it, and kernels are compared with it.

An `Evaluation` of independent problems x (B, n) has gradients g, positive semi-definite models M of the Hessians and,
if they are to be used, the Hessians H. A step solves (H + damping diag M + floor) d = -g. If that matrix is not
positive definite, M replaces H; if that one is not either, d = -g / (largest of diag M, damped).
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.config.fit_settings import SolverConfig
from skelfit.fitting.baseline.naive_objective import Evaluation

FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_DEFAULTS = SolverConfig()


def damped_step(state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """The step (B, n), without a bound, and the decrease (B,) that it promises; damping (B,)."""
    diagonal = state.matrix.diagonal(dim1=-2, dim2=-1)
    largest = diagonal.amax(-1, keepdim=True)
    floor = FLOOR * largest + torch.finfo(diagonal.dtype).tiny
    added = torch.diag_embed(damping[:, None] * diagonal + floor)
    step = -state.gradient / (largest * (1 + damping[:, None]) + floor)
    used = state.matrix
    for curvature in (state.matrix, state.hessian):  # the last one that works
        if curvature is not None:
            solution, good = _solved(curvature + added, state.gradient)
            step, used = torch.where(good, solution, step), torch.where(good[..., None], curvature, used)
    along = (step * (used @ step[..., None])[..., 0]).sum(-1)
    return step, -(step * state.gradient).sum(-1) - 0.5 * along


def _solved(matrix: Tensor, gradient: Tensor) -> tuple[Tensor, Tensor]:
    """-matrix^-1 gradient (B, n), and whether (B, 1) the matrix is positive definite and the solution finite."""
    factor, info = torch.linalg.cholesky_ex(matrix)
    step = -torch.cholesky_solve(gradient[..., None], factor)[..., 0]
    return step, ((info == 0) & step.isfinite().all(-1))[:, None]


def promised_decrease(state: Evaluation, config: SolverConfig = _DEFAULTS) -> Tensor:
    """The decrease (B,) that a step with the least damping promises: g^T H^-1 g / 2, or with M for H."""
    return damped_step(state, torch.full_like(state.value, config.damping_min))[1]
