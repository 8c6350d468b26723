"""The skins that SKEL is fitted to: SMPL's, posed by the vertex passes of the fit, people innermost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from skelfit.body.smpl import SmplModel
from skelfit.fit.moments import for_each_tile, people_last, tiles_of
from skelfit.fit.plans import SkinBlock, skin_blocks


@dataclass(frozen=True)
class TargetPlan:
    """The tables of SMPL's whole skin."""

    smpl: SmplModel
    blocks: tuple[SkinBlock, ...]
    people: int  # per tile


def make_target_plan(smpl: SmplModel, tile: tuple[int, int]) -> TargetPlan:
    """tile is (vertices, people) per block."""
    basis = torch.cat((smpl.v_template[..., None], smpl.shapedirs, smpl.posedirs), -1)
    weights = np.asarray(smpl.asset.weights, dtype=np.float64)
    return TargetPlan(smpl, skin_blocks(basis, weights, tile[0]), tile[1])


def smpl_targets(plan: TargetPlan, local_rot: Tensor, betas: Tensor) -> Tensor:
    """SMPL skins (V, 3, B) m of local rotations (B, 24, 3, 3) and betas (B, 10)."""
    moved = people_last(plan.smpl.transforms(local_rot, betas))
    feature = (local_rot[:, 1:] - torch.eye(3, dtype=betas.dtype, device=betas.device)).flatten(1)
    coefficients = torch.cat((torch.ones_like(feature[:, :1]), betas, feature), 1).mT
    skin = betas.new_empty(len(plan.smpl.v_template), 3, len(betas))
    tiles = tiles_of(betas)

    def visit(block: SkinBlock, rest: Tensor, start: int) -> None:
        tiles.write_skin(block, rest, moved, start, skin)

    for_each_tile(plan.blocks, plan.people, coefficients, visit)
    return skin
