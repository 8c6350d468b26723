"""The constant tables of a stage: which vertices and joints take part, and how they hang together.

Vertices are sorted by the joints that hold them and cut into small blocks: a block's tables then have few columns, so
the sparse sums of the vertex pass become small dense matrix products that stay in the cache.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.body.dofs import DOF_JOINT, STAGE_JOINTS, descendants, turns
from skelfit.body.kinematics import SLIDE_PAIRS
from skelfit.body.skel import SkelModel

IntArray = NDArray[np.int64]
FloatArray = NDArray[np.floating[Any]]

_ACTIVE_SHARE = 0.1  # a vertex belongs to a body part whose joints hold at least this share of it
# (joints that own the DoFs, joints that these move): root, legs, trunk, arms. Both are runs of neighbours.
_CHAINS = (
    (range(1), range(24)),
    (range(1, 6), range(1, 6)),
    (range(6, 11), range(6, 11)),
    (range(11, 14), range(11, 24)),
    (range(14, 19), range(14, 19)),
    (range(19, 24), range(19, 24)),
)
# Products of v_rest's coordinates whose sums make up the moments.
PRODUCTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2))


@dataclass(frozen=True)
class Rows:
    """A table of which only some rows are not zero."""

    index: Tensor  # (k,) int64, which
    values: Tensor  # (k, Vb)


@dataclass(frozen=True)
class Points:
    """What some of a block's vertices add to points regressed from the skin."""

    vertices: Tensor  # (c,) int64, of the Vb
    rows: Rows  # of the K points: their regressor's columns of these vertices


@dataclass(frozen=True)
class Hold:
    """The joints that hold each of Vb vertices, as lists: numpy arrays for `cpu_tiles`."""

    vertices: IntArray  # (Vb,)
    first: IntArray  # (Vb + 1,) where a vertex' joints start in the next two
    joint: IntArray  # (K,) of 24
    weight: FloatArray  # (K,) skinning weights
    om: FloatArray  # (Vb,) weight of the vertex in the objective
    position: IntArray  # (24,) of a joint among the active ones; -1: not active
    pair: IntArray  # (J, J) number of the pair of active joints a <= b


@dataclass(frozen=True)
class SkinBlock:
    """The tables of Vb vertices of a skin."""

    vertices: Tensor  # (Vb,) int64
    basis: Tensor  # (3 Vb, 1 + betas + correctives): v_rest = basis @ [1, betas, corrective feature]
    skin: Rows  # of 24: skinning weights
    hold: Hold


@dataclass(frozen=True)
class VertexBlock(SkinBlock):
    """The tables of Vb vertices of a stage."""

    om: Tensor  # (Vb,) weight of the vertex in the objective; those of a plan sum to 1
    joint: Rows  # of the J active joints: om w_j
    pair: Rows  # of the P pairs of active joints that share a vertex: om w_j w_k
    points: Points | None  # None: it adds nothing to any


@dataclass(frozen=True)
class Chain:
    """A limb or the trunk, as positions among a plan's DoFs and joints: its DoFs move no other joints than these."""

    dofs: slice
    joints: slice
    subtree: Tensor  # (n, 1, J, 1) of the chain: 1 where the DoF moves the joint

    @property
    def columns(self) -> slice:
        """Of the chain's joints in the 4J columns of the transforms."""
        return slice(4 * self.joints.start, 4 * self.joints.stop)


