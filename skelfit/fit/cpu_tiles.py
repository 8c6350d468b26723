"""The vertex passes on a CPU: what `torch_tiles` does in a dozen operations, each in one loop over the vertices.

A vertex hangs on two joints on average and on five at most, so a loop that knows them does a tenth of the work of
dense tables, and nothing between reading a target vertex and adding it to the sums leaves the first-level cache.
People are the innermost dimension, which is what the compiler turns into vector instructions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.fit.compiled import Array, compiled
from skelfit.fit.plans import VertexBlock
from skelfit.fit.torch_tiles import shape_rows


def add_moments(
    block: VertexBlock,
    rest: Tensor,
    transforms: Tensor,
    target: Tensor,
    start: int,
    sums: Tensor,
    d: Tensor,
    value: Tensor,
) -> None:
    """As `torch_tiles.add_moments`."""
    t = block.hold
    scratch = _scratch(rest, target, start)
    _add_moments(
        rest.numpy(), transforms.numpy(), target.numpy(), start, t.vertices, t.first, t.joint, t.weight,
        t.om, t.position, t.pair, scratch, sums.numpy(), d.numpy(), value.numpy(),
    )  # fmt: skip


def add_errors(
    block: VertexBlock,
    rest: Tensor,
    transforms: Tensor,
    target: Tensor,
    start: int,
    found: Tensor,
    posed: Tensor | None,
) -> None:
    """As `torch_tiles.add_errors`."""
    t = block.hold
    scratch = _scratch(rest, target, start)
    out = np.empty((0, 3, 0), scratch.dtype) if posed is None else posed.numpy()
    _add_errors(
        rest.numpy(), transforms.numpy(), target.numpy(), start, t.vertices, t.first, t.joint, t.weight,
        scratch, found.numpy(), out,
    )  # fmt: skip


def add_levers(
    block: VertexBlock,
    rest: Tensor,
    transforms: Tensor,
    target: Tensor,
    start: int,
    lever: Tensor,
    products: Tensor,
    pull: Tensor,
) -> None:
    """As `torch_tiles.add_levers`."""
    t = block.hold
    scratch = _scratch(rest, target, start)
    shape = shape_rows(block, len(pull)).numpy()
    _add_levers(
        rest.numpy(), transforms.numpy(), target.numpy(), start, t.vertices, t.first, t.joint, t.weight, t.om,
        t.position, shape, scratch, np.empty((3, len(pull), scratch.shape[1]), scratch.dtype),
        lever.view(len(lever), 3, 4, len(pull), -1).numpy(), products.numpy(), pull.numpy(),
    )  # fmt: skip


def write_skin(block: VertexBlock, rest: Tensor, transforms: Tensor, start: int, skin: Tensor) -> None:
    """As `torch_tiles.write_skin`."""
    t = block.hold
    scratch = _scratch(rest, skin, start)
    _write_skin(
        rest.numpy(), transforms.numpy(), start, t.vertices, t.first, t.joint, t.weight, scratch, skin.numpy()
    )


def take_people(skin: Tensor, rows: Tensor) -> Tensor:
    """As `torch_tiles.take_people`, whose gathering of single numbers is six times slower here."""
    return torch.from_numpy(skin.numpy().take(rows.numpy(), axis=2))


def _scratch(rest: Tensor, of_all: Tensor, start: int) -> Array:
    """Room for what is known of one vertex of the tile's people, of which the last tile has fewer."""
    people = min(rest.shape[2], of_all.shape[2] - start)
    return np.empty((33, people), rest.numpy().dtype)


@compiled
def _blend(
    v: int, transforms: Array, start: int, first: Array, joint: Array, weight: Array, out: Array
) -> None:
    """The blended transform of vertex v of the block into out[:12]."""
    n = out.shape[1]
    for k in range(first[v], first[v + 1]):
        w = weight[k]
        for c in range(12):
            row = transforms[joint[k], c, start : start + n]
            into = out[c]
            if k == first[v]:
                for p in range(n):
                    into[p] = w * row[p]
            else:
                for p in range(n):
                    into[p] += w * row[p]


