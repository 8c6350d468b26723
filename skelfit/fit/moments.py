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
from dataclasses import dataclass

import numpy as np
import torch
from scipy import sparse
from torch import Tensor

from skelfit.body.axes import cross_matrix
from skelfit.body.dofs import DOF_JOINT, NUM_JOINTS, STAGE_JOINTS, descendants
from skelfit.body.kinematics import Frames, pose_joints, pose_joints_with_twists
from skelfit.body.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.fit.solver import Evaluation
from skelfit.fit.tables import csr_tensor

_ACTIVE_SHARE = 0.1  # a vertex belongs to a body part whose joints hold at least this share of it
# (joints that own the DoFs, joints that these move): legs, trunk, arms. Both are runs of neighbours in joint order.
_CHAINS = (
    (range(1, 6), range(1, 6)),
    (range(6, 11), range(6, 11)),
    (range(11, 14), range(11, 24)),
    (range(14, 19), range(14, 19)),
    (range(19, 24), range(19, 24)),
)
_PRODUCTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))  # of v_rest's coordinates


@dataclass(frozen=True)
class VertexBlock:
    """The tables of a few hundred vertices, small enough that a pass over them stays in the cache."""

    rows: slice  # of the plan's vertices
    basis: Tensor  # (3 Vb, 1 + betas + correctives): v_rest = basis @ [1, betas, corrective feature]
    skin: Tensor  # sparse (Vb, 24) skinning weights
    joint: Tensor  # sparse (J, Vb) om w_j of the active joints
    pair: Tensor  # sparse (P, Vb) om w_j w_k of active joints that share a vertex
    points: Tensor | None  # sparse (K, Vb) regressor of extra points, if any


@dataclass(frozen=True)
class Chain:
    """A limb or the trunk, as positions among a plan's DoFs and joints: its DoFs move no other joints than these."""

    dofs: slice
    joints: slice
    subtree: Tensor  # (n, 1, J, 1) of the chain: 1 where the DoF moves the joint

    @property
    def columns(self) -> slice:
        """Of the chain's joints in the 4J columns of the transforms."""
        return slice(4 * self.joints.start, 4 * self.joints.stop)


@dataclass(frozen=True)
class Plan:
    """What a stage's passes share for all people: its DoFs, joints, vertices and tables."""

    dofs: Tensor  # (n,) int64, active DoFs
    joints: list[int]  # (J,) active joints
    vertices: Tensor  # (Vs,) int64
    blocks: tuple[VertexBlock, ...]
    chains: tuple[Chain, ...]
    pair_mass: Tensor  # (P,) sum of om w_j w_k
    fill: Tensor  # ((4J)^2,) where in [pair sums, 0] each entry of M stands
    people: int  # people per tile


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
    max_vertex: Tensor  # (B,) m
    points: Tensor | None  # (B, K, 3) m


@dataclass(frozen=True)
class People:
    """A batch of people as the vertex passes see them, in the canonical frame (global orientation removed)."""

    betas: Tensor  # (B, 10) SKEL's
    frames: Frames
    target: Tensor  # (V, 3, B) m, people innermost


def part_vertices(weights: np.ndarray, part: str, stride: int) -> np.ndarray:
    """Every stride-th of the vertices that a body part's joints hold a share of; weights (V, 24)."""
    if part == "all":
        return np.arange(0, len(weights), stride)
    share = weights[:, list(STAGE_JOINTS[part])].sum(1)
    return np.flatnonzero(share >= _ACTIVE_SHARE)[::stride]


def make_plan(
    model: SkelModel,
    dofs: str,
    vertices: str,
    stride: int,
    tile: tuple[int, int],
    points: np.ndarray | None = None,
) -> Plan:
    """Tables of a stage that moves the DoFs of one body part against the vertices of one.

    tile is (vertices, people) per block; points (K, V) regresses extra points from the whole skin.
    """
    device, dtype = model.v_template.device, model.v_template.dtype
    weights = np.asarray(model.asset.skin_weights, dtype=np.float64)
    chosen = part_vertices(weights, vertices, stride)
    joints = list(STAGE_JOINTS[dofs])
    om = 1.0 / len(chosen)
    active = weights[chosen][:, joints]
    touching = (active > 0).astype(np.float64)
    first, second = np.nonzero(np.triu(touching.T @ touching))
    basis = torch.cat((model.v_template[..., None], model.shapedirs, model.posedirs), -1)

    def table(array: np.ndarray) -> Tensor:
        return csr_tensor(sparse.csr_array(array), device, dtype)

    blocks = []
    for start in range(0, len(chosen), tile[0]):
        rows = slice(start, min(start + tile[0], len(chosen)))
        local = active[rows]
        blocks.append(
            VertexBlock(
                rows=rows,
                basis=basis[torch.tensor(chosen[rows], device=device)].flatten(0, 1).contiguous(),
                skin=table(weights[chosen[rows]]),
                joint=table(om * local.T),
                pair=table(om * (local[:, first] * local[:, second]).T),
                points=None if points is None else table(points[:, chosen[rows]]),
            )
        )
    active_dofs = [i for i, j in enumerate(DOF_JOINT) if j in joints]
    return Plan(
        dofs=torch.tensor(active_dofs, device=device),
        joints=joints,
        vertices=torch.tensor(chosen, device=device),
        blocks=tuple(blocks),
        chains=tuple(_chain(joints, c, device, dtype) for c in _CHAINS if c[0][0] in joints),
        pair_mass=torch.tensor(
            om * (active[:, first] * active[:, second]).sum(0), device=device, dtype=dtype
        ),
        fill=torch.tensor(_fill_table(first, second, len(joints)), device=device),
        people=tile[1],
    )


