"""The tables of the vertex passes: the vertices, the joints that hold them, and the sums they go into.

Vertices are sorted by the joints that hold them and cut into blocks. Few vertices of a block then add to few sums, and
each sum of a block is one item of work: a list of vertices with weights. Blocks are whole quads of vertices; the last
quad is filled with vertices that no joint holds and no list names.
"""

# Warp reads annotations of structs when it compiles, so that they cannot be postponed here.
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from skelfit.bodies.dofs import STAGE_JOINTS
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import NUM_SMPL_JOINTS, SmplModel

FloatArray = NDArray[np.floating[Any]]
IntArray = NDArray[np.int64]

_ACTIVE_SHARE = 0.1  # a vertex belongs to a body part whose joints hold at least this share of it

Quad: Any = wp.types.vector(length=12, dtype=float)


@wp.struct
class BlockSums:
    """Sparse sums over the vertices of each block: entry e of a block adds up listed vertices into sum `into[e]`."""

    first: wp.array(dtype=int)  # (blocks + 1,) where a block's entries start
    into: wp.array(dtype=int)  # (E,)
    start: wp.array(dtype=int)  # (E + 1,) where an entry's vertices start in the next two
    vertex: wp.array(dtype=int)  # (N,) counted from the block's first
    weight: wp.array(dtype=float)  # (N,)


@wp.struct
class SkinTables:
    """N vertices of a skin, sorted, in blocks of `size`."""

    size: int
    blocks: int
    count: int  # N
    basis: wp.array2d(dtype=Quad)  # (quads, k): v_rest = sum_k basis coefficients, 4 vertices x 3
    vertices: wp.array(dtype=int)  # (4 quads,) of the mesh
    first: wp.array(dtype=int)  # (4 quads + 1,) where a vertex' joints start in the next two
    joint: wp.array(dtype=int)  # (H,) of 24
    weight: wp.array(dtype=float)  # (H,) skinning weights
    om: wp.array(dtype=float)  # (4 quads,) weight of a vertex in the objective; they sum to 1
    drivers: wp.array(dtype=int)  # the joints whose local rotations drive correctives, in the basis' order
    active: wp.array(dtype=int)  # (J,) the joints that a stage moves
    mass: wp.array(dtype=float)  # (P,) sum of om w_a w_b of each pair
    pairs: BlockSums  # of the P pairs of active joints that share a vertex: om w_a w_b
    joints: BlockSums  # of the J active joints: om w_j
    points: BlockSums  # of points regressed from the skin: the regressor


@dataclass(frozen=True)
class SkinPlan:
    """The vertices and joints of a stage on one device."""

    skin: Any  # SkinTables
    joints: tuple[int, ...]  # (J,) active joints
    pairs: IntArray  # (P, 2) pairs of active joints, as positions, that share a vertex or are one
    vertices: IntArray  # (N,) of the mesh
    num_points: int


def part_vertices(weights: FloatArray, part: str, stride: int) -> IntArray:
    """Every stride-th of the vertices that a body part's joints hold a share of; weights (V, 24)."""
    if part == "all":
        return np.arange(0, len(weights), stride)
    share = weights[:, list(STAGE_JOINTS[part])].sum(1)
    return np.flatnonzero(share >= _ACTIVE_SHARE)[::stride]


def sorted_by_joint(weights: FloatArray, chosen: IntArray) -> IntArray:
    """The chosen vertices, those held by the same joints side by side."""
    strongest = np.argsort(-weights[chosen], axis=1, kind="stable")[:, :3]
    return chosen[np.lexsort(strongest.T[::-1])]


def stage_skin(
    model: SkelModel,
    dofs: str,
    vertices: str,
    stride: int,
    size: int,
    device: str = "cpu",
    points: FloatArray | None = None,
    relative: FloatArray | None = None,
) -> SkinPlan:
    """The tables of a stage that moves the DoFs of one body part against every stride-th vertex of one.

    size is vertices a block, a multiple of 4; points (K, V) regresses extra points from the whole skin; relative (V,)
    is how much each vertex counts, None: all alike.
    """
    weights = np.asarray(model.asset.skin_weights, dtype=np.float64)
    chosen = sorted_by_joint(weights, part_vertices(weights, vertices, stride))
    om = np.ones(len(weights)) if relative is None else np.asarray(relative, dtype=np.float64)
    regressor = np.zeros((0, len(weights))) if points is None else points
    return make_skin(
        _basis(model), weights, chosen, om / om[chosen].sum(), model.corrective_joints, STAGE_JOINTS[dofs],
        regressor, size, device,
    )  # fmt: skip


