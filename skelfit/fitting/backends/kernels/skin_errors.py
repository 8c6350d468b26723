"""The vertex passes that do not fit: the target skins, and the distances of posed skins to them."""

import warp as wp

from skelfit.fitting.backends.skin_tables import SkinTables

from .lanes import A1, A3, L, V, m, square_root, sync
from .posing import PoseInputs, pose_people
from .skinning import (
    SkinInputs,
    SkinScratch,
    is_one_block,
    posed,
    rest_block,
    slot_of,
    target_at,
    vertices_of,
)

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.struct
class SkinErrors:
    """Distances of G groups' posed skins to their targets, pose correctives included, over N vertices."""

    mean: A1  # (G,) m
    mean_square: A1  # (G,) m^2
    largest: A1  # (G,) m; not a number if any distance is not finite
    points: A3  # (G, K, 3) m, regressed from the posed skin
    joints: A3  # (G, 24, 3) m


@wp.kernel
def target_skin(skin: SkinTables, people: SkinInputs, chunk: int, scratch: SkinScratch):
    """Posed skins into people.target; the rows of a group are one block of it."""
    c, t = wp.tid()
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for b in range(skin.blocks):
        first = b * skin.size
        for g in range(begin, end):
            s = slot_of(begin, g, c, scratch)
            rest_block(skin, people, begin, g, end, b, s, t, scratch)
            block = people.rows[g, 0] // wp.static(L)
            for i in range(t, (vertices_of(skin, b) + 3) // 4, wp.block_dim()):
                for at in range(4 * i, wp.min(4 * i + 4, vertices_of(skin, b))):
                    v = skin.vertices[first + at]
                    x, y, z = posed(skin, people, g, first + at, scratch.rest, s, at)
                    people.target[block, v, 0] = x
                    people.target[block, v, 1] = y
                    people.target[block, v, 2] = z


@wp.func
def _pose_block(
    skin: SkinTables, people: SkinInputs, begin: int, g: int, end: int, b: int, s: int, t: int,
    scratch: SkinScratch,
):  # fmt: skip
    """As `skinning.pose_block`, but with posed vertices instead of rest vertices."""
    rest_block(skin, people, begin, g, end, b, s, t, scratch)
    first = b * skin.size
    one_block = is_one_block(people.rows, g)
    for i in range(t, (vertices_of(skin, b) + 3) // 4, wp.block_dim()):
        for at in range(4 * i, 4 * i + 4):
            v = skin.vertices[first + at]
            x, y, z = posed(skin, people, g, first + at, scratch.rest, s, at)
            scratch.rest[s, at, 0] = x
            scratch.rest[s, at, 1] = y
            scratch.rest[s, at, 2] = z
            scratch.residual[s, at, 0] = x - target_at(people, g, one_block, v, 0)
            scratch.residual[s, at, 1] = y - target_at(people, g, one_block, v, 1)
            scratch.residual[s, at, 2] = z - target_at(people, g, one_block, v, 2)


@wp.func
def _add_distances(skin: SkinTables, g: int, b: int, s: int, scratch: SkinScratch, out: SkinErrors):
    """The distances of block b."""
    total = V()
    square = V()
    largest = out.largest[g]
    for v in range(vertices_of(skin, b)):
        x = scratch.residual[s, v, 0]
        y = scratch.residual[s, v, 1]
        z = scratch.residual[s, v, 2]
        squared = m(x, x) + m(y, y) + m(z, z)
        distance = square_root(squared)
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
def _add_point(skin: SkinTables, g: int, e: int, s: int, scratch: SkinScratch, out: SkinErrors):
    """Add entry e of a block to its regressed point."""
    for r in range(3):
        total = V()
        for k in range(skin.points.start[e], skin.points.start[e + 1]):
            total += skin.points.weight[k] * scratch.rest[s, skin.points.vertex[k], r]
        out.points[g, skin.points.into[e], r] = out.points[g, skin.points.into[e], r] + total


@wp.func
def _clear(g: int, t: int, out: SkinErrors):
    """Zero the sums of group g."""
    for i in range(t, out.points.shape[1], wp.block_dim()):
        for r in range(3):
            out.points[g, i, r] = V()
    if t == 0:
        out.mean[g] = V()
        out.mean_square[g] = V()
        out.largest[g] = V()


@wp.func
def _add_blocks(
    skin: SkinTables, people: SkinInputs, c: int, t: int, chunk: int, scratch: SkinScratch, out: SkinErrors
):
    """The distances and points of all blocks, for the groups of chunk c."""
    begin = c * chunk
    end = wp.min(begin + chunk, people.rows.shape[0])
    for b in range(skin.blocks):
        first = skin.points.first[b]
        n = skin.points.first[b + 1] - first
        for g in range(begin, end):
            s = slot_of(begin, g, c, scratch)
            _pose_block(skin, people, begin, g, end, b, s, t, scratch)
            sync()
            for i in range(t, n + 1, wp.block_dim()):
                if i < n:
                    _add_point(skin, g, first + i, s, scratch, out)
                else:
                    _add_distances(skin, g, b, s, scratch, out)
            sync()


@wp.kernel
def errors(
    skin: SkinTables, people: SkinInputs, posing: PoseInputs, chunk: int, scratch: SkinScratch, out: SkinErrors,
):  # fmt: skip
    """Distances, points and joints."""
    c, t = wp.tid()
    for g in range(c * chunk, wp.min(c * chunk + chunk, people.rows.shape[0])):
        pose_people(g, c % posing.angles.shape[0], t, skin, posing, people)
        for i in range(t, out.joints.shape[1], wp.block_dim()):
            for r in range(3):
                out.joints[g, i, r] = posing.joints.pos[c % posing.angles.shape[0], i, r]
        _clear(g, t, out)
    sync()
    _add_blocks(skin, people, c, t, chunk, scratch, out)


@wp.kernel
def posed_errors(skin: SkinTables, people: SkinInputs, chunk: int, scratch: SkinScratch, out: SkinErrors):
    """Distances and points of people whose coefficients and transforms are there already."""
    c, t = wp.tid()
    for g in range(c * chunk, wp.min(c * chunk + chunk, people.rows.shape[0])):
        _clear(g, t, out)
    sync()
    _add_blocks(skin, people, c, t, chunk, scratch, out)