@compiled
def _pose(v: int, rest: Array, s: Array) -> None:
    """The posed vertex v into s[12:15], by the blended transform in s[:12]."""
    x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
    for r in range(3):
        t0, t1, t2, t3, into = s[4 * r], s[4 * r + 1], s[4 * r + 2], s[4 * r + 3], s[12 + r]
        for p in range(s.shape[1]):
            into[p] = t0[p] * x[p] + t1[p] * y[p] + t2[p] * z[p] + t3[p]


@compiled
def _subtract(target: Array, start: int, s: Array) -> None:
    """The posed vertex in s[12:15] minus target (3, B)."""
    n = s.shape[1]
    for r in range(3):
        row, into = target[r, start : start + n], s[12 + r]
        for p in range(n):
            into[p] -= row[p]


@compiled
def _lever(v: int, rest: Array, s: Array) -> None:
    """The products of the residual in s[12:15] with [rest, 1] into s[15:27]."""
    n = s.shape[1]
    for r in range(3):
        residual = s[12 + r]
        for c in range(3):
            into, row = s[15 + 4 * r + c], rest[v, c]
            for p in range(n):
                into[p] = residual[p] * row[p]
        into = s[15 + 4 * r + 3]
        for p in range(n):
            into[p] = residual[p]


@compiled
def _add_scaled(w: float, rows: Array, into: Array, start: int, n: int) -> None:
    """into[:, start : start + n] += w rows[:, :n]."""
    for c in range(rows.shape[0]):
        source, sink = rows[c], into[c, start : start + n]
        for p in range(n):
            sink[p] += w * source[p]


@compiled
def _copy(rows: Array, into: Array, start: int, n: int) -> None:
    """into[:, start : start + n] = rows[:, :n]."""
    for c in range(rows.shape[0]):
        source, sink = rows[c], into[c, start : start + n]
        for p in range(n):
            sink[p] = source[p]


@compiled
def _add_moments(
    rest: Array, transforms: Array, target: Array, start: int, vertices: Array, first: Array, joint: Array,
    weight: Array, om: Array, position: Array, pair: Array, s: Array, sums: Array, d: Array, value: Array,
) -> None:  # fmt: skip
    n = s.shape[1]
    for v in range(rest.shape[0]):
        _blend(v, transforms, start, first, joint, weight, s)
        _pose(v, rest, s)
        _subtract(target[vertices[v]], start, s)
        r0, r1, r2, energy = s[12], s[13], s[14], value[start : start + n]
        for p in range(n):
            energy[p] += om[v] * (r0[p] * r0[p] + r1[p] * r1[p] + r2[p] * r2[p])
        _lever(v, rest, s)
        x, y, z = rest[v, 0], rest[v, 1], rest[v, 2]
        xx, xy, xz, yy, yz, zz = s[27], s[28], s[29], s[30], s[31], s[32]
        for p in range(n):
            xx[p] = x[p] * x[p]
            xy[p] = x[p] * y[p]
            xz[p] = x[p] * z[p]
            yy[p] = y[p] * y[p]
            yz[p] = y[p] * z[p]
            zz[p] = z[p] * z[p]
        for k in range(first[v], first[v + 1]):
            a = position[joint[k]]
            if a < 0:
                continue
            _add_scaled(om[v] * weight[k], s[15:27], d[a], start, n)
            for m in range(first[v], first[v + 1]):
                b = position[joint[m]]
                if b >= a:
                    w = om[v] * weight[k] * weight[m]
                    into = sums[pair[a, b]]
                    _add_scaled(w, s[27:33], into, start, n)
                    _add_scaled(w, rest[v], into[6:], start, n)


