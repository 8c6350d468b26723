"""The closed-form start of a pair of models, as tables for `kernels/closed_form_start.py`."""

# Warp reads the annotations of a struct, so they cannot be postponed here.
import numpy as np
import warp as wp
from torch import Tensor

from skelfit.bodies.kinematics import tree_levels
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.start.angle_tables import AngleTables, angle_tables, table


@wp.struct
class WarmStartTables:
    """SMPL's joints, and how SKEL's betas and angles follow from SMPL's parameters."""

    parents: wp.array(dtype=int)  # (24,) of SMPL's joints; -1: none
    order: wp.array(dtype=int)  # (24,) SMPL's joints by their depth below the root
    level: wp.array(dtype=int)  # (levels + 1,) where each depth starts in `order`
    joints: wp.array2d(dtype=float)  # (24, 3) m, at rest, of betas 0
    speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta
    offsets: wp.array2d(dtype=float)  # (24, 3) m, from the parent, of betas 0; of the root, its position
    offset_speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta
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
    parents = [-1, *smpl.parents.tolist()[1:]]
    levels = tree_levels(tuple(parents))
    joints, speeds = (x.double().cpu().numpy() for x in (smpl.j_template, smpl.j_shapedirs))
    offset, matrix = (x.cpu().numpy() for x in betas)
    tables = {
        "parents": parents,
        "order": np.concatenate(levels),
        "level": np.cumsum([0, *map(len, levels)]),
        "joints": joints,
        "speeds": speeds,
        "offsets": _from_parents(joints, parents),
        "offset_speeds": _from_parents(speeds, parents),
        "beta_offset": offset,
        "beta_matrix": matrix,
    }
    start = WarmStartTables()
    for name, values in tables.items():
        setattr(start, name, table(values, device))
    start.angles = angle_tables(skel, device, limits)
    return start


def _from_parents(x: np.ndarray, parents: list[int]) -> np.ndarray:
    """Each joint's row (24, ...) minus its parent's."""
    return np.concatenate((x[:1], x[1:] - x[parents[1:]]))
