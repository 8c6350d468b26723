"""The skin of a group of people, a block of vertices at a time: what all vertex passes share.

A rest vertex is a linear function of the coefficients c = [1, betas, corrective feature] of a person,

    v = sum_k basis_k c_k,        feature = vec(R_parent^T R_j - I) of the joints that drive correctives,

and a posed one is linear blend skinning of it, sum_j w_j A_j [v, 1], by transforms A_j = [R_j | p_j - R_j J_j] of 24
joints (J_j the joint at rest). Lengths in metres.

A pass goes over blocks of vertices and within a block over its *chunk* of groups, so that the block's basis stays in
the cache: first the quads of a block are posed into scratch, then each sum over the block's vertices is an item.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.skin_tables import Quad, SkinTables

from .lanes import A2, A3, A4, I2, L, V, m

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

Quads = wp.array2d(dtype=Quad)
# Groups that share one read of the basis: as many as the registers hold sums of.
GROUPS_AT_ONCE = 2 if L == 16 else 1


@wp.struct
class SkinInputs:
    """The people of a pass, in G groups."""

    coefficients: A2  # (G, k)
    transforms: A3  # (G, 24, 12) [R | p - R J], row by row
    target: A3  # (blocks of L people, V, 3) m
    rows: I2  # (G, L) people


@wp.struct
class SkinScratch:
    """A block of vertices for each slot; groups that share a read of the basis have adjacent slots."""

    rest: A3  # (slots, size, 3) rest vertices
    residual: A3  # (slots, size, 3) posed vertex - target
    moves: A4  # (slots, size, 3, betas) what betas move a posed vertex by, if they are free


def make_skin_scratch(slots: int, size: int, betas: int, device: Any) -> Any:
    """Scratch for so many chunks at once and blocks of so many vertices; betas 0: they are held."""
    slots *= GROUPS_AT_ONCE
    scratch = SkinScratch()
    scratch.rest = wp.empty((slots, size, 3), dtype=V, device=device)
    scratch.residual = wp.empty((slots, size, 3), dtype=V, device=device)
    scratch.moves = wp.empty((slots, size if betas else 0, 3, betas), dtype=V, device=device)
    return scratch


@wp.func
def is_one_block(rows: I2, g: int) -> bool:
    """Whether the people of group g are the lanes of one block of targets."""
    one_block = rows[g, 0] % wp.static(L) == 0
    for k in range(wp.static(L)):
        one_block = one_block and rows[g, k] == rows[g, 0] + k
    return one_block


@wp.func
def target_at(people: SkinInputs, g: int, one_block: bool, v: int, c: int) -> V:
    """Coordinate c of target vertex v; one: what `together` says."""
    r = V()
    if one_block:
        r = people.target[people.rows[g, 0] // wp.static(L), v, c]
    else:
        for k in range(wp.static(L)):
            p = people.rows[g, k]
            r[k] = people.target[p // wp.static(L), v, c][p % wp.static(L)]
    return r


@wp.func
def vertices_of(skin: SkinTables, b: int) -> int:
    """The number of vertices in block b."""
    return wp.min(skin.size, skin.count - b * skin.size)


def _rest(groups: int) -> str:
    """The C++ of the rest vertices of a quad: a matrix product whose sums stay in registers."""
    return f"""
    wp::vec_t<{L}, float> sums[{groups}][12];
    for (int k = 0; k < basis.shape[1]; ++k) {{
        const wp::vec_t<12, float>& row = *wp::address(basis, quad, k);
        for (int h = 0; h < {groups}; ++h) {{
            const wp::vec_t<{L}, float> c = *wp::address(coefficients, g + h, k);
            for (int i = 0; i < 12; ++i) {{
#ifdef SKELFIT_LANES
                sums[h][i] = wp::lanes_fma(row[i], c, sums[h][i]);
#else
                for (int l = 0; l < {L}; ++l) sums[h][i][l] = fmaf(row[i], c[l], sums[h][i][l]);
#endif
            }}
        }}
    }}
    for (int h = 0; h < {groups}; ++h)
        for (int i = 0; i < 12; ++i) *wp::address(rest, s + h, at + i / 3, i % 3) = sums[h][i];
    """


@wp.func_native(_rest(1))
def rest_quad(basis: Quads, quad: int, coefficients: A2, g: int, rest: A3, s: int, at: int):
    """Rest vertices of a quad of group g into rest[s, at : at + 4]."""


@wp.func_native(_rest(GROUPS_AT_ONCE))
def rest_quads(basis: Quads, quad: int, coefficients: A2, g: int, rest: A3, s: int, at: int):
    """As `rest_quad`, of GROUPS_AT_ONCE groups from g on, into slots from s on."""


@wp.func
def slot_of(begin: int, g: int, c: int, scratch: SkinScratch) -> int:
    """The slot of group g of chunk c, whose first group is `begin`."""
    slots = scratch.rest.shape[0] // wp.static(GROUPS_AT_ONCE)
    return (c % slots) * wp.static(GROUPS_AT_ONCE) + (g - begin) % wp.static(GROUPS_AT_ONCE)


@wp.func
def rest_block(
    skin: SkinTables, people: SkinInputs, begin: int, g: int, end: int, b: int, s: int, t: int,
    scratch: SkinScratch,
):  # fmt: skip
    """Rest vertices of block b of group g in slot s, of groups begin..end of a chunk: several groups at once."""
    first = b * (skin.size // 4)
    n = (vertices_of(skin, b) + 3) // 4
    nth = (g - begin) % wp.static(GROUPS_AT_ONCE)
    rounded = g - nth + wp.static(GROUPS_AT_ONCE) <= end
    if rounded and nth == 0:
        for i in range(t, n, wp.block_dim()):
            rest_quads(skin.basis, first + i, people.coefficients, g, scratch.rest, s, 4 * i)
    if not rounded:
        for i in range(t, n, wp.block_dim()):
            rest_quad(skin.basis, first + i, people.coefficients, g, scratch.rest, s, 4 * i)


@wp.func
def posed(skin: SkinTables, people: SkinInputs, g: int, v: int, rest: A3, s: int, at: int):
    """The posed vertex v of the skin, whose rest vertex is rest[s, at]."""
    x = rest[s, at, 0]
    y = rest[s, at, 1]
    z = rest[s, at, 2]
    px = V()
    py = V()
    pz = V()
    for k in range(skin.first[v], skin.first[v + 1]):
        j = skin.joint[k]
        w = skin.weight[k]
        px += w * _row(people.transforms, g, j, 0, x, y, z)
        py += w * _row(people.transforms, g, j, 4, x, y, z)
        pz += w * _row(people.transforms, g, j, 8, x, y, z)
    return px, py, pz


@wp.func
def _row(transforms: A3, g: int, j: int, r: int, x: V, y: V, z: V) -> V:
    """A row of a transform, which starts at r, times [x, y, z, 1]."""
    a = transforms[g, j, r + 3] + m(transforms[g, j, r], x)
    return a + m(transforms[g, j, r + 1], y) + m(transforms[g, j, r + 2], z)


@wp.func
def pose_block(
    skin: SkinTables, people: SkinInputs, begin: int, g: int, end: int, b: int, s: int, t: int,
    scratch: SkinScratch,
):  # fmt: skip
    """Rest vertices and residuals of block b into slot s of scratch, for group g of a chunk begin..end."""
    rest_block(skin, people, begin, g, end, b, s, t, scratch)
    first = b * skin.size
    one_block = is_one_block(people.rows, g)
    for i in range(t, (vertices_of(skin, b) + 3) // 4, wp.block_dim()):
        for at in range(4 * i, 4 * i + 4):
            v = skin.vertices[first + at]
            x, y, z = posed(skin, people, g, first + at, scratch.rest, s, at)
            scratch.residual[s, at, 0] = x - target_at(people, g, one_block, v, 0)
            scratch.residual[s, at, 1] = y - target_at(people, g, one_block, v, 1)
            scratch.residual[s, at, 2] = z - target_at(people, g, one_block, v, 2)
