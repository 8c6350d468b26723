"""What a transfer of betas from SMPL to SKEL costs, measured at rest.

There the mean squared distance of the two skins is a quadratic form of both betas, made once: it costs no pass over
the vertices.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel


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
    # Not a matrix product: its rounding may depend on how many people there are.
    half = (x[:, :, None] * form).sum(1)
    return (half * x).sum(1).clamp(min=0).sqrt().to(skel_betas.dtype)
