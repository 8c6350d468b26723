"""How SKEL's angles follow from SMPL's rotations, as tables for `kernels/angles.py`."""

# Warp reads the annotations of a struct, so they cannot be postponed here.
from typing import Any

import numpy as np
import warp as wp

from skelfit.bodies.ball_joints import BALL_JOINTS
from skelfit.bodies.dofs import dof_axes, dof_index, dof_limits, dofs_of_joint, limits_middle
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.start.warm_start import ANKLES, ARMS, EULER_SOURCES, TWIST_SOURCES

# Axes by which elbow and wrist together are read as angles, in the order of application: x, z, y of the forearm.
_FOREARM_AXES = np.eye(3)[[0, 2, 1]]


@wp.struct
class AngleTables:
    """Which of SMPL's joints rotate which of SKEL's. Ball joints are rows of the table of all DoFs."""

    limits: wp.array2d(dtype=float)  # (46, 2) rad
    middle: wp.array(dtype=float)  # (46,) rad
    eulers: wp.array2d(dtype=int)  # (5, 3) ball joint, the SMPL joints that rotate it; -1: no second one
    twists: wp.array2d(dtype=int)  # (4, 2) DoF, SMPL joint
    ankles: wp.array2d(dtype=int)  # (2, 4) ankle DoF, subtalar DoF, SMPL joint, talus
    subtalars: wp.array2d(dtype=float)  # (2, 3) axes of subtalar DoFs in the talus' frame, T-posed template
    arms: wp.array2d(dtype=int)  # (2, 11) see _arm
    arm_signs: wp.array(dtype=float)  # (2,) of pronation and wrist flexion
    ulnae: wp.array2d(dtype=float)  # (2, 9) axes (columns) of a forearm in the frame of the T-posed template
    hands: wp.array2d(dtype=float)  # (2, 9) the same of a hand; they do not depend on the shape


def angle_tables(skel: SkelModel, device: str, limits: np.ndarray | None = None) -> AngleTables:
    """The tables of a model, on a device of Warp; limits (46, 2) rad, None: those of `dof_limits`."""
    limits = dof_limits() if limits is None else limits
    rig = skel.rig
    frame = (rig.per_joint_rot @ rig.apose_rot.mT).double().cpu().numpy()
    ulnae, hands = ([frame[s + k] @ _FOREARM_AXES.T for s in ARMS] for k in (2, 4))
    tables = {
        "limits": limits,
        "middle": limits_middle(limits),
        "eulers": [(_ball(joint), *sources, -1)[:3] for joint, sources in EULER_SOURCES.items()],
        "twists": [(*dofs_of_joint(joint), source) for joint, source in TWIST_SOURCES.items()],
        "ankles": [(*dofs_of_joint(j), *dofs_of_joint(j + 1), source, j) for j, source in ANKLES.items()],
        "subtalars": [frame[j] @ dof_axes()[dofs_of_joint(j + 1)[0]] for j in ANKLES],
        "arms": [_arm(scapula, sources) for scapula, sources in ARMS.items()],
        "arm_signs": [1.0, -1.0],
        "ulnae": np.reshape(ulnae, (2, 9)),
        "hands": np.reshape(hands, (2, 9)),
    }
    angles = AngleTables()
    for name, values in tables.items():
        setattr(angles, name, table(values, device))
    return angles


def _arm(scapula: int, sources: tuple[int, ...]) -> tuple[int, ...]:
    """Ball joints scapula and humerus; SMPL joints collar, shoulder, elbow and wrist; ulna; DoFs of elbow and wrist."""
    (flexion,), (pro_sup,) = dofs_of_joint(scapula + 2), dofs_of_joint(scapula + 3)
    wrist = [dof_index(f"wrist_{name}_{'r' if scapula == 14 else 'l'}") for name in ("flexion", "deviation")]
    return _ball(scapula), _ball(scapula + 1), *sources, scapula + 2, flexion, pro_sup, *wrist


def _ball(joint: int) -> int:
    """The row of a joint among the ball joints."""
    return BALL_JOINTS.index(joint)


def table(values: Any, device: str) -> Any:
    """Numbers as an array on a device: float32 or int32."""
    values = np.asarray(values)
    dtype = float if values.dtype.kind == "f" else int
    return wp.array(values.astype(np.float32 if dtype is float else np.int32), dtype=dtype, device=device)
