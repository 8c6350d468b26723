"""The ball joints among the variables of a fit, as a table for `kernels/retraction.py`."""

# Warp reads the annotations of a struct, so that they cannot be postponed here.
from collections.abc import Sequence

import numpy as np
import warp as wp

from skelfit.bodies.ball_joints import BALL_JOINTS
from skelfit.bodies.dofs import dof_axes, dof_limits, dofs_of_joint, limits_middle


@wp.struct
class BallTables:
    """Which variables turn a ball joint, and which are single angles; made by `make_balls`."""

    index: wp.array2d(dtype=int)  # (k, 3) a joint's angles among the variables, first applied first
    straight: wp.array(dtype=int)  # (m,) the other angles
    hand: wp.array(dtype=float)  # (k,) +1 or -1: determinant of the joint's axes
    limits: wp.array3d(dtype=float)  # (k, 3, 2) rad
    middle: wp.array2d(dtype=float)  # (k, 3) rad, of the limits


def make_balls(
    joints: Sequence[int], dofs: Sequence[int], device: str, limits: np.ndarray | None = None
) -> BallTables:
    """The table of variables that are these DoFs, of these joints; limits (46, 2) rad, None: the usual ones."""
    limits = dof_limits() if limits is None else limits
    owned = [dofs_of_joint(j) for j in joints if j in BALL_JOINTS]
    turned = np.array(owned, dtype=np.int64).reshape(-1, 3)
    column = {dof: k for k, dof in enumerate(dofs)}
    index = [[column[dof] for dof in row] for row in owned]
    straight = [k for k, dof in enumerate(dofs) if dof not in turned]
    balls = BallTables()
    balls.index = wp.array(np.array(index, dtype=np.int32).reshape(-1, 3), dtype=int, device=device)
    balls.straight = wp.array(np.array(straight, dtype=np.int32), dtype=int, device=device)
    hand = np.linalg.det(dof_axes()[turned]).round()
    balls.hand = wp.array(hand, dtype=float, device=device)
    balls.limits = wp.array(limits[turned], dtype=float, device=device)
    balls.middle = wp.array(limits_middle(limits)[turned], dtype=float, device=device)
    return balls
