"""Rotations about fixed axes, from tables made once: cheaper than the general formula, and the same rotation.

And what the joint tables are made with.
"""

from __future__ import annotations

import torch
from torch import Tensor


def cross_matrix(a: Tensor) -> Tensor:
    """The matrix (..., 3, 3) of the cross product with a (..., 3)."""
    x, y, z = a.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack((o, -z, y, z, o, -x, -y, x, o), -1).unflatten(-1, (3, 3))


def nearest_rotation(a: Tensor) -> Tensor:
    """The rotation (..., 3, 3) nearest to each matrix (..., 3, 3), in the sum of squares."""
    u, _, vt = torch.linalg.svd(a)
    turned = torch.cat((u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt).sign()[..., None, None]), -1)
    return turned @ vt


def blend_shapes(directions: Tensor, betas: Tensor) -> Tensor:
    """Sum of the directions (J, 3, K) times betas (..., K): (..., J, 3).

    Not a matrix product: its rounding may depend on how many people are in the batch.
    """
    return (directions * betas[..., None, None, :]).sum(-1)


def rotations_about(q: Tensor, cross: Tensor, cross2: Tensor) -> Tensor:
    """Rotations (..., 3, 3) by angles q (...) in rad about unit axes, given by their K and K @ K (..., 3, 3)."""
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + torch.sin(q)[..., None, None] * cross + (2 * torch.sin(q / 2) ** 2)[..., None, None] * cross2
