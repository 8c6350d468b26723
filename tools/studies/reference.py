"""A slow reference for the fit: pose and betas of each person together, in float64, on all vertices, to convergence.

It shares only the forward model and the objective with the product: no moments, no fixed correctives, no stages.
The gradient is autograd's; the curvature is Gauss-Newton's, by differences over every 8th vertex, which only
decides how fast it converges.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS
from skelfit.bodies.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.fitting.terms.shoulder_targets import JointLocator

_STRIDE = 8
_DIFFERENCE = 1e-6  # rad, or units of a beta
_TOGETHER = 16  # people at a time
_STEPS, _MAX_STEP = 150, 0.5
_DONE = 1e-6  # a person rests when a step promises less than this share of the objective


@dataclass(frozen=True)
class Priors:
    """The terms that the objective adds to the mean squared vertex error."""

    limits: Tensor  # (46, 2) rad
    limit_weight: float  # m^2 per rad^2
    beta_weight: float  # m^2 per squared beta
    locator: JointLocator | None = None  # of joints that are drawn to where a mesh has them
    joint_weight: float = 0.0
    couplings: Tensor | None = None  # (K, 46) m per rad


@dataclass(frozen=True)
class Reference:
    """The results of the reference, float64, a row per person."""

    q: Tensor  # (N, 46) rad, the root at zero
    betas: Tensor  # (N, 10)
    objective: Tensor  # (N,) m^2
    pve: Tensor  # (N,) m, mean vertex error
    steps: Tensor  # (N,) int64; _STEPS: not at rest by then


def converge(model: SkelModel, target: Tensor, q: Tensor, betas: Tensor, priors: Priors) -> Reference:
    """Refine angles q (N, 46), but the root's, and betas (N, 10) towards meshes target (N, V, 3) m; all float64."""
    parts = [
        _converge(model, *few, priors)
        for few in zip(target.split(_TOGETHER), q.split(_TOGETHER), betas.split(_TOGETHER), strict=True)
    ]
    return Reference(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Reference)})


def lower(one: Reference, other: Reference) -> Reference:
    """For each person, the reference with the lower objective."""
    second = other.objective < one.objective

    def choose(a: Tensor, b: Tensor) -> Tensor:
        return torch.where(second.view(-1, *[1] * (a.ndim - 1)), b, a)

    return Reference(
        **{f.name: choose(getattr(one, f.name), getattr(other, f.name)) for f in fields(Reference)}
    )


def skin(model: SkelModel, x: Tensor, stride: int = 1) -> tuple[Tensor, Tensor]:
    """Every stride-th skin vertex (..., V', 3) and the joints (..., 24, 3) of people x = [q, betas] (..., 56)."""
    q, betas = x[..., :NUM_DOFS], x[..., NUM_DOFS:]
    frames = model.frames(betas)
    posed = model.joints(frames, q)
    rest = model.v_template[::stride] + torch.einsum("vcb,...b->...vc", model.shapedirs[::stride], betas)
    feature = corrective_feature(posed.local_rot, model.corrective_joints)
    rest = rest + torch.einsum("vcp,...p->...vc", model.posedirs[::stride], feature)
    moved = (model.weights[::stride] @ skinning_transforms(posed, frames.joints).flatten(-2)).unflatten(
        -1, (3, 4)
    )
    return (moved[..., :3] @ rest[..., None])[..., 0] + moved[..., 3], posed.pos


