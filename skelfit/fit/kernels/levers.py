"""The vertex pass of a stage whose betas are free: the moments, and how betas move the skin around the same transforms.

Let f_k be what beta k moves a posed vertex by, the joints held: f_k = (sum_j w_j R_j) s_k with the shape component
s_k. Beside the sums of `moments`, with the same weights om, residuals r and h = [v_rest; 1],

    lever_jk = sum om w_j f_k h^T  (3 x 4),    products_kl = sum om f_k f_l,    pull_k = sum om f_k r.
"""

import warp as wp

from skelfit.fit.skin_tables import Skin

from .lanes import A2, A3, A4, V, m, sync
from .moments import Moments, add_moments, clear_moments
from .posing import Posing, stand
from .skin import Room, Skinned, blended_row, pose_block, vertices_of

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class Levers:
    """How K betas move the skin of G groups."""

    lever: A4  # (G, J, 12, K) row by row
    products: A3  # (G, K, K)
    pull: A2  # (G, K)


@wp.func
def _clear(skin: Skin, g: int, t: int, out: Levers):
    """Zero the sums of group g."""
    betas = out.pull.shape[1]
    for i in range(t, skin.active.shape[0] * betas, wp.block_dim()):
        for c in range(12):
            out.lever[g, i // betas, c, i % betas] = V()
    for i in range(t, betas, wp.block_dim()):
        out.pull[g, i] = V()
        for k in range(betas):
            out.products[g, i, k] = V()


@wp.func
def _move_block(skin: Skin, people: Skinned, g: int, b: int, s: int, t: int, room: Room):
    """What betas move the vertices of block b by, into room."""
    begin = b * skin.size
    for i in range(t, vertices_of(skin, b), wp.block_dim()):
        quad = (begin + i) // 4
        at = 3 * (i % 4)
        for r in range(3):
            x, y, z, h = blended_row(skin, people, g, begin + i, r)
            for k in range(room.moves.shape[3]):
                shape = skin.basis[quad, 1 + k]
                room.moves[s, i, r, k] = shape[at] * x + shape[at + 1] * y + shape[at + 2] * z


@wp.func
def _add_lever(skin: Skin, g: int, e: int, k: int, s: int, room: Room, out: Levers):
    """The lever of one joint and beta k."""
    for r in range(3):
        sx = V()
        sy = V()
        sz = V()
        sh = V()
        for i in range(skin.joints.start[e], skin.joints.start[e + 1]):
            v = skin.joints.vertex[i]
            f = skin.joints.weight[i] * room.moves[s, v, r, k]
            sx += m(f, room.rest[s, v, 0])
            sy += m(f, room.rest[s, v, 1])
            sz += m(f, room.rest[s, v, 2])
            sh += f
        j = skin.joints.into[e]
        out.lever[g, j, 4 * r, k] = out.lever[g, j, 4 * r, k] + sx
        out.lever[g, j, 4 * r + 1, k] = out.lever[g, j, 4 * r + 1, k] + sy
        out.lever[g, j, 4 * r + 2, k] = out.lever[g, j, 4 * r + 2, k] + sz
        out.lever[g, j, 4 * r + 3, k] = out.lever[g, j, 4 * r + 3, k] + sh


@wp.func
def _add_products(skin: Skin, g: int, b: int, k: int, n: int, s: int, room: Room, out: Levers):
    """products[k, l] and [l, k] of block b for l >= k; pull[k] too."""
    begin = b * skin.size
    pull = V()
    for v in range(n):
        f = m(room.moves[s, v, 0, k], room.residual[s, v, 0])
        f += m(room.moves[s, v, 1, k], room.residual[s, v, 1]) + m(room.moves[s, v, 2, k], room.residual[s, v, 2])
        pull += skin.om[begin + v] * f
    out.pull[g, k] = out.pull[g, k] + pull
    for l in range(k, out.pull.shape[1]):
        total = V()
        for v in range(n):
            f = m(room.moves[s, v, 0, k], room.moves[s, v, 0, l])
            f += m(room.moves[s, v, 1, k], room.moves[s, v, 1, l])
            f += m(room.moves[s, v, 2, k], room.moves[s, v, 2, l])
            total += skin.om[begin + v] * f
        total += out.products[g, k, l]
        out.products[g, k, l] = total
        out.products[g, l, k] = total


@wp.func
def _add_levers(skin: Skin, g: int, b: int, s: int, t: int, room: Room, out: Levers):
    """The sums of block b: an item for each joint and beta, and for each beta."""
    betas = out.pull.shape[1]
    first = skin.joints.first[b]
    n = (skin.joints.first[b + 1] - first) * betas
    for i in range(t, n + betas, wp.block_dim()):
        if i < n:
            _add_lever(skin, g, first + i // betas, i % betas, s, room, out)
        else:
            _add_products(skin, g, b, i - n, vertices_of(skin, b), s, room, out)


@wp.kernel
def shaped_moments(
    skin: Skin, people: Skinned, posing: Posing, chunk: int, room: Room, out: Moments, levers: Levers
):  # fmt: skip
    """As `moments.moments`, and the levers."""
    c, t = wp.tid()
    s = c % room.rest.shape[0]
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for g in range(begin, end):
        stand(g, s, t, posing, people)
        clear_moments(skin, people, g, t, out)
        _clear(skin, g, t, levers)
    sync()
    for b in range(skin.blocks):
        for g in range(begin, end):
            pose_block(skin, people, g, b, s, t, room)
            _move_block(skin, people, g, b, s, t, room)
            sync()
            add_moments(skin, g, b, s, t, room, out)
            _add_levers(skin, g, b, s, t, room, levers)
            sync()
