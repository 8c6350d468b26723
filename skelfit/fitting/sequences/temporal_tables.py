"""The joints whose rotations tie the frames of a sequence to each other, as a table of the kernels."""

# Warp reads the annotations of a struct, so that they cannot be postponed here.
import numpy as np
import warp as wp

from skelfit.bodies.dofs import DOF_JOINT, dof_axes
from skelfit.fitting.backends.variable_tables import JointTree


@wp.struct
class Tied:
    """K joints that a stage's n variables turn."""

    first: wp.array(dtype=int)  # (K + 1,) of each joint's variables
    dofs: wp.array(dtype=int)  # (n,) of the 46
    axes: wp.array2d(dtype=float)  # (n, 3) unit, in the joint's frame


def make_tied(tree: JointTree, device: str) -> Tied:
    """The table of a stage."""
    joints = [DOF_JOINT[i] for i in tree.dofs]
    first = [k for k, j in enumerate(joints) if k == 0 or j != joints[k - 1]]
    axes = dof_axes()[list(tree.dofs)]
    tied = Tied()
    tied.first = wp.array(np.array([*first, len(joints)], dtype=np.int32), dtype=int, device=device)
    tied.dofs = wp.array(np.array(tree.dofs, dtype=np.int32), dtype=int, device=device)
    axes = axes / np.linalg.norm(axes, axis=1, keepdims=True)
    tied.axes = wp.array(axes.astype(np.float32), dtype=float, device=device)
    return tied
