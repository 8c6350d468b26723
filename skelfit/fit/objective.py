"""A stage's objective around a vertex pass, for the solver: value, gradient and Hessian from its moments.

Derivative: a DoF i of joint k is a world twist (omega, v) that acts on the subtree of k, so the column of the Jacobian
is dA_j/dq_i = [omega]x A_j + [0 | v] for j below k; then gradient = 2 <D0 + dA M, dA/dq_i> and the Gauss-Newton
matrix is 2 <dA/dq_i M, dA/dq_j>. The Hessian is more by 2 <D0 + dA M, d2A/dq_i dq_j>, and where DoF i acts from
outside of DoF j, d2A is [omega_i]x dA_j: no more work than the gradient. Near an Euler pole, where two angles hardly
differ in what they do, that is what tells them apart, and Gauss-Newton steps go astray. All are checked against
autograd in float64. `PoseObjective` writes M out and is made of batched matrix products, for any device; on a CPU
`cpu_objective` does the same person by person.

Betas may be variables beside the DoFs. Beta k moves a vertex by f_k, its shape vector turned by its blended transform,
and by what it changes of the transforms, dA_k u; with d the betas' change since the pass, the residual is
r + dA u + sum d_k f_k, and `Levers` has what its squares need. Pose and shape are then found together: alternating
between them goes wherever the start leads along a valley, as slowly as the valley is flat.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor

from skelfit.body.axes import cross_matrix
from skelfit.body.dofs import DOF_JOINT, SKEL_PARENTS
from skelfit.body.kinematics import (
    SLIDE_PAIRS,
    Frames,
    Posed,
    pose_joints,
    pose_joints_with_twists,
    slide_bends,
)
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.fit.cpu_objective import FusedObjective, FusedShapedObjective, make_tree, rest_axes
from skelfit.fit.cpu_shape import shape_tables
from skelfit.fit.moments import Levers, Moments, People, side_by_side
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
    exact: bool = False,
) -> Objective:
    """The objective of a stage's active DoFs, the other angles held at q (B, 46) rad.

    state: the moments at q; exact: with the Hessian, not its model alone. An angle beyond its limits (46, 2) rad costs
    limit_weight (m^2 / rad^2) times the squared excess.
    """
    frames = people.frames
    if q.device.type != "cpu":
        return PoseObjective(plan, model, frames, q, to_quadratic(plan, state), limits, limit_weight, exact)
    axes = rest_axes(model.rig, frames)
    return FusedObjective(
        plan, make_tree(plan), frames, axes, q, state, limits[plan.dofs], limit_weight, exact
    )


def shaped_objective(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    state: Moments,
    levers: Levers,
    limits: Tensor,
    limit_weight: float,
    beta_weight: float,
) -> Objective:
    """As `stage_objective`, with betas as variables after the DoFs; a squared beta costs beta_weight (m^2)."""
    if q.device.type != "cpu":
        fixed = to_quadratic(plan, state)
        return ShapedObjective(plan, model, people.betas, q, fixed, levers, limits, limit_weight, beta_weight)
    return FusedShapedObjective(
        plan, make_tree(plan), shape_tables(model), people.betas, q, state, levers, limits[plan.dofs],
        limit_weight, beta_weight,
    )  # fmt: skip


@dataclass(frozen=True)
class Quadratic:
    """Moments with M written out."""

    transforms: Tensor  # (B, 3, 4J) A0
    m: Tensor  # (B, 4J, 4J)
    d: Tensor  # (B, 3, 4J) D0
    value: Tensor  # (B,) m^2, E0

    def take(self, rows: Tensor) -> Quadratic:
        """Of some of the people; rows (K,) int64."""
        return Quadratic(**{k: v[rows] for k, v in vars(self).items()})


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
    exact: bool = False  # whether the Hessian is wanted, or its model alone

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs x (B, n)."""
        plan, frames, state = self.plan, self.frames, self.state
        q = self.q.index_copy(1, plan.dofs, x)
        posed, twists = pose_joints_with_twists(self.model.rig, frames, q)
        a = side_by_side(skinning_transforms(posed, frames.joints)[:, plan.joints])
        change = a - state.transforms
        slope = state.d + change @ state.m
        value = state.value + ((state.d + slope) * change).sum((1, 2))
        omega, v = twists.omega[:, plan.dofs], twists.v[:, plan.dofs]
        gradient, hessian, torque, force = _derivatives(plan, omega, v, a, slope, state.m)

        low, high = self.limits[plan.dofs].unbind(-1)
        excess = torch.relu(x - high) - torch.relu(low - x)
        hessian.diagonal(dim1=1, dim2=2).add_(2 * self.limit_weight * (excess != 0).to(x.dtype))
        return Evaluation(
            value + self.limit_weight * excess.square().sum(1),
            gradient + 2 * self.limit_weight * excess,
            hessian,
            _bend(plan, frames, q, posed, omega, v, torque, force) if self.exact else None,
        )

    def take(self, rows: Tensor) -> PoseObjective:
        """The same objective of some of the people; rows (K,) int64."""
        return replace(self, frames=self.frames.take(rows), q=self.q[rows], state=self.state.take(rows))


