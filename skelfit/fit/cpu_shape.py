"""How betas move a posed body, on a CPU: joints and frames, and the twists of the skinning transforms.

A beta moves the joints at rest, and with them the bone vectors that the joint frames follow. Turning joint j's frame
by theta turns its DoFs' axes, so that its global rotation G_j turns by w_j = w_parent + (G_parent - G_j) theta. The
rest is the chain rule. Everything is float64; the K betas are the innermost dimension.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.body.dofs import DOF_JOINT, NUM_JOINTS, SKEL_PARENTS
from skelfit.body.kinematics import FOREARM_BONES, LUMBAR, SCAPULA_L, SCAPULA_R, SCAPULAE, SPINE, THORAX
from skelfit.body.skel import SkelModel
from skelfit.fit.compiled import Array, compiled
from skelfit.fit.cpu_pose import add_slide
from skelfit.fit.cpu_tens import NUM_BETAS, load, plus, plus3, store, times

Float = NDArray[np.float64]
Index = NDArray[np.int64]


@dataclass(frozen=True)
class ShapeTables:
    """What a SKEL body's betas do, as arrays for the compiled code."""

    joints: Float  # (24, 3) m, at rest, of betas 0
    speeds: Float  # (24, 3, K) m per beta
    stretches: Float  # (24, 3, K) m per beta, of a joint's bone vector
    bones: Index  # (24, 2) joints whose offsets add up to a joint's bone vector; -1: none
    template: Float  # (24, 3) unit, the template's bone
    axes: Float  # (46, 3) the DoFs' axes in the frame of the T-posed template


def shape_tables(model: SkelModel) -> ShapeTables:
    """The tables of a model."""
    rig = model.rig
    bones = np.full((NUM_JOINTS, 2), -1)
    free = rig.free.numpy()
    bones[free, 0] = rig.bone_child.numpy()[free]
    for joint, (first, second) in FOREARM_BONES.items():
        bones[joint] = first, second
    template = rig.template_bone.double().numpy()
    speeds = model.j_shapedirs.double().numpy()
    offset_speeds = speeds.copy()
    offset_speeds[1:] -= speeds[list(SKEL_PARENTS[1:])]
    frame = (rig.per_joint_rot @ rig.apose_rot.mT)[list(DOF_JOINT)]
    return ShapeTables(
        joints=model.j_template.double().numpy(),
        speeds=speeds,
        stretches=np.where((bones >= 0)[..., None, None], offset_speeds[bones], 0.0).sum(1),
        bones=bones,
        template=template / np.linalg.norm(template, axis=1, keepdims=True),
        axes=(frame @ rig.axes[..., None])[..., 0].double().numpy(),
    )


@compiled
def shape_joints(
    betas: Array, parents: Array, first_dof: Array, tables: Any,
    rest: Array, offsets: Array, axes: Array, spine: Array, thorax: Array,
    spins: Array, spine_speeds: Array, thorax_speeds: Array,
) -> None:  # fmt: skip
    """What `kinematics.shape_frames` makes of a person's betas (K,), and what a beta changes of it.

    rest, offsets (24, 3) m; axes (46, 3) of the T-posed person; spine (3,) lengths and thorax (2,) width and height, m;
    spins (24, 3, K) rad per beta, of the joint frames; spine_speeds (3, K), thorax_speeds (2, K).
    """
    template, speeds, stretches, bones, template_bone, template_axes = tables
    for j in range(NUM_JOINTS):
        for r in range(3):
            rest[j, r] = template[j, r]
            for k in range(NUM_BETAS):
                rest[j, r] += speeds[j, r, k] * betas[k]
    for j in range(NUM_JOINTS):
        for r in range(3):
            offsets[j, r] = rest[j, r] - (rest[parents[j], r] if j > 0 else 0.0)
    for s in range(3):
        j, up = SPINE[s], parents[SPINE[s]]
        spine[s] = abs(rest[j, 1] - rest[up, 1])
        sign = 1.0 if rest[j, 1] >= rest[up, 1] else -1.0
        for k in range(NUM_BETAS):
            spine_speeds[s, k] = sign * (speeds[j, 1, k] - speeds[up, 1, k])
    _distance(SCAPULA_L, SCAPULA_R, rest, speeds, 0, thorax, thorax_speeds)
    _distance(THORAX, LUMBAR, rest, speeds, 1, thorax, thorax_speeds)
    b, turn, x, db = np.empty(3), np.empty(3), np.empty(3), np.empty((3, NUM_BETAS))
    for j in range(NUM_JOINTS):
        mine = slice(first_dof[j], first_dof[j + 1])
        axes[mine] = template_axes[mine]
        if bones[j, 0] < 0:
            spins[j] = 0.0
        else:
            _turn_frame(
                bones[j], offsets, stretches[j], template_bone[j], axes[mine], spins[j], b, turn, x, db
            )


@compiled
def _distance(
    a: int, b: int, rest: Array, speeds: Array, slot: int, lengths: Array, length_speeds: Array
) -> None:
    x, y, z = rest[a, 0] - rest[b, 0], rest[a, 1] - rest[b, 1], rest[a, 2] - rest[b, 2]
    length = np.sqrt(x * x + y * y + z * z)
    lengths[slot] = length
    for k in range(NUM_BETAS):
        along = x * (speeds[a, 0, k] - speeds[b, 0, k]) + y * (speeds[a, 1, k] - speeds[b, 1, k])
        length_speeds[slot, k] = (along + z * (speeds[a, 2, k] - speeds[b, 2, k])) / length


