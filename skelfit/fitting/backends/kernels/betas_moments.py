"""The vertex pass of a stage with free betas: the moments, and how betas move the skin around the same transforms.

Beta k, with the joints held, moves a posed vertex by f_k = (sum_j w_j R_j) s_k, with the shape component s_k. Beside
the sums of `moments`, with the same weights om, residuals r and h = [v_rest; 1],

    cross_jk = sum om w_j f_k h^T  (3 x 4),    products_kl = sum om f_k f_l,    residual_k = sum om f_k r.
"""

import warp as wp

from skelfit.fitting.backends.skin_tables import SkinTables

from .lanes import A2, A3, A4, V, m, sync
from .moments import SkinMoments, add_moments, clear_moments
from .posing import PoseInputs, pose_people
from .skinning import SkinInputs, SkinScratch, pose_block, slot_of, vertices_of

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class BetaMoments:
    """Moments of the motion of the skin by K betas, of G groups."""

    betas: A2  # (G, K) of the pass
    cross: A4  # (G, J, 12, K) row by row
    products: A3  # (G, K, K)
    residual: A2  # (G, K)


@wp.func
def _clear(skin: SkinTables, people: SkinInputs, g: int, t: int, out: BetaMoments):
    """Zero the sums of group g; its betas are the coefficients behind the first."""
    betas = out.residual.shape[1]
    for i in range(t, skin.active.shape[0] * betas, wp.block_dim()):
        for c in range(12):
            out.cross[g, i // betas, c, i % betas] = V()
    for i in range(t, betas, wp.block_dim()):
        out.betas[g, i] = people.coefficients[g, 1 + i]
        out.residual[g, i] = V()
        for k in range(betas):
            out.products[g, i, k] = V()


@wp.func
def _turned_row(skin: SkinTables, people: SkinInputs, g: int, v: int, r: int):
    """Row r of the blended rotations of the joints that hold vertex v of the skin."""
    x = V()
    y = V()
    z = V()
    for k in range(skin.first[v], skin.first[v + 1]):
        j = skin.joint[k]
        w = skin.weight[k]
        x += w * people.transforms[g, j, 4 * r]
        y += w * people.transforms[g, j, 4 * r + 1]
        z += w * people.transforms[g, j, 4 * r + 2]
    return x, y, z


@wp.func
def _move_block(skin: SkinTables, people: SkinInputs, g: int, b: int, s: int, t: int, scratch: SkinScratch):
    """f of the vertices of block b, into scratch."""
    begin = b * skin.size
    for i in range(t, vertices_of(skin, b), wp.block_dim()):
        quad = (begin + i) // 4
        at = 3 * (i % 4)
        for r in range(3):
            x, y, z = _turned_row(skin, people, g, begin + i, r)
            for k in range(scratch.moves.shape[3]):
                shape = skin.basis[quad, 1 + k]
                scratch.moves[s, i, r, k] = shape[at] * x + shape[at + 1] * y + shape[at + 2] * z


@wp.func
def _add_cross(skin: SkinTables, g: int, e: int, k: int, s: int, scratch: SkinScratch, out: BetaMoments):
    """`cross` of one joint and beta k."""
    ax = V()
    ay = V()
    az = V()
    ah = V()
    bx = V()
    by = V()
    bz = V()
    bh = V()
    cx = V()
    cy = V()
    cz = V()
    ch = V()
    for i in range(skin.joints.start[e], skin.joints.start[e + 1]):
        v = skin.joints.vertex[i]
        w = skin.joints.weight[i]
        x = scratch.rest[s, v, 0]
        y = scratch.rest[s, v, 1]
        z = scratch.rest[s, v, 2]
        a = w * scratch.moves[s, v, 0, k]
        b = w * scratch.moves[s, v, 1, k]
        c = w * scratch.moves[s, v, 2, k]
        ax += m(a, x)
        ay += m(a, y)
        az += m(a, z)
        ah += a
        bx += m(b, x)
        by += m(b, y)
        bz += m(b, z)
        bh += b
        cx += m(c, x)
        cy += m(c, y)
        cz += m(c, z)
        ch += c
    j = skin.joints.into[e]
    _add_row(g, j, 0, k, ax, ay, az, ah, out)
    _add_row(g, j, 4, k, bx, by, bz, bh, out)
    _add_row(g, j, 8, k, cx, cy, cz, ch, out)


@wp.func
def _add_row(g: int, j: int, r: int, k: int, x: V, y: V, z: V, h: V, out: BetaMoments):
    """Add to the row of `cross` that starts at r."""
    out.cross[g, j, r, k] = out.cross[g, j, r, k] + x
    out.cross[g, j, r + 1, k] = out.cross[g, j, r + 1, k] + y
    out.cross[g, j, r + 2, k] = out.cross[g, j, r + 2, k] + z
    out.cross[g, j, r + 3, k] = out.cross[g, j, r + 3, k] + h


@wp.func
def _add_residual(skin: SkinTables, g: int, b: int, k: int, s: int, scratch: SkinScratch, out: BetaMoments):
    """`residual` of beta k."""
    begin = b * skin.size
    total = V()
    for v in range(vertices_of(skin, b)):
        f = m(scratch.moves[s, v, 0, k], scratch.residual[s, v, 0])
        f += m(scratch.moves[s, v, 1, k], scratch.residual[s, v, 1])
        f += m(scratch.moves[s, v, 2, k], scratch.residual[s, v, 2])
        total += skin.om[begin + v] * f
    out.residual[g, k] = out.residual[g, k] + total


@wp.func
def _add_products(
    skin: SkinTables, g: int, b: int, k: int, j: int, s: int, scratch: SkinScratch, out: BetaMoments
):
    """The products of betas k and k + 1 with j and j + 1."""
    begin = b * skin.size
    kj = V()
    ki = V()
    lj = V()
    li = V()
    for v in range(vertices_of(skin, b)):
        for r in range(3):
            at_k = skin.om[begin + v] * scratch.moves[s, v, r, k]
            at_l = skin.om[begin + v] * scratch.moves[s, v, r, k + 1]
            at_j = scratch.moves[s, v, r, j]
            at_i = scratch.moves[s, v, r, j + 1]
            kj += m(at_k, at_j)
            ki += m(at_k, at_i)
            lj += m(at_l, at_j)
            li += m(at_l, at_i)
    _add_product(g, k, j, kj, out)
    _add_product(g, k, j + 1, ki, out)
    _add_product(g, k + 1, j + 1, li, out)
    if j > k:
        _add_product(g, k + 1, j, lj, out)


@wp.func
def _add_product(g: int, k: int, j: int, x: V, out: BetaMoments):
    """Add to products [k, j] and [j, k]."""
    total = out.products[g, k, j] + x
    out.products[g, k, j] = total
    out.products[g, j, k] = total


@wp.func
def _add_beta_moments(
    skin: SkinTables, g: int, b: int, s: int, t: int, scratch: SkinScratch, out: BetaMoments
):
    """The sums of block b: an item for each joint and beta, each beta, and each four products; K is even."""
    betas = out.residual.shape[1]
    first = skin.joints.first[b]
    n = (skin.joints.first[b + 1] - first) * betas
    half = betas // 2
    for i in range(t, n + betas + half * half, wp.block_dim()):
        if i < n:
            _add_cross(skin, g, first + i // betas, i % betas, s, scratch, out)
        elif i < n + betas:
            _add_residual(skin, g, b, i - n, s, scratch, out)
        else:
            k = 2 * ((i - n - betas) // half)
            j = 2 * ((i - n - betas) % half)
            if k <= j:
                _add_products(skin, g, b, k, j, s, scratch, out)


@wp.kernel
def shaped_moments(
    skin: SkinTables, people: SkinInputs, posing: PoseInputs, chunk: int, scratch: SkinScratch, out: SkinMoments,
    beta_moments: BetaMoments
):  # fmt: skip
    """As `moments.moments`, and the moments of betas."""
    c, t = wp.tid()
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for g in range(begin, end):
        pose_people(g, c % posing.angles.shape[0], t, skin, posing, people)
        clear_moments(skin, people, g, t, out)
        _clear(skin, people, g, t, beta_moments)
    sync()
    for b in range(skin.blocks):
        for g in range(begin, end):
            s = slot_of(begin, g, c, scratch)
            pose_block(skin, people, begin, g, end, b, s, t, scratch)
            _move_block(skin, people, g, b, s, t, scratch)
            sync()
            add_moments(skin, g, b, s, t, scratch, out)
            _add_beta_moments(skin, g, b, s, t, scratch, beta_moments)
            sync()
