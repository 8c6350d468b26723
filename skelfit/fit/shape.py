"""Refining betas: one closed-form step per vertex pass, beside the pose.

With the residual r = T v_rest + t - y of a vertex (T, t its blended skinning transform), a change of beta k moves it
by T S_k, and with it the joints. The gradient of the mean squared error is exact: the first part is one product over
the vertices, the second goes through the joints, by autograd over 24 transforms. The Hessian is that of the rest pose,
2 (mean S^T S + weight I), the same for everybody: turning a vertex does not change the length of its shape vector.

What a transfer of betas from SMPL to SKEL costs is measured at rest, where the mean squared distance of the two skins
is a quadratic form of both betas, made once: it costs no pass over the vertices.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skelfit.body.kinematics import pose_joints, shape_frames
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.body.smpl import SmplModel
from skelfit.fit.moments import People, errors, for_each_tile, people_last, posed_people, tiles_of
from skelfit.fit.plans import Plan, VertexBlock


def beta_step(plan: Plan, model: SkelModel, people: People, q: Tensor, weight: float) -> Tensor:
    """Betas (B, 10) after one step down mean squared vertex error + weight |betas|^2, the pose q (B, 46) held.

    The plan says which vertices count; weight is in m^2 per unit of beta squared. Going through the joints, a beta
    moves a crouched body quite otherwise than one at rest, so a step may be far too long. The error is a parabola
    along it: a person takes the share of the step that leads to its lowest point, the whole step at most.
    """
    error, gradient = shape_gradient(plan, model, people, q)
    gradient = gradient + 2 * weight * people.betas
    dirs = model.shapedirs.flatten(0, 1).double()
    hessian = 2 * (dirs.mT @ dirs) / len(model.shapedirs)
    hessian = hessian + 2 * weight * torch.eye(model.num_betas, dtype=hessian.dtype, device=q.device)
    # In float64, so that how a few columns are rounded does not depend on the batch.
    step = -(gradient.double() @ torch.linalg.inv(hessian)).to(q.dtype)

    betas = people.betas + step
    posed = replace(people, betas=betas, frames=model.frames(betas))
    there = errors(plan, model, posed, q).mean_square + weight * betas.square().sum(1)
    slope = (gradient * step).sum(1)
    curvature = there - error - weight * people.betas.square().sum(1) - slope
    share = torch.where(curvature > 0, -slope / (2 * curvature), 1.0).clamp(0, 1)
    return people.betas + share[:, None] * step


def rest_form(smpl: SmplModel, skel: SkelModel) -> Tensor:
    """F (1 + n + m, 1 + n + m) m^2, float64: x^T F x is the mean squared distance of the two skins at rest.

    x is [1, SMPL's n betas, SKEL's m betas].
    """
    template = np.asarray(smpl.asset.v_template, dtype=np.float64) - skel.asset.v_template
    columns = (template[..., None], smpl.asset.shapedirs[:, :, : smpl.num_betas], -skel.asset.shapedirs)
    table = np.concatenate(columns, axis=-1, dtype=np.float64).reshape(
        -1, 1 + smpl.num_betas + skel.num_betas
    )
    return torch.tensor(table.T @ table / len(template), device=skel.v_template.device)


def rest_distance(form: Tensor, smpl_betas: Tensor, skel_betas: Tensor) -> Tensor:
    """Root mean squared distance (B,) m of the two skins at rest; form from `rest_form`, betas (B, n) and (B, m)."""
    x = torch.cat((torch.ones_like(smpl_betas[:, :1]), smpl_betas, skel_betas), 1).double()
    return ((x @ form) * x).sum(1).clamp(min=0).sqrt().to(skel_betas.dtype)


def shape_gradient(plan: Plan, model: SkelModel, people: People, q: Tensor) -> tuple[Tensor, Tensor]:
    """The plan's mean squared vertex error (B,), and its gradient (B, 10) with respect to betas."""
    count, betas = people.betas.shape
    direct = q.new_zeros(betas, count)
    slope = q.new_zeros(len(people.frames.joints[0]), 12, count)  # dE/dA of the skinning transforms, halved

    squares = q.new_zeros(count)
    transforms, factors = posed_people(model, people, q)
    moved, tiles = people_last(transforms), tiles_of(q)

    def visit(block: VertexBlock, rest: Tensor, start: int) -> None:
        tiles.add_slopes(block, rest, moved, people.target, start, slope, squares)
        few = direct[:, start : start + rest.shape[2]]
        few += (block.basis[:, 1 : 1 + betas].mT @ rest.flatten(0, 1))[:, : few.shape[1]]

    for_each_tile(plan.blocks, plan.people, factors, visit)
    slope_rows = slope.permute(2, 0, 1).unflatten(2, (3, 4)) / plan.num_vertices
    with torch.enable_grad():
        joints = people.frames.joints.detach().requires_grad_()
        frames = shape_frames(model.rig, joints)
        transforms = skinning_transforms(pose_joints(model.rig, frames, q), frames.joints)
        (at_joints,) = torch.autograd.grad((slope_rows * transforms).sum(), joints)
    # In float64, so that how a product of few columns is rounded does not depend on the batch.
    through_joints = at_joints.flatten(1).double() @ model.j_shapedirs.flatten(0, 1).double()
    # Row by row in memory: sums over a row are then the same in every batch.
    gradient = 2 * (direct.mT / plan.num_vertices + through_joints.to(q.dtype)).contiguous()
    return squares / plan.num_vertices, gradient