@compiled
def _add_errors(
    rest: Array, transforms: Array, target: Array, start: int, vertices: Array, first: Array, joint: Array,
    weight: Array, s: Array, found: Array, posed: Array,
) -> None:  # fmt: skip
    n = s.shape[1]
    for v in range(rest.shape[0]):
        _blend(v, transforms, start, first, joint, weight, s)
        _pose(v, rest, s)
        if posed.shape[0]:
            _copy(s[12:15], posed[v], 0, n)
        _subtract(target[vertices[v]], start, s)
        r0, r1, r2 = s[12], s[13], s[14]
        total, square, largest = found[0, start:], found[1, start:], found[2, start:]
        for p in range(n):
            squared = r0[p] * r0[p] + r1[p] * r1[p] + r2[p] * r2[p]
            distance = np.sqrt(squared)
            total[p] += distance
            square[p] += squared
            # a distance that is not a number counts as the largest
            largest[p] = largest[p] if largest[p] >= distance else distance


@compiled
def _add_levers(
    rest: Array, transforms: Array, target: Array, start: int, vertices: Array, first: Array, joint: Array,
    weight: Array, om: Array, position: Array, shape: Array, s: Array, moves: Array, lever: Array,
    products: Array, pull: Array,
) -> None:  # fmt: skip
    n, betas = s.shape[1], shape.shape[2]
    for v in range(rest.shape[0]):
        _blend(v, transforms, start, first, joint, weight, s)
        _pose(v, rest, s)
        _subtract(target[vertices[v]], start, s)
        for r in range(3):
            t0, t1, t2, residual = s[4 * r], s[4 * r + 1], s[4 * r + 2], s[12 + r]
            for k in range(betas):
                x, y, z = om[v] * shape[v, 0, k], om[v] * shape[v, 1, k], om[v] * shape[v, 2, k]
                into, force = moves[r, k], pull[k, start : start + n]
                for p in range(n):
                    into[p] = t0[p] * x + t1[p] * y + t2[p] * z
                    force[p] += into[p] * residual[p]
        for k in range(betas):
            x, y, z = moves[0, k], moves[1, k], moves[2, k]
            for m in range(k, betas):
                total, a, b, c = products[k, m, start : start + n], moves[0, m], moves[1, m], moves[2, m]
                for p in range(n):
                    total[p] += (x[p] * a[p] + y[p] * b[p] + z[p] * c[p]) / om[v]
        x, y, z, l0, l1, l2 = rest[v, 0], rest[v, 1], rest[v, 2], s[15], s[16], s[17]
        for j in range(first[v], first[v + 1]):
            a, w = position[joint[j]], weight[j]
            if a < 0:
                continue
            for p in range(n):
                l0[p], l1[p], l2[p] = w * x[p], w * y[p], w * z[p]
            for r in range(3):
                _add_lever(w, l0, l1, l2, moves[r], lever[a, r], start)


@compiled
def _add_lever(w: float, x: Array, y: Array, z: Array, moves: Array, lever: Array, start: int) -> None:
    """lever (4, K, B)[..., start:] += [x, y, z, w] moves (K, n)."""
    n = moves.shape[1]
    for k in range(moves.shape[0]):
        move, i0, i1 = moves[k], lever[0, k, start : start + n], lever[1, k, start : start + n]
        i2, i3 = lever[2, k, start : start + n], lever[3, k, start : start + n]
        for p in range(n):
            i0[p] += x[p] * move[p]
            i1[p] += y[p] * move[p]
            i2[p] += z[p] * move[p]
            i3[p] += w * move[p]


@compiled
def _write_skin(
    rest: Array, transforms: Array, start: int, vertices: Array, first: Array, joint: Array, weight: Array,
    s: Array, skin: Array,
) -> None:  # fmt: skip
    n = s.shape[1]
    for v in range(rest.shape[0]):
        _blend(v, transforms, start, first, joint, weight, s)
        _pose(v, rest, s)
        _copy(s[12:15], skin[vertices[v]], start, n)
