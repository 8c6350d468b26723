"""What a vertex pass reads of SKEL people, from their angles and betas."""

import warp as wp

from skelfit.fit.body_tables import Body
from skelfit.fit.skin_tables import Skin

from .chain import pose
from .lanes import A2, A3, F2, V, m, sync, take
from .place import Place
from .shape import shape_joints
from .skin import Skinned

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def write_skinned(g: int, s: int, t: int, betas: A2, skin: Skin, body: Body, place: Place, people: Skinned):
    """Coefficients and transforms of group g, whose betas (S, K) and posed joints are in slot s."""
    for j in range(t, 24, wp.block_dim()):
        for r in range(3):
            x = place.rot[s, j, 3 * r]
            y = place.rot[s, j, 3 * r + 1]
            z = place.rot[s, j, 3 * r + 2]
            people.transforms[g, j, 4 * r] = x
            people.transforms[g, j, 4 * r + 1] = y
            people.transforms[g, j, 4 * r + 2] = z
            turned = m(x, place.rest[s, j, 0]) + m(y, place.rest[s, j, 1]) + m(z, place.rest[s, j, 2])
            people.transforms[g, j, 4 * r + 3] = place.pos[s, j, r] - turned
    n = betas.shape[1]
    for i in range(t, 1 + n, wp.block_dim()):
        if i == 0:
            people.coefficients[g, 0] = V(1.0)
        else:
            people.coefficients[g, i] = betas[s, i - 1]
    for i in range(t, 9 * skin.drivers.shape[0], wp.block_dim()):
        j = skin.drivers[i // 9]
        people.coefficients[g, 1 + n + i] = _feature(place.rot, s, j, body.parents[j], (i % 9) // 3, i % 3)


@wp.func
def _feature(rot: A3, s: int, j: int, up: int, r: int, c: int) -> V:
    """Entry (r, c) of R_up^T R_j - I, the parent's rotation I if there is none."""
    x = rot[s, j, 3 * r + c]
    if up >= 0:
        x = m(rot[s, up, r], rot[s, j, c]) + m(rot[s, up, 3 + r], rot[s, j, 3 + c])
        x += m(rot[s, up, 6 + r], rot[s, j, 6 + c])
    if r == c:
        x -= V(1.0)
    return x


@wp.kernel
def stand(q: F2, betas: F2, skin: Skin, body: Body, angles: A2, shapes: A2, place: Place, people: Skinned):
    """From q (B, 46) and betas (B, K). Scratch of S slots: angles (S, 46), shapes (S, K), place."""
    g, t = wp.tid()
    s = g % angles.shape[0]
    for i in range(t, q.shape[1], wp.block_dim()):
        angles[s, i] = take(q, people.rows, g, i)
    for i in range(t, betas.shape[1], wp.block_dim()):
        shapes[s, i] = take(betas, people.rows, g, i)
    sync()
    shape_joints(s, t, shapes, body, place)
    pose(s, t, angles, body, place)
    write_skinned(g, s, t, shapes, skin, body, place, people)
