"""Betas of a mesh, by linear least squares: with its pose held, or with the pose free to follow.

With the angles held, the posed skin is affine in betas but for the small turns by which joint frames follow the bones.
So differences of one unit of each beta serve as the derivative, and a second call from the answer removes the rest. The
translation is fitted along, unseen: residual and derivative are taken about their means.

Alternating betas with the pose converges slowly where one can stand in for the other: a longer trunk for a straighter
spine. So the angles' derivatives may join the least squares: the betas are then those of the joint Gauss-Newton step,
and the angles' own part of it is left to the solver, which bounds its steps and knows the limits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.body.dofs import DOF_JOINT, NUM_JOINTS, descendants
from skelfit.body.kinematics import pose_joints_with_twists
from skelfit.body.skel import SkelModel, corrective_feature, skinning_transforms

_PEOPLE = 32  # at a time: each is posed once per beta
_POSE_DAMPING = 1e-4  # of the diagonal: angles that the mesh does not tell stay where they are


def betas_from_mesh(
    model: SkelModel,
    target: Tensor,
    q: Tensor,
    betas: Tensor,
    vertices: Tensor,
    weight: float = 0.0,
    hold_pose: bool = True,
) -> Tensor:
    """Betas (B, 10) of least mean squared vertex error + weight |betas|^2, for any translation.

    target (B, Vs, 3) m is the mesh at the vertices (Vs,) int64; q (B, 46) rad; betas (B, 10) where to start.
    weight is in m^2 per unit of beta squared. hold_pose False: q is only near, and free to follow the betas.
    """
    found = [
        _solve(model, *some, vertices, weight, hold_pose)
        for some in zip(target.split(_PEOPLE), q.split(_PEOPLE), betas.split(_PEOPLE), strict=True)
    ]
    return torch.cat(found)


def _solve(
    model: SkelModel,
    target: Tensor,
    q: Tensor,
    betas: Tensor,
    vertices: Tensor,
    weight: float,
    hold_pose: bool,
) -> Tensor:
    count = model.num_betas
    unit = torch.eye(count, dtype=q.dtype, device=q.device)
    trials = torch.cat(
        (betas[:, None], betas[:, None] + unit), 1
    )  # (B, 11, 10): as they are, one unit more of each
    frames = model.frames(trials)
    posed, twists = pose_joints_with_twists(model.rig, frames, q[:, None].expand(-1, 1 + count, -1))
    feature = corrective_feature(posed.local_rot[:, 0], model.corrective_joints)
    rest = model.v_template[vertices] + torch.einsum("vcb,nkb->nkvc", model.shapedirs[vertices], trials)
    rest = rest + torch.einsum("vcp,np->nvc", model.posedirs[vertices], feature)[:, None]
    transforms = skinning_transforms(posed, frames.joints)
    blended = (model.weights[vertices] @ transforms.flatten(3)).unflatten(3, (3, 4))
    skin = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]

    slope = skin[:, 1:] - skin[:, :1]  # (B, 10, Vs, 3)
    if not hold_pose:
        along = _pose_slope(
            model.weights[vertices], rest[:, 0], transforms[:, 0], twists.omega[:, 0], twists.v[:, 0]
        )
        slope = torch.cat((slope, along), 1)
    slope = (slope - slope.mean(2, keepdim=True)).flatten(2)
    residual = target - skin[:, 0]
    residual = (residual - residual.mean(1, keepdim=True)).flatten(1)
    normal = slope @ slope.mT / len(vertices)
    side = (slope @ residual[..., None])[..., 0] / len(vertices)
    side[:, :count] -= weight * betas
    diagonal = normal.diagonal(dim1=1, dim2=2)
    diagonal[:, count:] *= 1 + _POSE_DAMPING
    diagonal[:, :count] += weight
    # The quiet solver: a singular matrix is one person's, and must not end the others'.
    step = torch.linalg.solve_ex(normal, side).result[:, :count]
    return torch.where(step.isfinite().all(1, keepdim=True), betas + step, betas)


def _pose_slope(weights: Tensor, rest: Tensor, transforms: Tensor, omega: Tensor, v: Tensor) -> Tensor:
    """Derivative (B, 46, Vs, 3) of skinned points with respect to the angles.

    weights (Vs, 24), rest points (B, Vs, 3), skinning transforms (B, 24, 3, 4), twists omega and v (B, 46, 3).
    """
    below = [[float(j in descendants(k)) for j in range(NUM_JOINTS)] for k in DOF_JOINT]
    moves = rest.new_tensor(below)
    held = torch.einsum("njrc,nvc->nvjr", transforms[..., :3], rest) + transforms[:, None, :, :, 3]
    held = (moves @ (held * weights[..., None])).transpose(1, 2)  # each point's share that the DoF moves
    mass = (moves @ weights.mT)[..., None]
    return torch.linalg.cross(omega[:, :, None].expand_as(held), held) + mass * v[:, :, None]
