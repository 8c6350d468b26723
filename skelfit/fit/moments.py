"""Moment space: one pass over the vertices, after which an iteration costs a few thousandths of a pass.

A linear-blend-skinned vertex is linear in the joints' skinning transforms A = [A_1 ... A_J] (3 x 4J). With
h = [v_rest; 1], u = (w_j h)_j in R^4J, target y and weight om (a stage's weights sum to 1), the objective

    E(q) = sum_v om |A(q) u - y|^2        (m^2, mean squared vertex error)

is quadratic in A. Around the transforms A0 of the last pass, with dA = A - A0 and the residual r = A0 u - y,

    E = E0 + 2 <D0, dA> + <dA M, dA>,     E0 = sum om |r|^2,  D0 = sum om r u^T,  M = sum om u u^T.

Expanding about A0, not about 0, keeps the small numbers small: float32 resolves a residual of 0.1 um.
M's 4x4 block of two joints is zero unless they share a vertex, so only those pairs are summed. Pose correctives move
v_rest slowly and are held between passes.

Derivative: a DoF i of joint k is a world twist (omega, v) that acts on the subtree of k, so the column of the Jacobian
is dA_j/dq_i = [omega]x A_j + [0 | v] for j below k; then gradient = 2 <D0 + dA M, dA/dq_i> and the Gauss-Newton
matrix is 2 <dA/dq_i M, dA/dq_j>. Both are checked against autograd in float64.

In the vertex pass people are the innermost dimension, so that every product with a table is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from skelfit.body.axes import cross_matrix
from skelfit.body.kinematics import Frames, pose_joints, pose_joints_with_twists
from skelfit.body.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.fit.plans import PRODUCTS, Plan, Rows, VertexBlock
from skelfit.fit.solver import Evaluation


@dataclass(frozen=True)
class Moments:
    """The objective of a batch of people around the transforms of the last vertex pass."""

    transforms: Tensor  # (B, 3, 4J) A0
    m: Tensor  # (B, 4J, 4J)
    d: Tensor  # (B, 3, 4J) D0
    value: Tensor  # (B,) m^2, E0


@dataclass(frozen=True)
class Errors:
    """Distances of the posed skin to its target, and extra points regressed from the skin."""

    pve: Tensor  # (B,) m, mean over the plan's vertices
    mean_square: Tensor  # (B,) m^2, over the same
    max_vertex: Tensor  # (B,) m
    points: Tensor | None  # (B, K, 3) m


@dataclass(frozen=True)
class People:
    """A batch of people as the vertex passes see them, in the canonical frame (global orientation removed)."""

    betas: Tensor  # (B, 10) SKEL's
    frames: Frames
    target: Tensor  # (V, 3, B) m, people innermost

    def take(self, rows: Tensor) -> People:
        """Some of the people; rows (K,) int64."""
        return People(self.betas[rows], self.frames.take(rows), self.target[..., rows])


def side_by_side(transforms: Tensor) -> Tensor:
    """(B, J, 3, 4) transforms side by side: (B, 3, 4J)."""
    return transforms.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class Tile:
    """One block of vertices of a few people, people innermost, lengths in m."""

    rest: Tensor  # (Vb, 3, Bt) rest skin, correctives included
    blended: Tensor  # (Vb, 3, 4, Bt) blended skinning transforms
    residual: Tensor  # (Vb, 3, Bt) posed skin minus target
    target: Tensor  # (Vb, 3, Bt)


def for_each_tile(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    visit: Callable[[VertexBlock, Tile, slice], None],
) -> Tensor:
    """Pose all people at q (B, 46), tile by tile; returns the skinning transforms (B, 24, 3, 4)."""
    posed = pose_joints(model.rig, people.frames, q)
    transforms = skinning_transforms(posed, people.frames.joints)
    feature = corrective_feature(posed.local_rot, model.corrective_joints)
    coefficients = torch.cat((torch.ones_like(feature[:, :1]), people.betas, feature), 1).mT
    stacked = transforms.permute(1, 2, 3, 0).flatten(1, 2)  # (24, 12, B)
    for start in range(0, q.shape[0], plan.people):
        who = slice(start, min(start + plan.people, q.shape[0]))
        few, moved = coefficients[:, who].contiguous(), stacked[..., who].contiguous()
        for block in plan.blocks:
            visit(block, _pose_tile(block, few, moved, people.target[block.vertices, :, who]), who)
    return transforms


def _pose_tile(block: VertexBlock, coefficients: Tensor, transforms: Tensor, target: Tensor) -> Tile:
    count = target.shape[-1]
    rest = (block.basis @ coefficients).view(-1, 3, count)
    blended = (block.skin.values.mT @ transforms[block.skin.index].flatten(1)).view(-1, 3, 4, count)
    residual = blended[:, :, 3] - target
    for c in range(3):
        residual.addcmul_(blended[:, :, c], rest[:, c, None])
    return Tile(rest, blended, residual, target)


def _add(total: Tensor, who: slice, rows: Rows, terms: Tensor) -> None:
    """Add a block's sums to total (N, k, B): rows of N, terms (Vb, k, Bt)."""
    total[..., who].index_add_(0, rows.index, (rows.values @ terms.flatten(1)).view(-1, *terms.shape[1:]))


