"""Rotations about fixed axes from precomputed tables, cheaper than the general formula; helpers for the tables."""

from __future__ import annotations

import torch
from torch import Tensor


def cross_matrix(a: Tensor) -> Tensor:
    """The matrix (..., 3, 3) of the cross product with a (..., 3)."""
    x, y, z = a.unbind(-1)
    o = torch.zeros_like(x)
    return torch.stack((o, -z, y, z, o, -x, -y, x, o), -1).unflatten(-1, (3, 3))


def nearest_rotation(a: Tensor) -> Tensor:
    """The rotation (..., 3, 3) nearest to each matrix (..., 3, 3), in the Frobenius norm."""
    u, _, vt = torch.linalg.svd(a)
    proper = torch.cat((u[..., :2], u[..., 2:] * torch.linalg.det(u @ vt).sign()[..., None, None]), -1)
    return proper @ vt


def blend_shapes(directions: Tensor, betas: Tensor) -> Tensor:
    """Blend shapes: the sum of directions (J, 3, K) times betas (..., K), as (..., J, 3).

    This is no matrix product, whose rounding may depend on the size of the batch.
    """
    return (directions * betas[..., None, None, :]).sum(-1)


def rotations_about(q: Tensor, cross: Tensor, cross2: Tensor) -> Tensor:
    """Rotations (..., 3, 3) by angles q (...) in rad about unit axes, given by their K and K @ K (..., 3, 3)."""
    eye = torch.eye(3, dtype=q.dtype, device=q.device)
    return eye + torch.sin(q)[..., None, None] * cross + (2 * torch.sin(q / 2) ** 2)[..., None, None] * cross2
