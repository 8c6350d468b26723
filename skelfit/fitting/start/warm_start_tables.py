"""The closed-form start of a pair of models, as tables for `kernels/closed_form_start.py`."""

# Warp reads the annotations of a struct, so they cannot be postponed here.
import numpy as np
import warp as wp
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.backends.smpl_tree import SmplTree, smpl_tree
from skelfit.fitting.start.angle_tables import AngleTables, angle_tables, table


@wp.struct
class WarmStartTables:
    """SMPL's joints, and how SKEL's betas and angles follow from SMPL's parameters."""

    smpl: SmplTree
    beta_offset: wp.array(dtype=float)  # (10,) SKEL's betas are offset + matrix @ SMPL's
    beta_matrix: wp.array2d(dtype=float)  # (10, 10)
    angles: AngleTables


def start_tables(
    smpl: SmplModel,
    skel: SkelModel,
    betas: tuple[Tensor, Tensor],
    device: str,
    limits: np.ndarray | None = None,
) -> WarmStartTables:
    """The tables of a pair of models, on a device of Warp.

    betas: what `beta_map` gives; limits (46, 2) rad, None: those of `dof_limits`.
    """
    start = WarmStartTables()
    start.smpl = smpl_tree(smpl, device)
    start.beta_offset, start.beta_matrix = (table(x.cpu().numpy(), device) for x in betas)
    start.angles = angle_tables(skel, device, limits)
    return start