def moments(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Moments:
    """The vertex pass of a stage at q (B, 46): reads each target vertex once."""
    count, joints = q.shape[0], len(plan.joints)
    sums = q.new_zeros(len(plan.pair_mass), 9, count)
    d = q.new_zeros(joints, 12, count)
    value = q.new_zeros(count)

    def visit(block: VertexBlock, tile: Tile, who: slice) -> None:
        rest, residual = tile.rest, tile.residual
        size, _, n = rest.shape
        monomials = rest.new_empty(size, 9, n)
        for k, (a, b) in enumerate(PRODUCTS):
            torch.mul(rest[:, a], rest[:, b], out=monomials[:, k])
        monomials[:, 6:] = rest
        _add(sums, who, block.pair, monomials)
        lever = rest.new_empty(size, 3, 4, n)
        torch.mul(residual[:, :, None], rest[:, None], out=lever[:, :, :3])
        lever[:, :, 3] = residual
        _add(d, who, block.joint, lever.flatten(1, 2))
        value[who] += residual.square().sum((0, 1))

    transforms = for_each_tile(plan, model, people, q, visit)
    mass = plan.pair_mass[None, :, None].expand(count, -1, 1)
    flat = torch.cat((sums.permute(2, 0, 1), mass), 2).flatten(1)
    flat = torch.cat((flat, flat.new_zeros(count, 1)), 1)
    return Moments(
        transforms=side_by_side(transforms[:, plan.joints]),
        m=flat[:, plan.fill].view(count, 4 * joints, 4 * joints),
        d=side_by_side(d.permute(2, 0, 1).unflatten(2, (3, 4))),
        value=value / plan.num_vertices,
    )


def errors(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Errors:
    """Distances at q (B, 46), pose correctives included: what a user would measure on the two meshes."""
    count = q.shape[0]
    total, square, worst = q.new_zeros(count), q.new_zeros(count), q.new_zeros(count)
    points = q.new_zeros(plan.num_points, 3, count)

    def visit(block: VertexBlock, tile: Tile, who: slice) -> None:
        squared = tile.residual.square().sum(1)
        distance = squared.sqrt()
        square[who] += squared.sum(0)
        total[who] += distance.sum(0)
        worst[who] = torch.maximum(worst[who], distance.amax(0))
        if block.points is not None:
            _add(points, who, block.points, tile.residual + tile.target)

    for_each_tile(plan, model, people, q, visit)
    located = points.permute(2, 0, 1) if plan.num_points else None
    return Errors(total / plan.num_vertices, square / plan.num_vertices, worst, located)


@dataclass(frozen=True)
class PoseObjective:
    """A stage's objective of its active DoFs, the other angles held; an `Objective` of the solver.

    An angle beyond its limits costs limit_weight (m^2 / rad^2) times the squared excess.
    """

    plan: Plan
    model: SkelModel
    frames: Frames
    q: Tensor  # (B, 46) rad
    state: Moments
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
        state = Moments(**{k: v[rows] for k, v in vars(self.state).items()})
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
