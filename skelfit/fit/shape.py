"""Refining betas: one closed-form step per vertex pass, beside the pose.

With the residual r = T v_rest + t - y of a vertex (T, t its blended skinning transform), a change of beta k moves it
by T S_k, and with it the joints. The gradient of the mean squared error is exact: the first part is one product over
the vertices, the second goes through the joints, by autograd over 24 transforms. The Hessian is that of the rest pose,
2 (mean S^T S + weight I), the same for everybody: turning a vertex does not change the length of its shape vector.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.body.kinematics import pose_joints
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.fit.moments import People, Tile, for_each_tile
from skelfit.fit.plans import Plan, VertexBlock


def beta_step(plan: Plan, model: SkelModel, people: People, q: Tensor, weight: float) -> Tensor:
    """Betas (B, 10) after one step down mean squared vertex error + weight |betas|^2, the pose q (B, 46) held.

    The plan says which vertices count; weight is in m^2 per unit of beta squared.
    """
    gradient = shape_gradient(plan, model, people, q) + 2 * weight * people.betas
    dirs = model.shapedirs.flatten(0, 1)
    hessian = 2 * (dirs.mT @ dirs) / len(model.shapedirs)
    hessian = hessian + 2 * weight * torch.eye(model.num_betas, dtype=q.dtype, device=q.device)
    return people.betas - torch.linalg.solve(hessian, gradient.mT).mT


def shape_gradient(plan: Plan, model: SkelModel, people: People, q: Tensor) -> Tensor:
    """Gradient (B, 10) of the plan's mean squared vertex error with respect to betas."""
    count, betas = people.betas.shape
    direct = q.new_zeros(betas, count)
    slope = q.new_zeros(len(people.frames.joints[0]), 12, count)  # dE/dA of the skinning transforms, halved

    def visit(block: VertexBlock, tile: Tile, who: slice) -> None:
        size, _, n = tile.rest.shape
        turned = torch.einsum("vrcn,vrn->vcn", tile.blended[:, :, :3], tile.residual)
        direct[:, who] += block.basis[:, 1 : 1 + betas].mT @ turned.reshape(3 * size, n)
        lever = torch.cat((tile.residual[:, :, None] * tile.rest[:, None], tile.residual[:, :, None]), 2)
        terms = block.skin.values @ lever.view(size, 12 * n)
        slope[..., who].index_add_(0, block.skin.index, terms.view(-1, 12, n))

    for_each_tile(plan, model, people, q, visit)
    slope_rows = slope.permute(2, 0, 1).unflatten(2, (3, 4)) / plan.num_vertices
    with torch.enable_grad():
        moving = people.betas.detach().requires_grad_()
        frames = model.frames(moving)
        transforms = skinning_transforms(pose_joints(model.rig, frames, q), frames.joints)
        (through_joints,) = torch.autograd.grad((slope_rows * transforms).sum(), moving)
    return 2 * (direct.mT / plan.num_vertices + through_joints)
