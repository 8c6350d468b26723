"""The keypoints of a posed group and their derivatives: a column for each DoF and beta that moves a keypoint.

The part of pair p of a keypoint is W_p = R_j u_p + m_p (p_j - R_j J_j), with u_p affine in betas and correctives. A DoF
with twist (omega, v) moves what is below its joint, so a column is omega x S + M v, with S the sum of W_p below and M
that of m_p. A beta moves each joint by its own twist, and u_p. Correctives follow the local rotations R_up^T R_d: a
spin matrix E of a keypoint and a driver d takes the local angular velocity w of a variable to E w. Betas turn local
rotations a little, too. Lengths in metres, without the person's translation.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables

from .betas_twists import BetaTwists
from .joint_frames import JointFrames
from .lanes import A2, A3, V, m, sync

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS


@wp.struct
class KeypointScratch:
    """For each of S slots."""

    local: A3  # (S, 24, 9) local rotations less the identity
    dof_spins: A3  # (S, 46, 3) rad/rad, a DoF's turn of its joint in the parent
    beta_spins: A3  # (S, 24, 3 K) rad per beta, the same of betas
    parts: A3  # (S, P, 3) m, W
    carriers: A3  # (S, ., 3) m, sums of W
    spins: A3  # (S, ., 9) E, m/rad
    columns: A3  # (S, ., 3) m per rad or beta
    points: A3  # (S, 44, 3) m


def make_keypoint_scratch(
    slots: int, pairs: int, carriers: int, spins: int, columns: int, device: str
) -> Any:
    """Scratch for so many groups and entries of the tables."""
    scratch = KeypointScratch()
    for name, shape in (
        ("local", (24, 9)), ("dof_spins", (46, 3)), ("beta_spins", (24, 3 * K)), ("parts", (pairs, 3)),
        ("carriers", (carriers, 3)), ("spins", (spins, 9)), ("columns", (columns, 3)), ("points", (44, 3)),
    ):  # fmt: skip
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.func
def place_keypoints(
    s: int, t: int, betas: A2, tables: KeypointTables, body: BodyTables, joints: JointFrames,
    scratch: KeypointScratch,
):  # fmt: skip
    """Fill local rotations, parts and points of a slot whose joints are posed; betas (S, K)."""
    for i in range(t, 24 * 9, wp.block_dim()):
        j = i // 9
        r = (i % 9) // 3
        c = i % 3
        up = body.parents[j]
        x = joints.rot[s, j, 3 * r + c]
        if up >= 0:
            x = m(joints.rot[s, up, r], joints.rot[s, j, c]) + m(
                joints.rot[s, up, 3 + r], joints.rot[s, j, 3 + c]
            )
            x += m(joints.rot[s, up, 6 + r], joints.rot[s, j, 6 + c])
        if r == c:
            x -= V(1.0)
        scratch.local[s, j, 3 * r + c] = x
    sync()
    for p in range(t, tables.joint.shape[0], wp.block_dim()):
        _write_part(s, p, betas, tables, joints, scratch)
    sync()
    for i in range(t, 3 * (tables.first.shape[0] - 1), wp.block_dim()):
        total = V()
        for p in range(tables.first[i // 3], tables.first[i // 3 + 1]):
            total += scratch.parts[s, p, i % 3]
        scratch.points[s, i // 3, i % 3] = total
    sync()


@wp.func
def _write_part(
    s: int, p: int, betas: A2, tables: KeypointTables, joints: JointFrames, scratch: KeypointScratch
):
    j = tables.joint[p]
    mass = tables.mass[p]
    x = V(tables.rest[p, 0]) - mass * joints.rest[s, j, 0]
    y = V(tables.rest[p, 1]) - mass * joints.rest[s, j, 1]
    z = V(tables.rest[p, 2]) - mass * joints.rest[s, j, 2]
    for k in range(wp.static(K)):
        x += tables.shapes[p, 0, k] * betas[s, k]
        y += tables.shapes[p, 1, k] * betas[s, k]
        z += tables.shapes[p, 2, k] * betas[s, k]
    for b in range(tables.block_first[p], tables.block_first[p + 1]):
        d = tables.block_joint[b]
        for i in range(9):
            f = scratch.local[s, d, i]
            x += tables.blocks[b, i] * f
            y += tables.blocks[b, 9 + i] * f
            z += tables.blocks[b, 18 + i] * f
    for r in range(3):
        turned = m(joints.rot[s, j, 3 * r], x) + m(joints.rot[s, j, 3 * r + 1], y)
        turned += m(joints.rot[s, j, 3 * r + 2], z)
        scratch.parts[s, p, r] = turned + mass * joints.pos[s, j, r]


@wp.func
def differentiate_keypoints(
    s: int, t: int, tables: KeypointTables, body: BodyTables, joints: JointFrames, twists: BetaTwists,
    scratch: KeypointScratch,
):  # fmt: skip
    """Fill the columns of a slot after `place_keypoints` and `shape_twists`."""
    for i in range(t, 46 * 3, wp.block_dim()):
        _write_dof_spin(s, i // 3, i % 3, tables, body, joints, scratch)
    for i in range(t, 24 * 3, wp.block_dim()):
        _write_beta_spins(s, i // 3, i % 3, body, joints, twists, scratch)
    for i in range(t, 3 * tables.carrier_mass.shape[0], wp.block_dim()):
        total = V()
        for n in range(tables.carried_first[i // 3], tables.carried_first[i // 3 + 1]):
            total += scratch.parts[s, tables.carried[n], i % 3]
        scratch.carriers[s, i // 3, i % 3] = total
    for i in range(t, 3 * tables.spin_joint.shape[0], wp.block_dim()):
        _write_spin(s, i // 3, i % 3, tables, joints, scratch)
    sync()
    for c in range(t, tables.column_dof.shape[0], wp.block_dim()):
        if tables.column_dof[c] >= 0:
            _write_dof_column(s, c, tables, joints, scratch)
    for i in range(t, 3 * (tables.first.shape[0] - 1), wp.block_dim()):
        _write_beta_columns(s, i // 3, i % 3, tables, joints, twists, scratch)
    sync()


@wp.func
def _write_dof_spin(
    s: int, i: int, r: int, tables: KeypointTables, body: BodyTables, joints: JointFrames,
    scratch: KeypointScratch,
):  # fmt: skip
    """Component r of R_up^T omega of DoF i."""
    up = body.parents[tables.dof_joint[i]]
    x = joints.omega[s, i, r]
    if up >= 0:
        x = m(joints.rot[s, up, r], joints.omega[s, i, 0]) + m(
            joints.rot[s, up, 3 + r], joints.omega[s, i, 1]
        )
        x += m(joints.rot[s, up, 6 + r], joints.omega[s, i, 2])
    scratch.dof_spins[s, i, r] = x


@wp.func
def _write_beta_spins(
    s: int,
    j: int,
    r: int,
    body: BodyTables,
    joints: JointFrames,
    twists: BetaTwists,
    scratch: KeypointScratch,
):
    """Component r of R_up^T (omega_j - omega_up) of all betas."""
    up = body.parents[j]
    for k in range(wp.static(K)):
        x = V()
        if up >= 0:
            for c in range(3):
                turn = twists.twist[s, j, wp.static(K) * c + k] - twists.twist[s, up, wp.static(K) * c + k]
                x += m(joints.rot[s, up, 3 * c + r], turn)
        scratch.beta_spins[s, j, wp.static(K) * r + k] = x


@wp.func
def _write_spin(
    s: int, e: int, a: int, tables: KeypointTables, joints: JointFrames, scratch: KeypointScratch
):
    """Column a of E: how the keypoint moves when the local rotation R of the driver turns about axis a of the parent.

    The rows of R turn into one another: row a + 1 becomes less row a + 2, and that one row a + 1.
    """
    d = tables.spin_joint[e]
    one = (a + 1) % 3
    two = (a + 2) % 3
    x = V()
    y = V()
    z = V()
    for n in range(tables.spun_first[e], tables.spun_first[e + 1]):
        b = tables.spun[n]
        u = V()
        v = V()
        w = V()
        for c in range(3):
            up = scratch.local[s, d, 3 * one + c]
            down = scratch.local[s, d, 3 * two + c]
            if c == one:
                up += V(1.0)
            if c == two:
                down += V(1.0)
            u += tables.blocks[b, 3 * two + c] * up - tables.blocks[b, 3 * one + c] * down
            v += tables.blocks[b, 9 + 3 * two + c] * up - tables.blocks[b, 9 + 3 * one + c] * down
            w += tables.blocks[b, 18 + 3 * two + c] * up - tables.blocks[b, 18 + 3 * one + c] * down
        j = tables.joint[tables.block_pair[b]]
        x += m(joints.rot[s, j, 0], u) + m(joints.rot[s, j, 1], v) + m(joints.rot[s, j, 2], w)
        y += m(joints.rot[s, j, 3], u) + m(joints.rot[s, j, 4], v) + m(joints.rot[s, j, 5], w)
        z += m(joints.rot[s, j, 6], u) + m(joints.rot[s, j, 7], v) + m(joints.rot[s, j, 8], w)
    scratch.spins[s, e, a] = x
    scratch.spins[s, e, 3 + a] = y
    scratch.spins[s, e, 6 + a] = z


@wp.func
def _write_dof_column(s: int, c: int, tables: KeypointTables, joints: JointFrames, scratch: KeypointScratch):
    i = tables.column_dof[c]
    e = tables.column_carrier[c]
    spin = tables.column_spin[c]
    for r in range(3):
        one = (r + 1) % 3
        two = (r + 2) % 3
        x = V()
        if e >= 0:
            x = m(joints.omega[s, i, one], scratch.carriers[s, e, two]) - m(
                joints.omega[s, i, two], scratch.carriers[s, e, one]
            )
            x += tables.carrier_mass[e] * joints.v[s, i, r]
        if spin >= 0:
            for a in range(3):
                x += m(scratch.spins[s, spin, 3 * r + a], scratch.dof_spins[s, i, a])
        scratch.columns[s, c, r] = x


@wp.func
def _write_beta_columns(
    s: int, point: int, r: int, tables: KeypointTables, joints: JointFrames, twists: BetaTwists,
    scratch: KeypointScratch,
):  # fmt: skip
    """Component r of the columns of all betas, the last ones of a keypoint."""
    one = (r + 1) % 3
    two = (r + 2) % 3
    first = tables.column_first[point + 1] - wp.static(K)
    for k in range(wp.static(K)):
        x = V()
        for p in range(tables.first[point], tables.first[point + 1]):
            j = tables.joint[p]
            x += m(twists.twist[s, j, wp.static(K) * one + k], scratch.parts[s, p, two])
            x -= m(twists.twist[s, j, wp.static(K) * two + k], scratch.parts[s, p, one])
            x += tables.mass[p] * twists.twist[s, j, wp.static(3 * K) + wp.static(K) * r + k]
            for c in range(3):
                x += tables.shapes[p, c, k] * joints.rot[s, j, 3 * r + c]
        for e in range(tables.spin_first[point], tables.spin_first[point + 1]):
            d = tables.spin_joint[e]
            for a in range(3):
                x += m(scratch.spins[s, e, 3 * r + a], scratch.beta_spins[s, d, wp.static(K) * a + k])
        scratch.columns[s, first + k, r] = x
