"""People of a group as a vertex pass needs them: from angles and betas to skinning transforms and coefficients."""

from typing import Any

import warp as wp

from skelfit.body.dofs import NUM_DOFS
from skelfit.fit.body_tables import NUM_BETAS, Body

from .chain import pose
from .lanes import A2, F2, V, sync, take
from .place import Place, make_place
from .shape import shape_joints
from .skin import Skinned, place

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class Posing:
    """Where B people are, and room for a group's joints in each of S slots."""

    q: F2  # (B, 46) rad
    betas: F2  # (B, K)
    trans: F2  # (B, 3) m
    body: Body
    place: Place
    angles: A2  # (S, 46)
    shape: A2  # (S, K)


def make_posing(slots: int, body: Any, q: Any, betas: Any, trans: Any, device: str) -> Any:
    """Room for so many groups."""
    posing = Posing()
    posing.q, posing.betas, posing.trans, posing.body = q, betas, trans, body
    posing.place = make_place(slots, device)
    posing.angles = wp.empty((slots, NUM_DOFS), dtype=V, device=device)
    posing.shape = wp.empty((slots, NUM_BETAS), dtype=V, device=device)
    return posing


@wp.func
def stand(g: int, s: int, t: int, posing: Posing, people: Skinned):
    """Coefficients and transforms of the people of group g; their joints stay in slot s of `posing.place`."""
    for i in range(t, posing.angles.shape[1], wp.block_dim()):
        posing.angles[s, i] = take(posing.q, people.rows, g, i)
    for i in range(t, posing.shape.shape[1], wp.block_dim()):
        posing.shape[s, i] = take(posing.betas, people.rows, g, i)
    for i in range(t, 3, wp.block_dim()):
        posing.place.trans[s, i] = take(posing.trans, people.rows, g, i)
    sync()
    shape_joints(s, t, posing.shape, posing.body, posing.place)
    pose(s, t, posing.angles, posing.body, posing.place)
    place(
        g, s, t, posing.place.rot, posing.place.pos, posing.place.rest, posing.body.parents, posing.body.drivers,
        posing.shape, people,
    )  # fmt: skip
    sync()
