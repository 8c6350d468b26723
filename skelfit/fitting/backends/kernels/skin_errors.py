"""The vertex passes that fit nothing: the skins that people are fitted to, and how far a posed skin is from them."""

import warp as wp

from skelfit.fitting.backends.skin_tables import Skin

from .lanes import A1, A3, L, V, m, root, sync
from .posing import Posing, stand
from .skinning import Room, Skinned, posed, rest_block, slot_of, target_at, together, vertices_of

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class Errors:
    """Distances of G groups' posed skins to their targets, pose correctives included, over N vertices."""

    mean: A1  # (G,) m
    mean_square: A1  # (G,) m^2
    largest: A1  # (G,) m; not a number if any distance is not finite
    points: A3  # (G, K, 3) m, regressed from the posed skin
    joints: A3  # (G, 24, 3) m


@wp.kernel
def target_skin(skin: Skin, people: Skinned, chunk: int, room: Room):
    """Posed skins into people.target; the rows of a group are one block of it."""
    c, t = wp.tid()
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for b in range(skin.blocks):
        first = b * skin.size
        for g in range(begin, end):
            s = slot_of(begin, g, c, room)
            rest_block(skin, people, begin, g, end, b, s, t, room)
            block = people.rows[g, 0] // wp.static(L)
            for i in range(t, (vertices_of(skin, b) + 3) // 4, wp.block_dim()):
                for at in range(4 * i, wp.min(4 * i + 4, vertices_of(skin, b))):
                    v = skin.vertices[first + at]
                    x, y, z = posed(skin, people, g, first + at, room.rest, s, at)
                    people.target[block, v, 0] = x
                    people.target[block, v, 1] = y
                    people.target[block, v, 2] = z


@wp.func
def _pose_block(
    skin: Skin, people: Skinned, begin: int, g: int, end: int, b: int, s: int, t: int, room: Room
):
    """As `skin.pose_block`, but posed vertices in place of rest ones."""
    rest_block(skin, people, begin, g, end, b, s, t, room)
    first = b * skin.size
    one = together(people.rows, g)
    for i in range(t, (vertices_of(skin, b) + 3) // 4, wp.block_dim()):
        for at in range(4 * i, 4 * i + 4):
            v = skin.vertices[first + at]
            x, y, z = posed(skin, people, g, first + at, room.rest, s, at)
            room.rest[s, at, 0] = x
            room.rest[s, at, 1] = y
            room.rest[s, at, 2] = z
            room.residual[s, at, 0] = x - target_at(people, g, one, v, 0)
            room.residual[s, at, 1] = y - target_at(people, g, one, v, 1)
            room.residual[s, at, 2] = z - target_at(people, g, one, v, 2)


@wp.func
def _add_distances(skin: Skin, g: int, b: int, s: int, room: Room, out: Errors):
    """The distances of block b."""
    total = V()
    square = V()
    largest = out.largest[g]
    for v in range(vertices_of(skin, b)):
        x = room.residual[s, v, 0]
        y = room.residual[s, v, 1]
        z = room.residual[s, v, 2]
        squared = m(x, x) + m(y, y) + m(z, z)
        distance = root(squared)
        total += distance
        square += squared
        largest = wp.max(largest, distance)
    share = 1.0 / float(skin.count)
    mean = out.mean[g] + share * total
    out.mean[g] = mean
    out.mean_square[g] = out.mean_square[g] + share * square
    # A comparison loses what is not a number, a sum keeps it.
    out.largest[g] = largest + (mean - mean)


@wp.func
def _add_point(skin: Skin, g: int, e: int, s: int, room: Room, out: Errors):
    """What block entries add to one regressed point."""
    for r in range(3):
        total = V()
        for k in range(skin.points.start[e], skin.points.start[e + 1]):
            total += skin.points.weight[k] * room.rest[s, skin.points.vertex[k], r]
        out.points[g, skin.points.into[e], r] = out.points[g, skin.points.into[e], r] + total


@wp.kernel
def errors(skin: Skin, people: Skinned, posing: Posing, chunk: int, room: Room, out: Errors):
    """Distances, points and joints."""
    c, t = wp.tid()
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for g in range(begin, end):
        stand(g, c % posing.angles.shape[0], t, skin, posing, people)
        for i in range(t, out.joints.shape[1], wp.block_dim()):
            for r in range(3):
                out.joints[g, i, r] = posing.place.pos[c % posing.angles.shape[0], i, r]
        for i in range(t, out.points.shape[1], wp.block_dim()):
            for r in range(3):
                out.points[g, i, r] = V()
        if t == 0:
            out.mean[g] = V()
            out.mean_square[g] = V()
            out.largest[g] = V()
    sync()
    for b in range(skin.blocks):
        first = skin.points.first[b]
        n = skin.points.first[b + 1] - first
        for g in range(begin, end):
            s = slot_of(begin, g, c, room)
            _pose_block(skin, people, begin, g, end, b, s, t, room)
            sync()
            for i in range(t, n + 1, wp.block_dim()):
                if i < n:
                    _add_point(skin, g, first + i, s, room, out)
                else:
                    _add_distances(skin, g, b, s, room, out)
            sync()
