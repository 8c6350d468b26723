"""Moment space: one pass over the vertices, after which an iteration costs a few thousandths of a pass.

A linear-blend-skinned vertex is linear in the joints' skinning transforms A = [A_1 ... A_J] (3 x 4J). With
h = [v_rest; 1], u = (w_j h)_j in R^4J, target y and weight om (the weights of a stage sum to 1), the objective

    E(q) = sum_v om |A(q) u - y|^2        (m^2, mean squared vertex error)

is quadratic in A. Around the transforms A0 of the last pass, with dA = A - A0 and the residual r = A0 u - y,

    E = E0 + 2 <D0, dA> + <dA M, dA>,     E0 = sum om |r|^2,  D0 = sum om r u^T,  M = sum om u u^T.

The expansion is about A0, not about 0, because dA is small: so float32 resolves a residual of 0.1 um. The 4 x 4 block
of M for two joints is zero unless they share a vertex, so only those pairs are summed. Pose correctives move v_rest
slowly and are held between passes.
"""

import warp as wp

from skelfit.fitting.backends.skin_tables import SkinTables

from .lanes import A1, A3, V, m, sync
from .posing import PoseInputs, pose_people
from .skinning import SkinInputs, SkinScratch, pose_block, slot_of, vertices_of

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class SkinMoments:
    """The objective of G groups around the transforms of a vertex pass."""

    start: A3  # (G, J, 12) A0, row by row
    pairs: A3  # (G, P, 10) M's block of each pair of joints: xx xy xz yy yz zz x y z 1
    d: A3  # (G, J, 12) D0, row by row
    value: A1  # (G,) m^2, E0


@wp.func
def clear_moments(skin: SkinTables, people: SkinInputs, g: int, t: int, out: SkinMoments):
    """Zero the sums of group g; write its transforms and the masses, which are known before the pass."""
    for i in range(t, skin.mass.shape[0], wp.block_dim()):
        for k in range(9):
            out.pairs[g, i, k] = V()
        out.pairs[g, i, 9] = V(skin.mass[i])
    for i in range(t, skin.active.shape[0], wp.block_dim()):
        for k in range(12):
            out.d[g, i, k] = V()
            out.start[g, i, k] = people.transforms[g, skin.active[i], k]
    if t == 0:
        out.value[g] = V()


@wp.func
def _add_pair(skin: SkinTables, g: int, e: int, s: int, scratch: SkinScratch, out: SkinMoments):
    """The products of one pair of joints."""
    xx = V()
    xy = V()
    xz = V()
    yy = V()
    yz = V()
    zz = V()
    sx = V()
    sy = V()
    sz = V()
    for k in range(skin.pairs.start[e], skin.pairs.start[e + 1]):
        v = skin.pairs.vertex[k]
        w = skin.pairs.weight[k]
        x = scratch.rest[s, v, 0]
        y = scratch.rest[s, v, 1]
        z = scratch.rest[s, v, 2]
        wx = w * x
        wy = w * y
        wz = w * z
        xx += m(wx, x)
        xy += m(wx, y)
        xz += m(wx, z)
        yy += m(wy, y)
        yz += m(wy, z)
        zz += m(wz, z)
        sx += wx
        sy += wy
        sz += wz
    p = skin.pairs.into[e]
    out.pairs[g, p, 0] = out.pairs[g, p, 0] + xx
    out.pairs[g, p, 1] = out.pairs[g, p, 1] + xy
    out.pairs[g, p, 2] = out.pairs[g, p, 2] + xz
    out.pairs[g, p, 3] = out.pairs[g, p, 3] + yy
    out.pairs[g, p, 4] = out.pairs[g, p, 4] + yz
    out.pairs[g, p, 5] = out.pairs[g, p, 5] + zz
    out.pairs[g, p, 6] = out.pairs[g, p, 6] + sx
    out.pairs[g, p, 7] = out.pairs[g, p, 7] + sy
    out.pairs[g, p, 8] = out.pairs[g, p, 8] + sz