@dataclass(frozen=True)
class ShapedObjective:
    """A stage's objective of its active DoFs and of K betas, the other angles held; an `Objective` of the solver."""

    plan: Plan
    model: SkelModel
    betas: Tensor  # (B, K) of the moments
    q: Tensor  # (B, 46) rad
    state: Quadratic
    levers: Levers
    limits: Tensor  # (46, 2) rad
    limit_weight: float
    beta_weight: float

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs and betas x (B, n + K)."""
        plan, state, n = self.plan, self.state, len(self.plan.dofs)
        betas, q = x[:, n:], self.q.index_copy(1, plan.dofs, x[:, :n])
        frames, delta = self.model.frames(betas), betas - self.betas
        lever = self.levers.lever.permute(0, 4, 2, 1, 3).flatten(3)  # (B, K, 3, 4J), as A is laid out
        force = self.levers.pull + (self.levers.products @ delta[..., None])[..., 0]
        # To the pose, the betas' change is another slope.
        pushed = replace(state, d=state.d + (delta[:, :, None, None] * lever).sum(1))
        pose = PoseObjective(plan, self.model, frames, q, pushed, self.limits, self.limit_weight)(x[:, :n])

        a, speeds = transform_speeds(plan, self.model, betas, q)
        change = (a - state.transforms)[:, None]
        along = lever + speeds @ state.m[:, None]
        slope = pushed.d + change[:, 0] @ state.m
        pull = force + (lever * change + slope[:, None] * speeds).sum((2, 3))
        square = self.levers.products + speeds.flatten(2) @ lever.flatten(2).mT
        square = square + along.flatten(2) @ speeds.flatten(2).mT
        square.diagonal(dim1=1, dim2=2).add_(self.beta_weight)
        _, twists = pose_joints_with_twists(self.model.rig, frames, q)
        across = _meeting(plan, twists.omega[:, plan.dofs], twists.v[:, plan.dofs], a, along)
        return Evaluation(
            pose.value
            + (delta * (self.levers.pull + force)).sum(1)
            + self.beta_weight * betas.square().sum(1),
            torch.cat((pose.gradient, 2 * (pull + self.beta_weight * betas)), 1),
            torch.cat((torch.cat((pose.hessian, across), 2), torch.cat((across.mT, 2 * square), 2)), 1),
        )

    def take(self, rows: Tensor) -> ShapedObjective:
        """The same objective of some of the people; rows (k,) int64."""
        return replace(
            self,
            betas=self.betas[rows],
            q=self.q[rows],
            state=self.state.take(rows),
            levers=self.levers.take(rows),
        )


def transform_speeds(plan: Plan, model: SkelModel, betas: Tensor, q: Tensor) -> tuple[Tensor, Tensor]:
    """A (B, 3, 4J) at betas (B, K) and q (B, 46), and what each beta changes of it, (B, K, 3, 4J)."""

    def transforms(betas: Tensor) -> Tensor:
        frames = model.frames(betas)
        posed = pose_joints(model.rig, frames, q)
        return side_by_side(skinning_transforms(posed, frames.joints)[:, plan.joints])

    def along(direction: Tensor) -> Tensor:
        found = torch.func.jvp(transforms, (betas,), (direction.expand_as(betas),))
        return cast("Tensor", found[1])

    directions = torch.eye(betas.shape[1], dtype=betas.dtype, device=betas.device)
    return transforms(betas), torch.func.vmap(along, out_dims=1)(directions)


def _meeting(plan: Plan, omega: Tensor, v: Tensor, a: Tensor, along: Tensor) -> Tensor:
    """The entries (B, n, K) of the matrix of a DoF and a beta; along (B, K, 3, 4J), the others as `_derivatives`'."""
    across = omega.new_empty(len(omega), omega.shape[1], along.shape[1])
    for chain in plan.chains:
        jacobian = _jacobian(omega[:, chain.dofs], v[:, chain.dofs], a[..., chain.columns], chain.subtree)
        across[:, chain.dofs] = 2 * jacobian.flatten(2) @ along[..., chain.columns].flatten(2).mT
    return across