def _chain(
    joints: list[int], chain: tuple[range, range], device: torch.device, dtype: torch.dtype
) -> Chain:
    owners, moved = chain
    position = {j: k for k, j in enumerate(joints)}
    active = [i for i, j in enumerate(DOF_JOINT) if j in joints]
    mine = [i for i in active if DOF_JOINT[i] in owners]
    below = [descendants(DOF_JOINT[i]) for i in mine]
    subtree = torch.tensor([[float(j in b) for j in moved] for b in below], device=device, dtype=dtype)
    first, start = active.index(mine[0]), position[moved[0]]
    return Chain(slice(first, first + len(mine)), slice(start, start + len(moved)), subtree[:, None, :, None])


def _fill_table(first: np.ndarray, second: np.ndarray, joints: int) -> np.ndarray:
    """Index of each entry of M in the flattened sums (10 of each pair, then a zero)."""
    entry = np.empty((4, 4), dtype=np.int64)
    for k, (a, b) in enumerate(_PRODUCTS):
        entry[a, b] = entry[b, a] = k
    entry[3, :3] = entry[:3, 3] = (6, 7, 8)
    entry[3, 3] = 9
    table = np.full((joints, 4, joints, 4), 10 * len(first), dtype=np.int64)
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        table[a, :, b, :] = table[b, :, a, :] = 10 * p + entry
    return table.reshape(-1)


def _rows(transforms: Tensor) -> Tensor:
    """(B, J, 3, 4) transforms side by side: (B, 3, 4J)."""
    return transforms.transpose(1, 2).flatten(2)


@dataclass(frozen=True)
class _Tile:
    """One block of vertices of a few people: rest skin and residual, both (Vb, 3, Bt)."""

    rest: Tensor
    residual: Tensor
    target: Tensor


def _coefficients(model: SkelModel, people: People, local_rot: Tensor) -> Tensor:
    """(1 + betas + correctives, B): what the basis is multiplied with."""
    feature = corrective_feature(local_rot, model.corrective_joints)
    return torch.cat((torch.ones_like(feature[:, :1]), people.betas, feature), 1).mT.contiguous()


def _tile(block: VertexBlock, coefficients: Tensor, transforms: Tensor, target: Tensor) -> _Tile:
    """Pose one tile; transforms (24, 12, Bt) people innermost, target (Vb, 3, Bt)."""
    count = target.shape[-1]
    rest = (block.basis @ coefficients).view(-1, 3, count)
    blended = (block.skin @ transforms.reshape(NUM_JOINTS, 12 * count)).view(-1, 3, 4, count)
    residual = blended[:, :, 3] - target
    for c in range(3):
        residual.addcmul_(blended[:, :, c], rest[:, c, None])
    return _Tile(rest, residual, target)


def _for_each_tile(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    visit: Callable[[VertexBlock, _Tile, slice], None],
) -> Tensor:
    """Pose all people tile by tile; returns the skinning transforms (B, 24, 3, 4)."""
    posed = pose_joints(model.rig, people.frames, q)
    transforms = skinning_transforms(posed, people.frames.joints)
    coefficients = _coefficients(model, people, posed.local_rot)
    stacked = transforms.permute(1, 2, 3, 0).flatten(1, 2)  # (24, 12, B)
    for start in range(0, q.shape[0], plan.people):
        who = slice(start, min(start + plan.people, q.shape[0]))
        few, moved = coefficients[:, who].contiguous(), stacked[..., who].contiguous()
        for block in plan.blocks:
            chosen = plan.vertices[block.rows]
            visit(block, _tile(block, few, moved, people.target[chosen, :, who]), who)
    return transforms


