"""Moment space: one pass over the vertices, after which an iteration costs a few thousandths of a pass.

A linear-blend-skinned vertex is linear in the joints' skinning transforms A = [A_1 ... A_J] (3 x 4J). With
h = [v_rest; 1], u = (w_j h)_j in R^4J, target y and weight om (a stage's weights sum to 1), the objective

    E(q) = sum_v om |A(q) u - y|^2        (m^2, mean squared vertex error)

is quadratic in A. Around the transforms A0 of the last pass, with dA = A - A0 and the residual r = A0 u - y,

    E = E0 + 2 <D0, dA> + <dA M, dA>,     E0 = sum om |r|^2,  D0 = sum om r u^T,  M = sum om u u^T.

Expanding about A0, not about 0, keeps the small numbers small: float32 resolves a residual of 0.1 um.
M's 4x4 block of two joints is zero unless they share a vertex, so only those pairs are summed. Pose correctives move
v_rest slowly and are held between passes.

In the vertex pass people are the innermost dimension, so that every product with a table is one matrix product.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import ModuleType
from typing import TypeVar

import torch
from torch import Tensor

from skelfit.body.kinematics import Frames, pose_joints
from skelfit.body.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.fit import cpu_tiles, torch_tiles
from skelfit.fit.plans import Plan, SkinBlock, VertexBlock
from skelfit.fit.torch_tiles import COLUMNS, table_times

Block = TypeVar("Block", bound=SkinBlock)


@dataclass(frozen=True)
class Moments:
    """The objective of a batch of people around the transforms of the last vertex pass."""

    transforms: Tensor  # (B, 3, 4J) A0
    pairs: Tensor  # (B, P, 10) the block of M of each pair of joints that share a vertex: xx xy xz yy yz zz x y z 1
    d: Tensor  # (B, 3, 4J) D0
    value: Tensor  # (B,) m^2, E0

    def take(self, rows: Tensor) -> Moments:
        """Of some of the people; rows (K,) int64."""
        return Moments(**{k: v[rows] for k, v in vars(self).items()})


@dataclass(frozen=True)
class Levers:
    """How betas move the skin, around the same transforms: f_k is what beta k moves a vertex by, the joints held."""

    lever: Tensor  # (B, J, 3, 4, K) sum om f_k u^T
    products: Tensor  # (B, K, K) sum om f_k f_l
    pull: Tensor  # (B, K) sum om f_k r

    def take(self, rows: Tensor) -> Levers:
        """Of some of the people; rows (k,) int64."""
        return Levers(**{k: v[rows] for k, v in vars(self).items()})


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
        return People(self.betas[rows], self.frames.take(rows), tiles_of(rows).take_people(self.target, rows))

    def put(self, rows: Tensor, few: People) -> People:
        """These people with the shapes of some of them replaced; rows (K,) int64."""
        return People(
            self.betas.index_copy(0, rows, few.betas), self.frames.put(rows, few.frames), self.target
        )


def side_by_side(transforms: Tensor) -> Tensor:
    """(B, J, 3, 4) transforms side by side: (B, 3, 4J)."""
    return transforms.transpose(1, 2).flatten(2)


def coefficients(model: SkelModel, betas: Tensor, local_rot: Tensor) -> Tensor:
    """What a plan's basis is multiplied with for the rest skin, correctives included: (1 + betas + correctives, B)."""
    feature = corrective_feature(local_rot, model.corrective_joints)
    return torch.cat((torch.ones_like(feature[:, :1]), betas, feature), 1).mT


def for_each_tile(
    blocks: Sequence[Block],
    people: int,
    coefficients: Tensor,
    visit: Callable[[Block, Tensor, int], None],
) -> None:
    """Make the rest skin of all B people tile by tile: visit(block, rest (Vb, 3, n), start).

    coefficients (k, B). The last tile may have more columns than there are people left, up to a multiple of 32.
    """
    width = people + -people % COLUMNS
    for start in range(0, coefficients.shape[1], width):
        few = coefficients[:, start : start + width]
        few = torch.nn.functional.pad(few, (0, -few.shape[1] % COLUMNS))
        for block in blocks:
            visit(block, table_times(block.basis, few).view(len(block.vertices), 3, -1), start)