def smpl_skin(
    model: SmplModel, size: int, device: str = "cpu", stride: int = 1, joints: Iterable[int] = ()
) -> SkinPlan:
    """The tables of every stride-th vertex of SMPL's skin, which joints move; without joints it is posed only."""
    weights = np.asarray(model.asset.weights, dtype=np.float64)
    chosen = sorted_by_joint(weights, part_vertices(weights, "all", stride))
    return make_skin(
        _basis(model), weights, chosen, np.full(len(weights), 1 / len(chosen)), range(1, NUM_SMPL_JOINTS), joints,
        np.zeros((0, len(weights))), size, device,
    )  # fmt: skip


def _basis(model: SkelModel | SmplModel) -> FloatArray:
    """The basis (V, 3, k) of a model's rest skin: template, shape and pose components."""
    parts = (model.v_template[..., None], model.shapedirs, model.posedirs)
    return np.concatenate([p.cpu().numpy() for p in parts], -1)


def make_skin(
    basis: FloatArray,
    weights: FloatArray,
    chosen: IntArray,
    om: FloatArray,
    drivers: Iterable[int],
    joints: Iterable[int],
    points: FloatArray,
    size: int,
    device: str,
) -> SkinPlan:
    """The tables of the chosen vertices (N,), sorted, of a skin of V.

    basis (V, 3, k), weights (V, 24) of skinning, om (V,) of the objective, joints that drive correctives,
    active joints, regressor points (K, V).
    """
    if size % 4:
        raise ValueError(f"vertices of a block: expected a multiple of 4, found {size}")
    joints = tuple(joints)
    active = weights[np.ix_(chosen, np.array(joints, np.int64))]
    touching = (active > 0).astype(np.float64)
    # Each joint is a pair with itself, also where so few vertices are chosen that it holds none of them.
    a, b = np.nonzero(np.triu(touching.T @ touching + np.eye(len(joints))))
    mine = om[chosen]
    pairs = mine[:, None] * active[:, a] * active[:, b]
    vertex, joint = np.nonzero(weights[chosen])
    filled = len(chosen) + -len(chosen) % 4

    def floats(x: FloatArray) -> Any:
        return wp.array(np.ascontiguousarray(x, dtype=np.float32), dtype=float, device=device)

    def ints(x: FloatArray | IntArray) -> Any:
        return wp.array(np.ascontiguousarray(x, dtype=np.int32), dtype=int, device=device)

    skin = SkinTables()
    skin.size, skin.count = size, len(chosen)
    skin.blocks = -(-len(chosen) // size)
    skin.basis = wp.array(_quads(basis[chosen], filled), dtype=Quad, device=device)
    skin.vertices = ints(np.pad(chosen, (0, filled - len(chosen)), mode="edge"))
    skin.first = ints(np.searchsorted(vertex, np.arange(filled + 1)))
    skin.joint, skin.weight = ints(joint), floats(weights[chosen][vertex, joint])
    skin.om = floats(np.pad(mine, (0, filled - len(chosen))))
    skin.drivers = ints(np.array(list(drivers)))
    skin.active, skin.mass = ints(np.array(joints)), floats(pairs.sum(0))
    for name, table in (
        ("pairs", pairs),
        ("joints", mine[:, None] * active),
        ("points", points[:, chosen].T),
    ):
        setattr(skin, name, _sums(table, size, ints, floats))
    return SkinPlan(skin, joints, np.stack((a, b), 1), chosen, len(points))


def _quads(basis: FloatArray, filled: int) -> FloatArray:
    """Basis (N, 3, k) of vertices as (filled / 4, k, 12), quads of vertices innermost."""
    basis = np.pad(basis, ((0, filled - len(basis)), (0, 0), (0, 0)))
    quads = basis.reshape(filled // 4, 12, -1).transpose(0, 2, 1)
    return np.ascontiguousarray(quads, dtype=np.float32)


def _sums(table: FloatArray, size: int, ints: Any, floats: Any) -> Any:
    """Table (N, sums), what each vertex counts in each sum, as `Sums`; vertices of an entry in ascending order."""
    vertex, into = np.nonzero(table)
    block = vertex // size
    order = np.lexsort((vertex, into, block))
    vertex, into, block = vertex[order], into[order], block[order]
    entry = block * table.shape[1] + into
    start = np.flatnonzero(np.diff(entry, prepend=-1))
    sums = BlockSums()
    sums.first = ints(np.searchsorted(block[start], np.arange(-(-len(table) // size) + 1)))
    sums.into, sums.start = ints(into[start]), ints(np.append(start, len(vertex)))
    sums.vertex, sums.weight = ints(vertex % size), floats(table[vertex, into])
    return sums
