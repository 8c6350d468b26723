"""The vertex passes, tile by tile, in plain torch: on any device; on a CPU `cpu_tiles` does the same, faster.

A tile is a block of Vb vertices of n people, people innermost, lengths in m. All functions take

    rest (Vb, 3, n)         rest skin, correctives included; its last columns may be nobody's
    transforms (24, 12, B)  skinning transforms [R | t], row by row, of all B people
    target (V, 3, B)        of all people
    start                   the tile's people are start..start+n of the B, as far as there are so many

and add to sums over all people. Many vertices share few joints, so the sparse sums are small dense products.
"""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.fit.plans import PRODUCTS, Rows, SkinBlock, VertexBlock

COLUMNS = 32  # of a matrix product on a CPU


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
    """Add to sums (P, 9, B), d (J, 12, B) and value (B,): the products of pairs, D0 and E0 of `moments`."""
    who, rest = _people(rest, target, start)
    size, _, n = rest.shape
    _, residual = _residual(block, rest, transforms, target, who)
    monomials = rest.new_empty(size, 9, n)
    for k, (a, b) in enumerate(PRODUCTS):
        torch.mul(rest[:, a], rest[:, b], out=monomials[:, k])
    monomials[:, 6:] = rest
    add_rows(sums, who, block.pair, monomials)
    add_rows(d, who, block.joint, _lever(rest, residual))
    value[who] += (block.om[:, None] * residual.square().sum(1)).sum(0)


def add_errors(
    block: VertexBlock,
    rest: Tensor,
    transforms: Tensor,
    target: Tensor,
    start: int,
    found: Tensor,
    posed: Tensor | None,
) -> None:
    """Distances into found (3, B): their sum, the sum of their squares, the largest; posed (Vb, 3, n) gets the skin."""
    who, rest = _people(rest, target, start)
    _, residual = _residual(block, rest, transforms, target, who)
    squared = residual.square().sum(1)
    found[0, who] += squared.sqrt().sum(0)
    found[1, who] += squared.sum(0)
    found[2, who] = torch.maximum(found[2, who], squared.amax(0).sqrt())
    if posed is not None:
        posed[..., : rest.shape[2]] = residual + target[block.vertices, :, who]


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
    """Add to lever (J, 12 K, B), products (K, K, B) and pull (K, B): the sums of `moments.Levers`.

    Of products only those on and above the diagonal are asked for.
    """
    who, rest = _people(rest, target, start)
    size, _, n = rest.shape
    blended, residual = _residual(block, rest, transforms, target, who)
    moves = torch.einsum("vrcn,vck->vrkn", blended[:, :, :3], shape_rows(block, len(pull)))
    h = torch.cat((rest, torch.ones_like(rest[:, :1])), 1)
    terms = (moves[:, :, None] * h[:, None, :, None]).reshape(size, -1, n)
    add_rows(lever, who, block.joint, terms)
    weighted = block.om[:, None, None, None] * moves
    products[..., who] += torch.einsum("vrkn,vrln->kln", weighted, moves)
    pull[:, who] += torch.einsum("vrkn,vrn->kn", weighted, residual)


def shape_rows(block: SkinBlock, betas: int) -> Tensor:
    """What betas move the rest skin by, (Vb, 3, betas)."""
    return block.basis[:, 1 : 1 + betas].view(-1, 3, betas)


def write_skin(block: SkinBlock, rest: Tensor, transforms: Tensor, start: int, skin: Tensor) -> None:
    """Write the posed vertices to skin (V, 3, B)."""
    who, rest = _people(rest, skin, start)
    skin[block.vertices, :, who] = _pose(_blend(block, transforms, who), rest)


def take_people(skin: Tensor, rows: Tensor) -> Tensor:
    """The skins (V, 3, K) of some people of (V, 3, B); rows (K,) int64."""
    return skin[..., rows]


def _people(rest: Tensor, of_all: Tensor, start: int) -> tuple[slice, Tensor]:
    who = slice(start, min(start + rest.shape[2], of_all.shape[2]))
    return who, rest[..., : who.stop - who.start]


def _blend(block: SkinBlock, transforms: Tensor, who: slice) -> Tensor:
    """Blended transforms (Vb, 3, 4, n)."""
    few = transforms[block.skin.index, :, who]
    return (block.skin.values.mT @ few.flatten(1)).view(-1, 3, 4, few.shape[-1])


def _pose(blended: Tensor, rest: Tensor) -> Tensor:
    posed = blended[:, :, 3].clone()
    for c in range(3):
        posed.addcmul_(blended[:, :, c], rest[:, c, None])
    return posed


def _residual(
    block: SkinBlock, rest: Tensor, transforms: Tensor, target: Tensor, who: slice
) -> tuple[Tensor, Tensor]:
    """Blended transforms (Vb, 3, 4, n), and posed skin minus target (Vb, 3, n)."""
    blended = _blend(block, transforms, who)
    return blended, _pose(blended, rest) - target[block.vertices, :, who]


def _lever(rest: Tensor, residual: Tensor) -> Tensor:
    """residual [rest, 1]^T, (Vb, 12, n)."""
    size, _, n = rest.shape
    lever = rest.new_empty(size, 3, 4, n)
    torch.mul(residual[:, :, None], rest[:, None], out=lever[:, :, :3])
    lever[:, :, 3] = residual
    return lever.flatten(1, 2)


def add_rows(total: Tensor, who: slice, rows: Rows, terms: Tensor) -> None:
    """Add a block's sums to total (N, k, B): rows of N, terms (Vb, k, n)."""
    sums = table_times(rows.values, terms.flatten(1))
    total[..., who].index_add_(0, rows.index, sums.view(-1, *terms.shape[1:]))


def table_times(table: Tensor, columns: Tensor) -> Tensor:
    """table (m, k) @ columns (k, n), where the columns are people's.

    Libraries choose how to add up by the shape of a product, and a person's result is not to depend on how many others
    there are. So on a CPU products are of 32 columns each, which is as fast as more.
    """
    if table.device.type != "cpu":
        return table @ columns
    product = columns.new_empty(len(table), columns.shape[1])
    for few, part in zip(columns.split(COLUMNS, 1), product.split(COLUMNS, 1), strict=True):
        torch.mm(table, few, out=part)
    return product