def _converge(model: SkelModel, target: Tensor, q: Tensor, betas: Tensor, priors: Priors) -> Reference:
    """Levenberg-Marquardt for each person alone; those that converged leave the batch."""
    x = torch.cat((q, betas), 1)
    x[:, list(ROOT_DOFS)] = 0
    steps = torch.full((len(x),), _STEPS, dtype=torch.int64, device=x.device)
    damping = x.new_full((len(x),), 1e-3)
    rows = torch.arange(len(x), device=x.device)
    value, gradient = _slope(model, x, target, priors)
    for step_number in range(_STEPS):
        matrix = _curvature(model, x[rows], priors)
        diagonal = matrix.diagonal(dim1=1, dim2=2)
        damped = matrix + torch.diag_embed(
            damping[rows, None] * diagonal + 1e-12 * diagonal.amax(1, keepdim=True)
        )
        step = -torch.linalg.solve(damped, gradient[rows, 3:, None])[..., 0]
        promised = -(step * gradient[rows, 3:]).sum(1) - 0.5 * (
            step * (matrix @ step[..., None])[..., 0]
        ).sum(1)
        resting = (promised < _DONE * value[rows]) & (damping[rows] <= 1e-2)
        steps[rows[resting]] = step_number
        rows, step = rows[~resting], step[~resting]
        if len(rows) == 0:
            break
        step = step * (_MAX_STEP / step.abs().amax(1, keepdim=True)).clamp(max=1)
        trial = torch.cat((x[rows, :3], x[rows, 3:] + step), 1)
        trial_value, trial_gradient = _slope(model, trial, target[rows], priors)
        good = trial_value < value[rows]
        better = rows[good]
        x[better], value[better], gradient[better] = trial[good], trial_value[good], trial_gradient[good]
        damping[rows] = (damping[rows] * torch.where(good, 0.1, 10.0)).clamp(1e-9, 1e9)
    pve = (skin(model, x)[0] - target).norm(dim=-1).mean(1)
    return Reference(x[:, :NUM_DOFS], x[:, NUM_DOFS:], value, pve, steps)


def _excess(x: Tensor, priors: Priors) -> Tensor:
    low, high = priors.limits.unbind(-1)
    q = x[:, :NUM_DOFS]
    return torch.relu(q - high) - torch.relu(low - q)


def _slope(model: SkelModel, x: Tensor, target: Tensor, priors: Priors) -> tuple[Tensor, Tensor]:
    """Objective (B,) and its gradient (B, 56)."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        vertices, joints = skin(model, x)
        value = (vertices - target).square().sum(-1).mean(1)
        if priors.locator is not None:
            shoulder = priors.locator(target)
            off = joints[:, list(priors.locator.joints)] - shoulder
            value = value + priors.joint_weight * off.square().sum((1, 2))
        value = value + priors.limit_weight * _excess(x, priors).square().sum(1)
        if priors.couplings is not None:
            value = value + (x[:, :NUM_DOFS] @ priors.couplings.mT).square().sum(1)
        value = value + priors.beta_weight * x[:, NUM_DOFS:].square().sum(1)
        (gradient,) = torch.autograd.grad(value.sum(), x)
    return value.detach(), gradient


def _curvature(model: SkelModel, x: Tensor, priors: Priors) -> Tensor:
    """Gauss-Newton matrix (B, 53, 53) of all but the root."""
    free = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)[3:]
    moved, joints = skin(model, torch.cat((x[:, None], x[:, None] + _DIFFERENCE * free), 1), _STRIDE)
    slope = ((moved[:, 1:] - moved[:, :1]) / (_DIFFERENCE * moved.shape[2] ** 0.5)).flatten(2)
    if priors.locator is not None:
        mine = priors.joint_weight**0.5 * joints[:, :, list(priors.locator.joints)]
        slope = torch.cat((slope, ((mine[:, 1:] - mine[:, :1]) / _DIFFERENCE).flatten(2)), 2)
    weights = 2 * priors.limit_weight * (_excess(x, priors) != 0).to(x.dtype)
    betas = x.new_full((len(x), x.shape[1] - NUM_DOFS), 2 * priors.beta_weight)
    diagonal = torch.cat((weights[:, 3:], betas), 1)
    matrix = 2 * slope @ slope.mT + torch.diag_embed(diagonal)
    if priors.couplings is not None:
        forms = torch.nn.functional.pad(priors.couplings, (0, x.shape[1] - NUM_DOFS))[:, 3:]
        matrix = matrix + 2 * forms.mT @ forms
    return matrix