@compiled
def _turn_frame(
    bone: Array, offsets: Array, stretch: Array, t: Array, axes: Array, spins: Array,
    b: Array, n: Array, x: Array, db: Array,
) -> None:  # fmt: skip
    """Turn a joint's axes by the smallest rotation t -> b to its bone's direction, and say how betas turn that.

    With n = t x b and c = t . b it is I + [n] + [n]^2 / (1 + c), which turns by b x db - (n . db) / (1 + c) b.
    """
    for r in range(3):
        b[r] = offsets[bone[0], r] + (offsets[bone[1], r] if bone[1] >= 0 else 0.0)
    length = np.sqrt(b[0] * b[0] + b[1] * b[1] + b[2] * b[2])
    for r in range(3):
        b[r] /= length
    share = 1 / (1 + t[0] * b[0] + t[1] * b[1] + t[2] * b[2])
    for r in range(3):
        n[r] = t[(r + 1) % 3] * b[(r + 2) % 3] - t[(r + 2) % 3] * b[(r + 1) % 3]
    square = share * (n[0] * n[0] + n[1] * n[1] + n[2] * n[2])
    for i in range(len(axes)):
        along = share * (n[0] * axes[i, 0] + n[1] * axes[i, 1] + n[2] * axes[i, 2])
        for r in range(3):
            x[r] = n[(r + 1) % 3] * axes[i, (r + 2) % 3] - n[(r + 2) % 3] * axes[i, (r + 1) % 3]
        for r in range(3):
            axes[i, r] += x[r] + along * n[r] - square * axes[i, r]
    for r in range(3):  # what is left of the bone's change, across it
        for c in range(3):
            x[c] = ((1.0 if r == c else 0.0) - b[r] * b[c]) / length
        store(plus(plus(times(x[0], stretch[0]), x[1], stretch[1]), x[2], stretch[2]), db[r])
    for r in range(3):
        s, u = (r + 1) % 3, (r + 2) % 3
        turned = plus(times(b[s], db[u]), -b[u], db[s])
        store(plus3(turned, -share * n[0] * b[r], -share * n[1] * b[r], -share * n[2] * b[r], db), spins[r])


@compiled
def shape_twists(
    q: Array, rot: Array, pos: Array, parents: Array, joints: Array, tables: Any, spins: Array,
    spine_speeds: Array, thorax_speeds: Array, turn: Array, place: Array, omega: Array, v: Array,
) -> None:  # fmt: skip
    """What betas change of the skinning transforms A of some joints (J,), the angles q (46,) held.

    As twists: dA = [omega]x A + [0 | v] with omega, v (J, 3, K). rot (24, 3, 3) and pos (24, 3) are where the joints
    are, spins and speeds are `shape_joints`'; turn and place (24, 3, K) are room for the joints' own motion.
    """
    speeds, shift, slid, way = tables[1], np.empty((3, NUM_BETAS)), np.empty(3), np.empty(3)
    unit = np.ones(3)
    for r in range(3):  # the root turns about itself, as far as its frame does
        for k in range(NUM_BETAS):
            turn[0, r, k], place[0, r, k] = spins[0, r, k], speeds[0, r, k]
            for c in range(3):
                turn[0, r, k] -= rot[0, r, c] * spins[0, c, k]
    for j in range(1, NUM_JOINTS):
        up = parents[j]
        for r in range(3):
            store(plus(load(speeds[j, r]), -1.0, speeds[up, r]), shift[r])
        for s in range(3):  # what slides with a length, does so in proportion
            if j == SPINE[s]:
                slid[:] = 0
                add_slide(j, q, unit, 0.0, 0.0, slid)
                _add_outer(slid, spine_speeds[s], shift)
        for s in range(2):
            if j == SCAPULAE[s]:
                for size in range(2):
                    slid[:] = 0
                    add_slide(j, q, unit, 1.0 - size, 0.0 + size, slid)
                    _add_outer(slid, thorax_speeds[size], shift)
        for r in range(3):
            way[r] = pos[j, r] - pos[up, r]
        _move(way, rot[up], rot[j], turn[up], place[up], spins[j], shift, turn[j], place[j])
    for a in range(len(joints)):
        j = joints[a]
        g, w, at = rot[j], turn[j], pos[j]
        for r in range(3):
            s, t = (r + 1) % 3, (r + 2) % 3
            store(load(w[r]), omega[a, r])
            along = plus(plus(load(place[j, r]), -at[t], w[s]), at[s], w[t])
            store(plus3(along, -g[r, 0], -g[r, 1], -g[r, 2], speeds[j]), v[a, r])


@compiled
def _add_outer(a: Array, b: Array, out: Array) -> None:
    for r in range(3):
        store(plus(load(out[r]), a[r], b), out[r])


@compiled
def _move(
    way: Array, g: Array, h: Array, turn_up: Array, place_up: Array, spin: Array, shift: Array, turn: Array,
    place: Array,
) -> None:  # fmt: skip
    """A joint's motion (3, K) from its parent's; way (3,) leads there from the parent, g and h are their rotations."""
    for r in range(3):
        s, t = (r + 1) % 3, (r + 2) % 3
        g0, g1, g2 = g[r, 0], g[r, 1], g[r, 2]
        carried = plus(plus(load(place_up[r]), way[t], turn_up[s]), -way[s], turn_up[t])
        store(plus3(carried, g0, g1, g2, shift), place[r])
        store(plus3(load(turn_up[r]), g0 - h[r, 0], g1 - h[r, 1], g2 - h[r, 2], spin), turn[r])
