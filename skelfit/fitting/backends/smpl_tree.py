"""SMPL's joints as tables for the kernels."""

# Warp reads the annotations of a struct, so they cannot be postponed here.
import numpy as np
import warp as wp

from skelfit.bodies.kinematics import tree_levels
from skelfit.bodies.smpl import SmplModel


@wp.struct
class SmplTree:
    """The tree of SMPL's joints, and how betas move them at rest."""

    parents: wp.array(dtype=int)  # (24,); -1: none
    order: wp.array(dtype=int)  # (24,) joints by their depth below the root
    level: wp.array(dtype=int)  # (levels + 1,) where each depth starts in `order`
    joints: wp.array2d(dtype=float)  # (24, 3) m, at rest, of betas 0
    speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta
    offsets: wp.array2d(dtype=float)  # (24, 3) m, from the parent, of betas 0; of the root, its position
    offset_speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta


def smpl_parents(model: SmplModel) -> tuple[int, ...]:
    """The parent (24,) of each joint; -1: none."""
    return (-1, *model.parents.tolist()[1:])


def smpl_tree(model: SmplModel, device: str) -> SmplTree:
    """The tables of a model, on a device of Warp."""
    parents = smpl_parents(model)
    levels = tree_levels(parents)
    joints, speeds = (x.double().cpu().numpy() for x in (model.j_template, model.j_shapedirs))
    tree = SmplTree()
    for name, numbers in (
        ("parents", parents),
        ("order", np.concatenate(levels)),
        ("level", np.cumsum([0, *map(len, levels)])),
    ):
        setattr(tree, name, wp.array(np.asarray(numbers, dtype=np.int32), dtype=int, device=device))
    for name, values in (
        ("joints", joints),
        ("speeds", speeds),
        ("offsets", _from_parents(joints, parents)),
        ("offset_speeds", _from_parents(speeds, parents)),
    ):
        setattr(tree, name, wp.array(values.astype(np.float32), dtype=float, device=device))
    return tree


def _from_parents(x: np.ndarray, parents: tuple[int, ...]) -> np.ndarray:
    """Each joint's row (24, ...) minus its parent's."""
    return np.concatenate((x[:1], x[1:] - x[list(parents[1:])]))
