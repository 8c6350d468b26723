"""The tables of a SKEL's 44 keypoints for the kernels: what moves each of them.

A keypoint is a sum over *pairs* of it and a joint, of R_j u_p + m_p t_j, as in `bodies.posed_keypoints`; u_p is affine
in betas and in the correctives, whose part of one pair and one driving joint is a *block*. A *carrier* of a keypoint is
a joint whose subtree has pairs of it, and a *spin* is a joint whose local rotation moves it by correctives. A keypoint
has a *column* of derivatives for each DoF of its carriers and spins, and then for each beta.
"""

# Warp reads the annotations of a struct, so they cannot be postponed here.
from collections.abc import Sequence
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from skelfit.bodies.dofs import (
    DOF_JOINT,
    NUM_DOFS,
    NUM_JOINTS,
    descendants,
    dof_axes,
    dof_limits,
    dofs_of_joint,
)
from skelfit.bodies.keypoint_names import TORSO_POINTS
from skelfit.bodies.posed_keypoints import KeypointPairs
from skelfit.fitting.backends.body_tables import NUM_BETAS

# m; correctives that move a keypoint by less per unit of the rotation count in its position, not in its derivative.
_TOLD = 1e-4
_UNLIMITED = 1e9  # rad, in place of infinity


@wp.struct
class KeypointTables:
    """P pairs of K keypoints and joints. Lists of entry k are from `first[k]` to before `first[k + 1]`."""

    first: wp.array(dtype=int)  # (K + 1,) pairs of a keypoint
    joint: wp.array(dtype=int)  # (P,) of 24
    mass: wp.array(dtype=float)  # (P,)
    rest: wp.array2d(dtype=float)  # (P, 3) m
    shapes: wp.array3d(dtype=float)  # (P, 3, 10) m per beta
    block_first: wp.array(dtype=int)  # (P + 1,) blocks of a pair
    block_pair: wp.array(dtype=int)
    block_joint: wp.array(dtype=int)  # whose local rotation drives it
    blocks: wp.array2d(dtype=float)  # (., 27) m per entry of the local rotation, three rows of nine
    carrier_mass: wp.array(dtype=float)
    carried_first: wp.array(dtype=int)  # pairs of a carrier
    carried: wp.array(dtype=int)
    spin_first: wp.array(dtype=int)  # (K + 1,) spins of a keypoint
    spin_joint: wp.array(dtype=int)
    spun_first: wp.array(dtype=int)  # blocks of a spin
    spun: wp.array(dtype=int)
    column_first: wp.array(dtype=int)  # (K + 1,) columns of a keypoint, those of betas included
    column_dof: wp.array(dtype=int)  # -1: a beta's
    column_point: wp.array(dtype=int)
    column_carrier: wp.array(dtype=int)  # -1: none
    column_spin: wp.array(dtype=int)  # -1: none
    row_first: wp.array(dtype=int)  # (57,) columns of a DoF or, after them, of a beta
    row_column: wp.array(dtype=int)
    torso: wp.array(dtype=float)  # (K,) 1 for keypoints of the torso
    dof_joint: wp.array(dtype=int)  # (46,)
    axes: wp.array2d(dtype=float)  # (46, 3) unit, in the joint's frame
    limits: wp.array2d(dtype=float)  # (46, 2) rad
    form_first: wp.array(dtype=int)  # entries of a linear form of angles
    form_dof: wp.array(dtype=int)
    form_factor: wp.array(dtype=float)