@dataclass(frozen=True)
class Plan:
    """What a stage's passes share for all people: its DoFs, joints, vertices and tables."""

    dofs: Tensor  # (n,) int64, active DoFs
    joints: list[int]  # (J,) active joints
    num_vertices: int
    num_points: int
    blocks: tuple[VertexBlock, ...]
    chains: tuple[Chain, ...]
    pair_mass: Tensor  # (P,) sum of om w_j w_k
    pairs: IntArray  # (P, 2) pairs of active joints, as positions, that share a vertex
    turns: Tensor  # (n, n) 1 where DoF i turns the axis of DoF j, else 0
    alike: Tensor  # (n, n) 1 where it does and both are of one joint
    slides: Tensor  # (K, 3) int64: which of SLIDE_PAIRS, and its two DoFs as positions
    fill: Tensor  # ((4J)^2,) where in [pair sums, 0] each entry of M stands
    people: int  # people per tile

    @property
    def vertices(self) -> Tensor:
        """The plan's vertices, (num_vertices,) int64."""
        return torch.cat([b.vertices for b in self.blocks])


def part_vertices(weights: np.ndarray, part: str, stride: int) -> np.ndarray:
    """Every stride-th of the vertices that a body part's joints hold a share of; weights (V, 24)."""
    if part == "all":
        return np.arange(0, len(weights), stride)
    share = weights[:, list(STAGE_JOINTS[part])].sum(1)
    return np.flatnonzero(share >= _ACTIVE_SHARE)[::stride]


def make_plan(
    model: SkelModel,
    dofs: str,
    vertices: str,
    stride: int,
    tile: tuple[int, int],
    points: np.ndarray | None = None,
    relative: np.ndarray | None = None,
) -> Plan:
    """Tables of a stage that moves the DoFs of one body part against the vertices of one.

    tile is (vertices, people) per block; points (K, V) regresses extra points from the whole skin; relative (V,) is how
    much each vertex counts, None: all alike.
    """
    device, dtype = model.v_template.device, model.v_template.dtype
    weights = np.asarray(model.asset.skin_weights, dtype=np.float64)
    chosen = _sorted_by_joint(weights, part_vertices(weights, vertices, stride))
    joints = list(STAGE_JOINTS[dofs])
    om = np.ones(len(weights)) if relative is None else relative
    om = om / om[chosen].sum()
    active = weights[:, joints]
    touching = (active[chosen] > 0).astype(np.float64)
    first, second = np.nonzero(np.triu(touching.T @ touching))
    pairs = active[:, first] * active[:, second]
    basis = torch.cat((model.v_template[..., None], model.shapedirs, model.posedirs), -1)

    position = np.full(weights.shape[1], -1)
    position[joints] = np.arange(len(joints))
    pair = np.zeros((len(joints), len(joints)), dtype=np.int64)
    pair[first, second] = np.arange(len(first))

    def rows(table: np.ndarray) -> Rows:
        return _rows(table, device, dtype)

    blocks = []
    for start in range(0, len(chosen), tile[0]):
        mine = chosen[start : start + tile[0]]
        skin = skin_block(mine, basis, weights, om[mine], position, pair)
        blocks.append(
            VertexBlock(
                **vars(skin),
                om=torch.tensor(skin.hold.om, device=device, dtype=dtype),
                joint=rows(om[mine] * active[mine].T),
                pair=rows(om[mine] * pairs[mine].T),
                points=None if points is None else _points(points[:, mine], device, dtype),
            )
        )
    free = [i for i, j in enumerate(DOF_JOINT) if j in joints]
    owner = np.array(DOF_JOINT)[free]
    slides = [(k, free.index(i), free.index(j)) for k, (i, j) in enumerate(SLIDE_PAIRS) if i in free]
    return Plan(
        dofs=torch.tensor(free, device=device),
        joints=joints,
        num_vertices=len(chosen),
        num_points=0 if points is None else len(points),
        blocks=tuple(blocks),
        chains=tuple(_chain(joints, c, device, dtype) for c in _CHAINS if c[0][0] in joints),
        pair_mass=torch.tensor(om[chosen] @ pairs[chosen], device=device, dtype=dtype),
        pairs=np.stack((first, second), 1),
        turns=torch.tensor(turns(free), device=device, dtype=dtype),
        alike=torch.tensor(turns(free) & (owner[:, None] == owner), device=device, dtype=dtype),
        slides=torch.tensor(slides, device=device, dtype=torch.int64).view(-1, 3),
        fill=torch.tensor(_fill_table(first, second, len(joints)), device=device),
        people=tile[1],
    )