def moments(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Moments:
    """The vertex pass of a stage at q (B, 46): reads each target vertex once."""
    count, pairs, joints = q.shape[0], len(plan.pair_mass), len(plan.joints)
    sums = q.new_zeros(pairs, 9, count)
    d = q.new_zeros(joints, 12, count)
    value = q.new_zeros(count)

    def visit(block: VertexBlock, tile: _Tile, who: slice) -> None:
        rest, residual = tile.rest, tile.residual
        n = rest.shape[-1]
        monomials = torch.stack([rest[:, a] * rest[:, b] for a, b in _PRODUCTS] + list(rest.unbind(1)), 1)
        sums[..., who] += (block.pair @ monomials.view(-1, 9 * n)).view(pairs, 9, n)
        lever = torch.cat((residual[:, :, None] * rest[:, None], residual[:, :, None]), 2)
        d[..., who] += (block.joint @ lever.view(-1, 12 * n)).view(joints, 12, n)
        value[who] += residual.square().sum((0, 1))

    transforms = _for_each_tile(plan, model, people, q, visit)
    mass = plan.pair_mass[None, :, None].expand(count, -1, 1)
    flat = torch.cat((sums.permute(2, 0, 1), mass), 2).flatten(1)
    flat = torch.cat((flat, flat.new_zeros(count, 1)), 1)
    return Moments(
        transforms=_rows(transforms[:, plan.joints]),
        m=flat[:, plan.fill].view(count, 4 * joints, 4 * joints),
        d=_rows(d.permute(2, 0, 1).unflatten(2, (3, 4))),
        value=value / len(plan.vertices),
    )


def errors(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Errors:
    """Distances at q (B, 46), pose correctives included: what a user would measure on the two meshes."""
    count = q.shape[0]
    total, worst = q.new_zeros(count), q.new_zeros(count)
    first = plan.blocks[0].points
    points = None if first is None else q.new_zeros(first.shape[0], 3, count)

    def visit(block: VertexBlock, tile: _Tile, who: slice) -> None:
        distance = tile.residual.square().sum(1).sqrt()
        total[who] += distance.sum(0)
        worst[who] = torch.maximum(worst[who], distance.amax(0))
        if points is not None and block.points is not None:
            skin = tile.residual + tile.target
            points[..., who] += (block.points @ skin.flatten(1)).view(-1, 3, skin.shape[-1])

    _for_each_tile(plan, model, people, q, visit)
    located = None if points is None else points.permute(2, 0, 1)
    return Errors(total / len(plan.vertices), worst, located)


def objective(
    plan: Plan,
    model: SkelModel,
    frames: Frames,
    q: Tensor,
    state: Moments,
    limits: Tensor,
    limit_weight: float,
) -> Callable[[Tensor], Evaluation]:
    """The stage's objective of its active DoFs (B, n), the others held at q (B, 46), for `levenberg_marquardt`.

    limits (46, 2) rad: an angle beyond them costs limit_weight (m^2 / rad^2) times the squared excess.
    """
    low, high = limits[plan.dofs].unbind(-1)

    def evaluate(x: Tensor) -> Evaluation:
        posed, twists = pose_joints_with_twists(model.rig, frames, q.index_copy(1, plan.dofs, x))
        a = _rows(skinning_transforms(posed, frames.joints)[:, plan.joints])
        change = a - state.transforms
        slope = state.d + change @ state.m
        value = state.value + ((state.d + slope) * change).sum((1, 2))
        gradient, hessian = _derivatives(plan, twists.omega[:, plan.dofs], twists.v[:, plan.dofs], a, slope, state.m)

        excess = torch.relu(x - high) - torch.relu(low - x)
        outside = 2 * limit_weight * (excess != 0).to(x.dtype)
        return Evaluation(
            value + limit_weight * excess.square().sum(1),
            gradient + 2 * limit_weight * excess,
            hessian + torch.diag_embed(outside),
        )

    return evaluate


def _derivatives(
    plan: Plan, omega: Tensor, v: Tensor, a: Tensor, slope: Tensor, m: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradient (B, n) and Gauss-Newton matrix (B, n, n), chain by chain: most of the Jacobian is zero.

    Twists (B, n, 3), transforms a (B, 3, 4J), slope D0 + dA M (B, 3, 4J) and m (B, 4J, 4J).
    """
    count, n = omega.shape[:2]
    gradient, hessian = omega.new_empty(count, n), omega.new_empty(count, n, n)
    jacobians = [
        _jacobian(omega[:, c.dofs], v[:, c.dofs], a[..., c.columns], c.subtree) for c in plan.chains
    ]
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
