"""The betas of one body from those of another, in closed form, and what that transfer costs at rest.

At rest the mean squared distance of the two skins is a quadratic form of both betas. It is made once and costs no pass
over the vertices.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel

if TYPE_CHECKING:
    from skelfit.config.fit_settings import InitialBetas

Body: TypeAlias = SmplModel | SkelModel


def beta_map(source: Body, target: Body, how: InitialBetas = "transfer") -> tuple[Tensor, Tensor]:
    """Affine map of betas: those of target = offset (m,) + matrix (m, n) @ those of source.

    transfer: least squares between the two shape spaces at rest; the identity where the spaces are the same.
    copy: the same numbers in any space.
    """
    if how == "copy":
        copied = torch.eye(target.num_betas, source.num_betas).to(target.v_template)
        return torch.zeros_like(copied[:, 0]), copied
    s, n = (
        torch.tensor(x.asset.shapedirs[:, :, : x.num_betas], dtype=torch.float64).flatten(0, 1)
        for x in (target, source)
    )
    gap = torch.tensor(source.asset.v_template, dtype=torch.float64) - torch.tensor(
        target.asset.v_template, dtype=torch.float64
    )
    solved = torch.linalg.lstsq(s, torch.cat((gap.reshape(-1, 1), n), 1)).solution
    solved = solved.to(target.v_template.device, target.v_template.dtype)
    return solved[:, 0], solved[:, 1:]


def rest_form(smpl: SmplModel, skel: SkelModel) -> Tensor:
    """F (1 + n + m, 1 + n + m) m^2, float64: x^T F x is the mean squared distance of the two skins at rest.

    x is [1, SMPL's n betas, SKEL's m betas].
    """
    template = np.asarray(smpl.asset.v_template, dtype=np.float64) - skel.asset.v_template
    blocks = (template[..., None], smpl.asset.shapedirs[:, :, : smpl.num_betas], -skel.asset.shapedirs)
    table = np.concatenate(blocks, axis=-1, dtype=np.float64).reshape(-1, 1 + smpl.num_betas + skel.num_betas)
    return torch.tensor(table.T @ table / len(template), device=skel.v_template.device)


def rest_distance(form: Tensor, smpl_betas: Tensor, skel_betas: Tensor) -> Tensor:
    """Root mean squared distance (B,) m of the two skins at rest; form of `rest_form`, betas (B, n) and (B, m)."""
    x = torch.cat((torch.ones_like(smpl_betas[:, :1]), smpl_betas, skel_betas), 1).double()
    # Not a matrix product: its rounding may depend on the number of people.
    half = (x[:, :, None] * form).sum(1)
    return (half * x).sum(1).clamp(min=0).sqrt().to(skel_betas.dtype)