def skin_block(
    vertices: IntArray, basis: Tensor, weights: FloatArray, om: FloatArray, position: IntArray, pair: IntArray
) -> SkinBlock:
    """The tables of some vertices (Vb,) of a skin of basis (V, 3, k) and skinning weights (V, 24)."""
    index = torch.tensor(vertices, device=basis.device)
    mine = weights[vertices]
    vertex, joint = np.nonzero(mine)
    kind = np.float64 if basis.dtype == torch.float64 else np.float32
    return SkinBlock(
        vertices=index,
        basis=basis[index].flatten(0, 1).contiguous(),
        skin=_rows(mine.T, basis.device, basis.dtype),
        hold=Hold(
            vertices=np.ascontiguousarray(vertices),
            first=np.searchsorted(vertex, np.arange(len(mine) + 1)),
            joint=joint,
            weight=mine[vertex, joint].astype(kind),
            om=om.astype(kind),
            position=position,
            pair=pair,
        ),
    )


def skin_blocks(basis: Tensor, weights: FloatArray, size: int) -> tuple[SkinBlock, ...]:
    """The blocks of a whole skin that is only posed, not fitted."""
    order = _sorted_by_joint(weights, np.arange(len(weights)))
    cuts = [order[k : k + size] for k in range(0, len(order), size)]
    inactive, no_pairs = np.full(weights.shape[1], -1), np.zeros((0, 0), dtype=np.int64)
    return tuple(skin_block(c, basis, weights, np.zeros(len(c)), inactive, no_pairs) for c in cuts)


def _points(regressor: np.ndarray, device: torch.device, dtype: torch.dtype) -> Points | None:
    """Of a block, regressor (K, Vb)."""
    mine = np.flatnonzero((regressor != 0).any(0))
    if len(mine) == 0:
        return None
    return Points(torch.tensor(mine, device=device), _rows(regressor[:, mine], device, dtype))


def _rows(table: np.ndarray, device: torch.device, dtype: torch.dtype) -> Rows:
    index = np.flatnonzero((table != 0).any(1))
    return Rows(torch.tensor(index, device=device), torch.tensor(table[index], device=device, dtype=dtype))


def _sorted_by_joint(weights: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The chosen vertices, those held by the same joints side by side."""
    strongest = np.argsort(-weights[chosen], axis=1, kind="stable")[:, :3]
    return chosen[np.lexsort(strongest.T[::-1])]


def _chain(joints: list[int], chain: tuple[range, range], device: torch.device, dtype: torch.dtype) -> Chain:
    owners, moved = chain
    position = {j: k for k, j in enumerate(joints)}
    active = [i for i, j in enumerate(DOF_JOINT) if j in joints]
    mine = [i for i in active if DOF_JOINT[i] in owners]
    below = [descendants(DOF_JOINT[i]) for i in mine]
    subtree = torch.tensor([[float(j in b) for j in moved] for b in below], device=device, dtype=dtype)
    first, start = active.index(mine[0]), position[moved[0]]
    return Chain(slice(first, first + len(mine)), slice(start, start + len(moved)), subtree[:, None, :, None])


def _fill_table(first: np.ndarray, second: np.ndarray, joints: int) -> np.ndarray:
    """Index of each entry of M in the flattened sums (10 of each pair, then a zero)."""
    entry = np.empty((4, 4), dtype=np.int64)
    for k, (a, b) in enumerate(PRODUCTS):
        entry[a, b] = entry[b, a] = k
    entry[3, :3] = entry[:3, 3] = (6, 7, 8)
    entry[3, 3] = 9
    table = np.full((joints, 4, joints, 4), 10 * len(first), dtype=np.int64)
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        table[a, :, b, :] = table[b, :, a, :] = 10 * p + entry
    return table.reshape(-1)
