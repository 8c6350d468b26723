"""SKEL's degrees of freedom in a mirror: left and right change places, and some angles change sign."""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_NAMES, dof_index

Float = TypeVar("Float", np.float32, np.float64)

_SIGN_CHANGES = (
    "pelvis_list", "pelvis_rotation", "lumbar_bending", "lumbar_twist", "thorax_bending", "thorax_twist",
    "head_bending", "head_twist",
    *(f"scapula_{motion}_{side}" for motion in ("abduction", "elevation") for side in "rl"),
    *(f"shoulder_{side}_{axis}" for side in "rl" for axis in "xy"),
)  # fmt: skip


def _other_side(name: str) -> str:
    return "_".join({"r": "l", "l": "r"}.get(part, part) for part in name.split("_"))


# (46,) the DoF of the other side; a DoF of the trunk is its own.
OTHER_SIDE: tuple[int, ...] = tuple(dof_index(_other_side(name)) for name in DOF_NAMES)
MIRROR_SIGN: NDArray[np.float64] = np.array([-1.0 if name in _SIGN_CHANGES else 1.0 for name in DOF_NAMES])
# Name without side, right DoF, left DoF.
SIDES: tuple[tuple[str, int, int], ...] = tuple(
    ("_".join(part for part in name.split("_") if part != "r"), i, OTHER_SIDE[i])
    for i, name in enumerate(DOF_NAMES)
    if i < OTHER_SIDE[i]
)


def mirrored_poses(poses: NDArray[Float]) -> NDArray[Float]:
    """Poses (...,46) rad of the same people in a mirrored image.

    Their skin is the mirrored skin, but for the feet: SKEL gives both ankles the same axis, so that a foot may be off
    by a few cm.
    """
    mirrored: NDArray[Float] = poses[..., list(OTHER_SIDE)] * MIRROR_SIGN.astype(poses.dtype)
    return mirrored