@wp.func
def _add_d(skin: SkinTables, g: int, e: int, s: int, scratch: SkinScratch, out: SkinMoments):
    """D0 of one joint."""
    for r in range(3):
        sx = V()
        sy = V()
        sz = V()
        sh = V()
        for k in range(skin.joints.start[e], skin.joints.start[e + 1]):
            v = skin.joints.vertex[k]
            f = skin.joints.weight[k] * scratch.residual[s, v, r]
            sx += m(f, scratch.rest[s, v, 0])
            sy += m(f, scratch.rest[s, v, 1])
            sz += m(f, scratch.rest[s, v, 2])
            sh += f
        j = skin.joints.into[e]
        out.d[g, j, 4 * r] = out.d[g, j, 4 * r] + sx
        out.d[g, j, 4 * r + 1] = out.d[g, j, 4 * r + 1] + sy
        out.d[g, j, 4 * r + 2] = out.d[g, j, 4 * r + 2] + sz
        out.d[g, j, 4 * r + 3] = out.d[g, j, 4 * r + 3] + sh


@wp.func
def _add_value(skin: SkinTables, g: int, b: int, s: int, scratch: SkinScratch, out: SkinMoments):
    """E0 of block b."""
    total = V()
    begin = b * skin.size
    for v in range(vertices_of(skin, b)):
        x = scratch.residual[s, v, 0]
        y = scratch.residual[s, v, 1]
        z = scratch.residual[s, v, 2]
        total += skin.om[begin + v] * (m(x, x) + m(y, y) + m(z, z))
    out.value[g] = out.value[g] + total


@wp.func
def add_moments(skin: SkinTables, g: int, b: int, s: int, t: int, scratch: SkinScratch, out: SkinMoments):
    """The sums of block b: an item for each pair, each joint, and the value."""
    pairs = skin.pairs.first[b]
    joints = skin.joints.first[b]
    a = skin.pairs.first[b + 1] - pairs
    n = a + skin.joints.first[b + 1] - joints
    for i in range(t, n + 1, wp.block_dim()):
        if i < a:
            _add_pair(skin, g, pairs + i, s, scratch, out)
        elif i < n:
            _add_d(skin, g, joints + i - a, s, scratch, out)
        else:
            _add_value(skin, g, b, s, scratch, out)


@wp.func
def _add_blocks(
    skin: SkinTables, people: SkinInputs, c: int, t: int, chunk: int, scratch: SkinScratch, out: SkinMoments
):
    """The sums of all blocks, for the groups of chunk c."""
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for b in range(skin.blocks):
        for g in range(begin, end):
            s = slot_of(begin, g, c, scratch)
            pose_block(skin, people, begin, g, end, b, s, t, scratch)
            sync()
            add_moments(skin, g, b, s, t, scratch, out)
            sync()


@wp.kernel
def moments(
    skin: SkinTables, people: SkinInputs, posing: PoseInputs, chunk: int, scratch: SkinScratch,
    out: SkinMoments,
):  # fmt: skip
    """The vertex pass: reads each target vertex once. Launched over chunks of groups."""
    c, t = wp.tid()
    for g in range(c * chunk, wp.min(c * chunk + chunk, people.rows.shape[0])):
        pose_people(g, c % posing.angles.shape[0], t, skin, posing, people)
        clear_moments(skin, people, g, t, out)
    sync()
    _add_blocks(skin, people, c, t, chunk, scratch, out)


@wp.kernel
def posed_moments(skin: SkinTables, people: SkinInputs, chunk: int, scratch: SkinScratch, out: SkinMoments):
    """The same for people whose coefficients and transforms are there already."""
    c, t = wp.tid()
    for g in range(c * chunk, wp.min(c * chunk + chunk, people.rows.shape[0])):
        clear_moments(skin, people, g, t, out)
    sync()
    _add_blocks(skin, people, c, t, chunk, scratch, out)
