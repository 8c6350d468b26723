"""What all people of a pair of models share of where a fit starts, as `kernels/start.py` takes it."""

# Warp reads the annotations of a struct, so that they cannot be postponed here.
from typing import Any

import numpy as np
import warp as wp

from skelfit.body.ball import BALL_JOINTS
from skelfit.body.dofs import dof_axes, dof_index, dof_limits, dofs_of_joint, limits_middle
from skelfit.body.kinematics import tree_levels
from skelfit.body.skel import SkelModel
from skelfit.body.smpl import SmplModel
from skelfit.fit.warm_start import ANKLES, ARMS, EULER_SOURCES, TWIST_SOURCES, beta_map

# Axes by which elbow and wrist together are read as angles, in the order of application: x, z, y of the forearm.
_FOREARM_AXES = np.eye(3)[[0, 2, 1]]


@wp.struct
class Start:
    """SMPL's joints and what their rotations tell of SKEL's angles. Ball joints are rows of the table of all DoFs."""

    parents: wp.array(dtype=int)  # (24,) of SMPL's joints; -1: none
    order: wp.array(dtype=int)  # (24,) SMPL's joints by their depth below the root
    level: wp.array(dtype=int)  # (levels + 1,) where each depth starts in `order`
    joints: wp.array2d(dtype=float)  # (24, 3) m, at rest, of betas 0
    speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta
    offsets: wp.array2d(dtype=float)  # (24, 3) m, from the parent, of betas 0; the root's place
    offset_speeds: wp.array3d(dtype=float)  # (24, 3, 10) m per beta
    beta_offset: wp.array(dtype=float)  # (10,) SKEL's betas are offset + matrix @ SMPL's
    beta_matrix: wp.array2d(dtype=float)  # (10, 10)
    limits: wp.array2d(dtype=float)  # (46, 2) rad
    middle: wp.array(dtype=float)  # (46,) rad
    eulers: wp.array2d(dtype=int)  # (5, 3) ball joint, the SMPL joints that turn it; -1: no second one
    twists: wp.array2d(dtype=int)  # (4, 2) DoF, SMPL joint
    ankles: wp.array2d(dtype=int)  # (2, 4) ankle DoF, subtalar DoF, SMPL joint, talus
    subtalars: wp.array2d(
        dtype=float
    )  # (2, 3) axes of subtalar DoFs, as if the talus had them, T-posed template
    arms: wp.array2d(dtype=int)  # (2, 11) see _arm
    arm_signs: wp.array(dtype=float)  # (2,) of pronation and wrist flexion
    ulnae: wp.array2d(dtype=float)  # (2, 9) axes (columns) of a forearm in the frame of the T-posed template
    hands: wp.array2d(dtype=float)  # (2, 9) the same of a hand, which has them whatever the shape


def start_tables(smpl: SmplModel, skel: SkelModel, device: str, limits: np.ndarray | None = None) -> Start:
    """The tables of a pair of models, on a device of Warp; limits (46, 2) rad, None: the usual ones."""
    limits = dof_limits() if limits is None else limits
    parents = [-1, *smpl.parents.tolist()[1:]]
    levels = tree_levels(tuple(parents))
    joints, speeds = (x.double().cpu().numpy() for x in (smpl.j_template, smpl.j_shapedirs))
    offset, matrix = (x.cpu().numpy() for x in beta_map(smpl, skel))
    rig = skel.rig
    frame = (rig.per_joint_rot @ rig.apose_rot.mT).double().cpu().numpy()
    ulnae, hands = ([frame[s + k] @ _FOREARM_AXES.T for s in ARMS] for k in (2, 4))
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
    start = Start()
    for name, values in tables.items():
        setattr(start, name, _array(values, device))
    return start


def _arm(scapula: int, sources: tuple[int, ...]) -> tuple[int, ...]:
    """Ball joints scapula and humerus; SMPL joints collar, shoulder, elbow and wrist; ulna; DoFs of elbow and wrist."""
    (flexion,), (pro_sup,) = dofs_of_joint(scapula + 2), dofs_of_joint(scapula + 3)
    wrist = [dof_index(f"wrist_{name}_{'r' if scapula == 14 else 'l'}") for name in ("flexion", "deviation")]
    return _ball(scapula), _ball(scapula + 1), *sources, scapula + 2, flexion, pro_sup, *wrist


def _ball(joint: int) -> int:
    """Which of all the ball joints it is."""
    return BALL_JOINTS.index(joint)


def _from_parents(x: np.ndarray, parents: list[int]) -> np.ndarray:
    """Of joints (24, ...), what they have more than their parents."""
    return np.concatenate((x[:1], x[1:] - x[parents[1:]]))


def _array(values: Any, device: str) -> wp.array:
    values = np.asarray(values)
    dtype = float if values.dtype.kind == "f" else int
    return wp.array(values.astype(np.float32 if dtype is float else np.int32), dtype=dtype, device=device)