def _derivatives(
    plan: Plan, omega: Tensor, v: Tensor, a: Tensor, slope: Tensor, m: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradient (B, n), Gauss-Newton matrix (B, n, n), and torque and force of the slope on what each DoF moves.

    Torque and force are sums (B, n, 3) of dA x slope and of the slope's translations. All go chain by chain.

    Twists (B, n, 3), transforms a (B, 3, 4J), slope D0 + dA M (B, 3, 4J) and m (B, 4J, 4J).
    """
    count, n = omega.shape[:2]
    gradient, hessian = omega.new_empty(count, n), omega.new_empty(count, n, n)
    torque, force = torch.empty_like(omega), torch.empty_like(omega)
    jacobians = [_jacobian(omega[:, c.dofs], v[:, c.dofs], a[..., c.columns], c.subtree) for c in plan.chains]
    for k, (chain, jacobian) in enumerate(zip(plan.chains, jacobians, strict=True)):
        flat, along = jacobian.flatten(2), slope[:, None, :, chain.columns]
        gradient[:, chain.dofs] = 2 * (flat @ along.flatten(1)[..., None])[..., 0]
        torque[:, chain.dofs] = torch.linalg.cross(jacobian, along.expand_as(jacobian), dim=2).sum(-1)
        force[:, chain.dofs] = (along[..., 3::4] * chain.subtree[..., 0]).sum(-1)
        start = 4 * chain.joints.start  # the later chains' columns are at or behind this chain's
        curved = (2 * jacobian.flatten(1, 2) @ m[:, chain.columns, start:]).view(count, flat.shape[1], 3, -1)
        for other, right in zip(plan.chains[k:], jacobians[k:], strict=True):
            columns = slice(other.columns.start - start, other.columns.stop - start)
            block = curved[..., columns].flatten(2) @ right.flatten(2).mT
            hessian[:, chain.dofs, other.dofs] = block
            if other is not chain:
                hessian[:, other.dofs, chain.dofs] = block.mT
    return gradient, hessian, torque, force


def _bend(
    plan: Plan,
    frames: Frames,
    q: Tensor,
    posed: Posed,
    omega: Tensor,
    v: Tensor,
    torque: Tensor,
    force: Tensor,
) -> Tensor:
    """What the Hessian (B, n, n) is more than the Gauss-Newton matrix; how, says `cpu_quadratic.second_derivatives`."""
    owner = [DOF_JOINT[i] for i in plan.dofs.tolist()]
    sliding = v - torch.linalg.cross(posed.pos[:, owner], omega)
    turned = omega @ torque.mT * plan.turns - omega @ torch.linalg.cross(sliding, force).mT * plan.alike
    bend = turned + turned.tril(-1).mT + turned.triu(1).mT
    which, i, j = plan.slides.unbind(1)
    parents = [SKEL_PARENTS[DOF_JOINT[k]] for k, _ in SLIDE_PAIRS]
    curved = (posed.rot[:, parents] @ slide_bends(frames, q)[..., None])[:, which, :, 0]
    more = (force[:, i] * curved).sum(-1)
    bend[:, i, j] += more
    bend[:, j, i] += more * (i != j)
    return 2 * bend


def _jacobian(omega: Tensor, v: Tensor, a: Tensor, subtree: Tensor) -> Tensor:
    """dA/dq of n DoFs: (B, n, 3, 4J), from twists (B, n, 3) and transforms a (B, 3, 4J)."""
    count, n = omega.shape[:2]
    moved = (cross_matrix(omega).flatten(1, 2) @ a).view(count, n, 3, -1, 4)
    moved[..., 3] += v[..., None]
    return moved.mul_(subtree).flatten(3)