def people_last(transforms: Tensor) -> Tensor:
    """Transforms (B, J, 3, 4) as the tiles take them: (J, 12, B)."""
    return transforms.permute(1, 2, 3, 0).flatten(1, 2).contiguous()


def tiles_of(x: Tensor) -> ModuleType:
    """The module that goes through the tiles on the device of x."""
    return cpu_tiles if x.device.type == "cpu" else torch_tiles


def posed_people(model: SkelModel, people: People, q: Tensor) -> tuple[Tensor, Tensor]:
    """Skinning transforms (B, 24, 3, 4) at q (B, 46), and the coefficients of the rest skin."""
    posed = pose_joints(model.rig, people.frames, q)
    return skinning_transforms(posed, people.frames.joints), coefficients(
        model, people.betas, posed.local_rot
    )


def moments(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Moments:
    """The vertex pass of a stage at q (B, 46): reads each target vertex once."""
    return _vertex_pass(plan, model, people, q, None)


def shaped_moments(plan: Plan, model: SkelModel, people: People, q: Tensor) -> tuple[Moments, Levers]:
    """The vertex pass of a stage at q (B, 46) in which betas are free."""
    betas, joints, count = model.num_betas, len(plan.joints), len(q)
    lever = q.new_zeros(joints, 12 * betas, count)
    products, pull = q.new_zeros(betas, betas, count), q.new_zeros(betas, count)

    def visit(block: VertexBlock, rest: Tensor, moved: Tensor, start: int) -> None:
        tiles_of(q).add_levers(block, rest, moved, people.target, start, lever, products, pull)

    found = _vertex_pass(plan, model, people, q, visit)
    upper = products.permute(2, 0, 1).triu()
    return found, Levers(
        lever=lever.permute(2, 0, 1).unflatten(2, (3, 4, betas)).contiguous(),
        products=upper + upper.triu(1).mT,
        pull=pull.mT.contiguous(),
    )


def _vertex_pass(
    plan: Plan,
    model: SkelModel,
    people: People,
    q: Tensor,
    also: Callable[[VertexBlock, Tensor, Tensor, int], None] | None,
) -> Moments:
    """The moments; `also` sees each tile: block, rest (Vb, 3, n), all people's transforms (24, 12, B), first person."""
    count, joints = q.shape[0], len(plan.joints)
    sums = q.new_zeros(len(plan.pair_mass), 9, count)
    d = q.new_zeros(joints, 12, count)
    value = q.new_zeros(count)
    tiles = tiles_of(q)
    transforms, factors = posed_people(model, people, q)
    moved = people_last(transforms)

    def visit(block: VertexBlock, rest: Tensor, start: int) -> None:
        tiles.add_moments(block, rest, moved, people.target, start, sums, d, value)
        if also is not None:
            also(block, rest, moved, start)

    for_each_tile(plan.blocks, plan.people, factors, visit)
    mass = plan.pair_mass[None, :, None].expand(count, -1, 1)
    return Moments(
        transforms=side_by_side(transforms[:, plan.joints]),
        pairs=torch.cat((sums.permute(2, 0, 1), mass), 2),
        d=side_by_side(d.permute(2, 0, 1).unflatten(2, (3, 4))),
        value=value,
    )


def errors(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Errors:
    """Distances at q (B, 46), pose correctives included: what a user would measure on the two meshes."""
    count = q.shape[0]
    found = q.new_zeros(3, count)
    points = q.new_zeros(plan.num_points, 3, count)
    tiles = tiles_of(q)
    transforms, factors = posed_people(model, people, q)
    moved = people_last(transforms)

    def visit(block: VertexBlock, rest: Tensor, start: int) -> None:
        posed = None if block.points is None else torch.empty_like(rest)
        tiles.add_errors(block, rest, moved, people.target, start, found, posed)
        if block.points is not None and posed is not None:
            who = slice(start, min(start + rest.shape[2], count))
            few = posed[block.points.vertices, :, : who.stop - start]
            torch_tiles.add_rows(points, who, block.points.rows, few)

    for_each_tile(plan.blocks, plan.people, factors, visit)
    located = points.permute(2, 0, 1) if plan.num_points else None
    return Errors(found[0] / plan.num_vertices, found[1] / plan.num_vertices, found[2], located)
