"""A stage's objective around a vertex pass, for the solver: value, gradient and Gauss-Newton matrix from its moments.

Derivative: a DoF i of joint k is a world twist (omega, v) that acts on the subtree of k, so the column of the Jacobian
is dA_j/dq_i = [omega]x A_j + [0 | v] for j below k; then gradient = 2 <D0 + dA M, dA/dq_i> and the Gauss-Newton
matrix is 2 <dA/dq_i M, dA/dq_j>. Both are checked against autograd in float64. `PoseObjective` writes M out and is
made of batched matrix products, for any device; on a CPU `cpu_objective` does the same person by person.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skelfit.body.axes import cross_matrix
from skelfit.body.kinematics import Frames, pose_joints_with_twists
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.fit.cpu_objective import FusedObjective, make_tree, rest_axes
from skelfit.fit.moments import Moments, People, side_by_side
from skelfit.fit.plans import Plan
from skelfit.fit.solver import Evaluation, Objective


def stage_objective(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    state: Moments,
    limits: Tensor,
    limit_weight: float,
) -> Objective:
    """The objective of a stage's active DoFs, the other angles held at q (B, 46) rad.

    state: the moments at q. An angle beyond its limits (46, 2) rad costs limit_weight (m^2 / rad^2) times the squared
    excess.
    """
    frames = people.frames
    if q.device.type != "cpu":
        return PoseObjective(plan, model, frames, q, to_quadratic(plan, state), limits, limit_weight)
    axes = rest_axes(model.rig, frames)
    return FusedObjective(plan, make_tree(plan), frames, axes, q, state, limits[plan.dofs], limit_weight)


@dataclass(frozen=True)
class Quadratic:
    """Moments with M written out."""

    transforms: Tensor  # (B, 3, 4J) A0
    m: Tensor  # (B, 4J, 4J)
    d: Tensor  # (B, 3, 4J) D0
    value: Tensor  # (B,) m^2, E0


def to_quadratic(plan: Plan, state: Moments) -> Quadratic:
    """The moments with M written out."""
    flat = state.pairs.flatten(1)
    flat = torch.cat((flat, flat.new_zeros(len(flat), 1)), 1)
    size = 4 * len(plan.joints)
    return Quadratic(state.transforms, flat[:, plan.fill].view(-1, size, size), state.d, state.value)


@dataclass(frozen=True)
class PoseObjective:
    """A stage's objective of its active DoFs, the other angles held; an `Objective` of the solver.

    An angle beyond its limits costs limit_weight (m^2 / rad^2) times the squared excess.
    """

    plan: Plan
    model: SkelModel
    frames: Frames
    q: Tensor  # (B, 46) rad
    state: Quadratic
    limits: Tensor  # (46, 2) rad
    limit_weight: float

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs x (B, n)."""
        plan, frames, state = self.plan, self.frames, self.state
        posed, twists = pose_joints_with_twists(self.model.rig, frames, self.q.index_copy(1, plan.dofs, x))
        a = side_by_side(skinning_transforms(posed, frames.joints)[:, plan.joints])
        change = a - state.transforms
        slope = state.d + change @ state.m
        value = state.value + ((state.d + slope) * change).sum((1, 2))
        omega, v = twists.omega[:, plan.dofs], twists.v[:, plan.dofs]
        gradient, hessian = _derivatives(plan, omega, v, a, slope, state.m)

        low, high = self.limits[plan.dofs].unbind(-1)
        excess = torch.relu(x - high) - torch.relu(low - x)
        hessian.diagonal(dim1=1, dim2=2).add_(2 * self.limit_weight * (excess != 0).to(x.dtype))
        return Evaluation(
            value + self.limit_weight * excess.square().sum(1),
            gradient + 2 * self.limit_weight * excess,
            hessian,
        )

    def take(self, rows: Tensor) -> PoseObjective:
        """The same objective of some of the people; rows (K,) int64."""
        state = Quadratic(**{k: v[rows] for k, v in vars(self.state).items()})
        return replace(self, frames=self.frames.take(rows), q=self.q[rows], state=state)


def _derivatives(
    plan: Plan, omega: Tensor, v: Tensor, a: Tensor, slope: Tensor, m: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient (B, n) and Gauss-Newton matrix (B, n, n), chain by chain: most of the Jacobian is zero.

    Twists (B, n, 3), transforms a (B, 3, 4J), slope D0 + dA M (B, 3, 4J) and m (B, 4J, 4J).
    """
    count, n = omega.shape[:2]
    gradient, hessian = omega.new_empty(count, n), omega.new_empty(count, n, n)
    jacobians = [_jacobian(omega[:, c.dofs], v[:, c.dofs], a[..., c.columns], c.subtree) for c in plan.chains]
    for k, (chain, jacobian) in enumerate(zip(plan.chains, jacobians, strict=True)):
        flat = jacobian.flatten(2)
        along = slope[..., chain.columns].flatten(1)
        gradient[:, chain.dofs] = 2 * (flat @ along[..., None])[..., 0]
        start = 4 * chain.joints.start  # the later chains' columns are at or behind this chain's
        curved = (2 * jacobian.flatten(1, 2) @ m[:, chain.columns, start:]).view(count, flat.shape[1], 3, -1)
        for other, right in zip(plan.chains[k:], jacobians[k:], strict=True):
            columns = slice(other.columns.start - start, other.columns.stop - start)
            block = curved[..., columns].flatten(2) @ right.flatten(2).mT
            hessian[:, chain.dofs, other.dofs] = block
            if other is not chain:
                hessian[:, other.dofs, chain.dofs] = block.mT
    return gradient, hessian


def _jacobian(omega: Tensor, v: Tensor, a: Tensor, subtree: Tensor) -> Tensor:
    """dA/dq of n DoFs: (B, n, 3, 4J), from twists (B, n, 3) and transforms a (B, 3, 4J)."""
    count, n = omega.shape[:2]
    moved = (cross_matrix(omega).flatten(1, 2) @ a).view(count, n, 3, -1, 4)
    moved[..., 3] += v[..., None]
    return moved.mul_(subtree).flatten(3)