def make_keypoint_tables(pairs: KeypointPairs, couplings: NDArray[Any], device: str) -> Any:
    """The tables on a device of Warp; couplings (n, 46) m per rad."""

    def ints(x: Any) -> Any:
        return wp.array(np.asarray(x, dtype=np.int32).reshape(-1), dtype=int, device=device)

    def floats(x: Any) -> Any:
        x = np.ascontiguousarray(x, dtype=np.float32)
        return wp.array(x, dtype=float, ndim=x.ndim, device=device)

    count, tables = pairs.count, KeypointTables()
    tables.first = ints(np.searchsorted(pairs.keypoint, np.arange(count + 1)))
    tables.joint, tables.mass = ints(pairs.joint), floats(pairs.mass)
    tables.rest, tables.shapes = floats(pairs.rest), floats(pairs.of_betas)
    moved = pairs.of_pose.reshape(len(pairs.joint), 3, -1, 9)
    pair, driver = np.nonzero(np.abs(moved).max((1, 3)) > 0)
    blocks, block_joint = moved[pair, :, driver], np.array(pairs.drivers)[driver]
    tables.block_first = ints(np.searchsorted(pair, np.arange(len(pairs.joint) + 1)))
    tables.block_pair, tables.block_joint = ints(pair), ints(block_joint)
    tables.blocks = floats(blocks.reshape(-1, 27))

    told = np.abs(blocks).max((1, 2), initial=0.0) > _TOLD
    carriers, carried, spins, spun = [], [], [], []
    for k in range(count):
        mine = np.flatnonzero(pairs.keypoint == k)
        for j in range(NUM_JOINTS):
            below = mine[np.isin(pairs.joint[mine], descendants(j))]
            if len(below):
                carriers.append((k, j))
                carried.append(below.tolist())
            turning = np.flatnonzero(told & (block_joint == j) & np.isin(pair, mine))
            if len(turning):
                spins.append((k, j))
                spun.append(turning.tolist())
    tables.carrier_mass = floats([pairs.mass[below].sum() for below in carried])
    tables.carried_first, tables.carried = (ints(x) for x in _lists(carried))
    tables.spin_first = ints(np.searchsorted([k for k, _ in spins], np.arange(count + 1)))
    tables.spin_joint = ints([j for _, j in spins])
    tables.spun_first, tables.spun = (ints(x) for x in _lists(spun))
    _add_columns(tables, count, carriers, spins, ints)

    tables.torso = floats(np.isin(np.arange(count), TORSO_POINTS))
    tables.dof_joint = ints(DOF_JOINT)
    axes = dof_axes()
    tables.axes = floats(axes / np.linalg.norm(axes, axis=1, keepdims=True))
    tables.limits = floats(dof_limits().clip(-_UNLIMITED, _UNLIMITED))
    tables.form_first, tables.form_dof = (
        ints(x) for x in _lists([np.flatnonzero(f).tolist() for f in couplings])
    )
    tables.form_factor = floats(couplings[couplings != 0])
    return tables


def _lists(lists: Sequence[Sequence[int]]) -> tuple[list[int], list[int]]:
    """Where each list begins, and all lists one after the other."""
    starts = np.cumsum([0, *map(len, lists)]).tolist()
    return starts, [int(x) for one in lists for x in one]


def _add_columns(
    tables: Any, count: int, carriers: list[tuple[int, int]], spins: list[tuple[int, int]], ints: Any
) -> None:
    carrier_of = {pair: e for e, pair in enumerate(carriers)}
    spin_of = {pair: e for e, pair in enumerate(spins)}
    columns, first = [], [0]
    for k in range(count):
        for j in range(NUM_JOINTS):
            entry = carrier_of.get((k, j), -1), spin_of.get((k, j), -1)
            if entry != (-1, -1):
                columns += [(i, k, *entry) for i in dofs_of_joint(j)]
        columns += [(-1, k, -1, -1)] * NUM_BETAS
        first.append(len(columns))
    table = np.array(columns)
    variable = table[:, 0].copy()
    betas = variable < 0
    variable[betas] = NUM_DOFS + np.tile(np.arange(NUM_BETAS), count)
    order = np.lexsort((np.arange(len(table)), variable))
    tables.column_first = ints(first)
    tables.column_dof, tables.column_point, tables.column_carrier, tables.column_spin = map(ints, table.T)
    tables.row_first = ints(np.searchsorted(variable[order], np.arange(NUM_DOFS + NUM_BETAS + 1)))
    tables.row_column = ints(order)
