"""Betas of a mesh whose pose is known, by linear least squares.

With the angles held, the posed skin is affine in betas but for the small turns by which joint frames follow the bones.
So differences of one unit of each beta serve as the derivative, and a second call from the answer removes the rest. The
translation is fitted along, unseen: residual and derivative are taken about their means.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.body.skel import SkelModel, corrective_feature, skinning_transforms

_PEOPLE = 64  # at a time: each is posed once per beta


def betas_from_mesh(
    model: SkelModel, target: Tensor, q: Tensor, betas: Tensor, vertices: Tensor, weight: float = 0.0
) -> Tensor:
    """Betas (B, 10) of least mean squared vertex error + weight |betas|^2, the angles held, any translation.

    target (B, Vs, 3) m is the mesh at the vertices (Vs,) int64; q (B, 46) rad; betas (B, 10) where to start.
    weight is in m^2 per unit of beta squared.
    """
    found = [
        _solve(model, *some, vertices, weight)
        for some in zip(target.split(_PEOPLE), q.split(_PEOPLE), betas.split(_PEOPLE), strict=True)
    ]
    return torch.cat(found)


def _solve(
    model: SkelModel, target: Tensor, q: Tensor, betas: Tensor, vertices: Tensor, weight: float
) -> Tensor:
    count = model.num_betas
    unit = torch.eye(count, dtype=q.dtype, device=q.device)
    trials = torch.cat(
        (betas[:, None], betas[:, None] + unit), 1
    )  # (B, 11, 10): as they are, one unit more of each
    frames = model.frames(trials)
    posed = model.joints(frames, q[:, None].expand(-1, 1 + count, -1))
    feature = corrective_feature(posed.local_rot[:, 0], model.corrective_joints)
    rest = model.v_template[vertices] + torch.einsum("vcb,nkb->nkvc", model.shapedirs[vertices], trials)
    rest = rest + torch.einsum("vcp,np->nvc", model.posedirs[vertices], feature)[:, None]
    transforms = skinning_transforms(posed, frames.joints)
    blended = (model.weights[vertices] @ transforms.flatten(3)).unflatten(3, (3, 4))
    skin = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3]
    skin = skin - skin.mean(2, keepdim=True)

    residual = (target - target.mean(1, keepdim=True) - skin[:, 0]).flatten(1)
    slope = (skin[:, 1:] - skin[:, :1]).flatten(2)  # (B, 10, 3 Vs)
    normal = slope @ slope.mT / len(vertices) + weight * unit
    side = (slope @ residual[..., None])[..., 0] / len(vertices) - weight * betas
    return betas + torch.linalg.solve(normal, side)
