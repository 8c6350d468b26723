"""The variables of a stage and the tree of its joints, as tables for the kernels `quadratic` and `objective`.

Second moments are kept only for the pairs of subtrees that an entry of the matrix needs: each is a *cell*. They are
made by a program of sums: cells of pairs of joints first, then, level by level up the tree, cells that are sums of
others. The tables are lists, so that the threads of a GPU can share the work of a level.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_JOINT, SKEL_PARENTS, STAGE_JOINTS, axis_dependence
from skelfit.bodies.kinematics import SLIDE_PAIRS
from skelfit.fitting.terms.spine_coupling import coupled

IntArray = NDArray[np.int64]


@wp.struct
class IndexLists:
    """Lists of numbers in one array: list k is indices[first[k] : first[k + 1]]."""

    first: wp.array(dtype=int)
    indices: wp.array(dtype=int)


@wp.struct
class LevelSums:
    """Sums by level: those of level l are first[l] .. first[l + 1]; each adds its sources to its target."""

    levels: int
    first: wp.array(dtype=int)
    target: wp.array(dtype=int)
    sources: IndexLists


@wp.struct
class StageVariables:
    """The J active joints, the n active DoFs and the P pairs of joints that share vertices, of a stage."""

    num_joints: int
    num_dofs: int
    num_pairs: int
    num_slides: int
    num_cells: int
    joints: wp.array(dtype=int)  # (J,) of SKEL's 24
    dofs: wp.array(dtype=int)  # (n,) of the 46
    owner: wp.array(dtype=int)  # (n,) position of the DoF's joint
    limits: wp.array2d(dtype=float)  # (n, 2) rad
    pairs: wp.array2d(dtype=int)  # (P, 2) a <= b, positions
    near: IndexLists  # of each joint, the pairs it is in: 2 pair + (1 where it is the second of two)
    up: LevelSums  # of joints, each adds its children
    cells: wp.array2d(dtype=int)  # (J, J) number of the cell of two subtrees; -1: they share nothing
    pair_cells: wp.array2d(dtype=int)  # (P, 2) cells of the joints (a, b) and (b, a) alone; -1: not needed
    empty: wp.array(dtype=int)  # cells that begin at zero
    cell_sums: LevelSums
    # (n, n) 1 where DoF i turns the axis of DoF j, 2 where both are of one joint too
    turns: wp.array2d(dtype=int)
    slides: wp.array2d(dtype=int)  # (K, 3) which of SLIDE_PAIRS, and its two DoFs
    targets: wp.array2d(dtype=int)  # (R, 3) joints with a target: position, its own pair, row of the targets
    num_targets: int
    couplings: IndexLists  # of each linear form, its variables
    factors: wp.array(dtype=float)  # m per rad, of these variables
    num_couplings: int


@dataclass(frozen=True)
class JointTree:
    """A stage's joints and DoFs, on the host."""

    joints: tuple[int, ...]  # (J,) active, parents first
    dofs: tuple[int, ...]  # (n,) active
    pairs: IntArray  # (P, 2) pairs of active joints, as positions a <= b, that share a vertex
    parents: tuple[int, ...] = SKEL_PARENTS  # of all joints; -1: none
    dof_joint: tuple[int, ...] = DOF_JOINT  # of all DoFs

    @property
    def above(self) -> list[int]:
        """(J,) position of the next active joint above; -1: none."""
        position = {j: k for k, j in enumerate(self.joints)}
        above = []
        for j in self.joints:
            up = self.parents[j]
            while up >= 0 and up not in position:
                up = self.parents[up]
            above.append(position.get(up, -1))
        return above

    @property
    def below(self) -> NDArray[np.bool_]:
        """(J, J) whether the second joint is in the subtree of the first."""
        below = np.eye(len(self.joints), dtype=bool)
        for k, up in enumerate(self.above):
            if up >= 0:
                below[:, k] |= below[:, up]
        return below

    @property
    def owner(self) -> list[int]:
        """(n,) position of each DoF's joint."""
        return [self.joints.index(self.dof_joint[i]) for i in self.dofs]

    @property
    def depth(self) -> list[int]:
        """(J,) below the highest active joint."""
        depth: list[int] = []
        for up in self.above:
            depth.append(0 if up < 0 else depth[up] + 1)
        return depth


def make_tree(part: str, pairs: IntArray) -> JointTree:
    """The tree of a body part; pairs (P, 2) as positions among its joints."""
    joints = tuple(STAGE_JOINTS[part])
    dofs = tuple(i for i, j in enumerate(DOF_JOINT) if j in joints)
    return JointTree(joints, dofs, pairs)


def make_ball_tree(parents: tuple[int, ...], pairs: IntArray) -> JointTree:
    """The tree of a body of J ball joints, each with three DoFs; parents (J,), pairs (P, 2)."""
    dof_joint = tuple(j for j in range(len(parents)) for _ in range(3))
    return JointTree(tuple(range(len(parents))), tuple(range(len(dof_joint))), pairs, parents, dof_joint)


class _Tables:
    """Makes tables on a device of Warp."""

    def __init__(self, device: str) -> None:
        self.device = device

    def ints(self, numbers: Iterable[Any], *shape: int) -> Any:
        array = np.ascontiguousarray(np.asarray(list(numbers), dtype=np.int32).reshape(shape or (-1,)))
        return wp.array(array, dtype=int, ndim=array.ndim, device=self.device)

    def floats(self, numbers: NDArray[Any]) -> Any:
        return wp.array(numbers.astype(np.float32), device=self.device)

    def lists(self, lists: Sequence[Sequence[int]]) -> Any:
        table = IndexLists()
        table.first = self.ints(np.cumsum([0, *map(len, lists)]))
        table.indices = self.ints([x for numbers in lists for x in numbers])
        return table

    def sums(self, levels: Sequence[dict[int, list[int]]]) -> Any:
        table = LevelSums()
        table.levels = len(levels)
        table.first = self.ints(np.cumsum([0, *map(len, levels)]))
        table.target = self.ints([target for level in levels for target in level])
        table.sources = self.lists([sources for level in levels for sources in level.values()])
        return table


def tree_variables(tree: JointTree, device: str) -> StageVariables:
    """The tables of a tree of joints, without limits, slides, targets and couplings: `quadratic` needs no more."""
    make, count = _Tables(device), len(tree.joints)
    program = moment_program(tree)
    v = StageVariables()
    v.num_joints, v.num_dofs, v.num_pairs = count, len(tree.dofs), len(tree.pairs)
    v.num_cells = program.count
    v.joints, v.dofs, v.owner = make.ints(tree.joints), make.ints(tree.dofs), make.ints(tree.owner)
    v.pairs = make.ints(tree.pairs, -1, 2)
    v.near = make.lists(
        [
            [2 * p + int(b == k and a != k) for p, (a, b) in enumerate(tree.pairs) if k in (a, b)]
            for k in range(count)
        ]
    )
    v.up = make.sums(_sums_up(tree))
    v.cells = make.ints(program.cells, count, count)
    v.pair_cells, v.empty = make.ints(program.pair_cells, -1, 2), make.ints(program.empty)
    v.cell_sums = make.sums(program.levels)
    return v


def make_variables(
    tree: JointTree, limits: NDArray[Any], joint_targets: Sequence[int], couplings: NDArray[Any], device: str
) -> StageVariables:
    """The tables of a stage.

    limits (46, 2) rad; joint_targets: the SKEL joints with a target, in the order of the targets; couplings (K, 46):
    linear forms of the angles, m per rad.
    """
    make, n = _Tables(device), len(tree.dofs)
    slides = [
        (k, tree.dofs.index(i), tree.dofs.index(j)) for k, (i, j) in enumerate(SLIDE_PAIRS) if i in tree.dofs
    ]
    own = {a: p for p, (a, b) in enumerate(tree.pairs.tolist()) if a == b}
    targets = [(tree.joints.index(j), row) for row, j in enumerate(joint_targets) if j in tree.joints]
    turned = axis_dependence(list(tree.dofs)).astype(int)
    alike = np.equal.outer(tree.owner, tree.owner)
    v = tree_variables(tree, device)
    v.num_slides, v.num_targets = len(slides), len(targets)
    v.limits = make.floats(limits[list(tree.dofs)])
    v.turns = make.ints(turned * (1 + alike), n, n)
    v.slides = make.ints(slides, -1, 3)
    v.targets = make.ints([(k, own[k], row) for k, row in targets], -1, 3)
    forms = coupled(couplings, tree.dofs)[:, tree.dofs]
    v.couplings, v.num_couplings = make.lists([np.flatnonzero(form).tolist() for form in forms]), len(forms)
    v.factors = make.floats(forms[forms != 0])
    return v


def _sums_up(tree: JointTree) -> list[dict[int, list[int]]]:
    """The children that each joint adds, deepest parents first."""
    children: dict[int, list[int]] = {}
    for k, up in enumerate(tree.above):
        if up >= 0:
            children.setdefault(up, []).append(k)
    depth = tree.depth
    levels = sorted({depth[k] for k in children}, reverse=True)
    return [{k: children[k] for k in sorted(children) if depth[k] == level} for level in levels]


@dataclass(frozen=True)
class MomentProgram:
    """The sums that give the second moments of pairs of subtrees."""

    count: int  # cells
    cells: IntArray  # (J, J) of subtree k and subtree l, k <= l where both have DoFs; -1: not needed or nothing there
    pair_cells: IntArray  # (P, 2)
    empty: list[int]
    levels: list[dict[int, list[int]]]  # cell -> cells that are added to it


def moment_program(tree: JointTree) -> MomentProgram:
    """The sums that make N_kl = sum over a below k, b below l of M_ab from M_ab: first over b, then over a.

    A cell (k, l) holds M_kl first, then the sum over the subtree of l, then N_kl. Each level reads the cells of
    children, which the levels before have completed.
    """
    count, above, depth = len(tree.joints), tree.above, tree.depth
    below = tree.below
    shared = np.zeros((count, count), dtype=bool)
    shared[tree.pairs[:, 0], tree.pairs[:, 1]] = shared[tree.pairs[:, 1], tree.pairs[:, 0]] = True
    first = (shared.astype(int) @ below.T.astype(int)) > 0  # (j, b): joint j shares with the subtree of b
    second = (below.astype(int) @ first.astype(int)) > 0  # (k, b): the subtrees share
    owners = sorted(set(tree.owner))
    children: dict[int, list[int]] = {k: [] for k in range(count)}
    for k, up in enumerate(above):
        if up >= 0:
            children[up].append(k)

    # The cells of two subtrees: the entries with owners k <= l, and the cells they are summed from.
    wanted = {(k, b) for k in owners for b in owners if k <= b and second[k, b]}
    for k in sorted(range(count), key=lambda k: depth[k]):
        for b in range(count):
            if (k, b) in wanted:
                wanted |= {(c, b) for c in children[k] if second[c, b]}
    # The cells of a joint and a subtree, which the former begin as.
    needed = {(j, b) for j, b in wanted if first[j, b]}
    for b in sorted(range(count), key=lambda b: depth[b]):
        for j in range(count):
            if (j, b) in needed:
                needed |= {(j, c) for c in children[b] if first[j, c]}
    cell = {pair: i for i, pair in enumerate(sorted(wanted | needed))}

    depths = range(max(depth), -1, -1)
    over_second: list[dict[int, list[int]]] = []
    for level in depths:
        sums = {}
        for j, b in sorted(needed):
            sources = [cell[j, c] for c in children[b] if first[j, c]]
            if depth[b] == level and sources:
                sums[cell[j, b]] = sources
        over_second.append(sums)
    over_first: list[dict[int, list[int]]] = []
    for level in depths:
        sums = {}
        for k, b in sorted(wanted):
            sources = [cell[c, b] for c in children[k] if second[c, b]]
            if depth[k] == level and sources:
                sums[cell[k, b]] = sources
        over_first.append(sums)

    table = np.full((count, count), -1)
    for k, b in wanted:
        table[k, b] = cell[k, b]
    pair_cells = np.array([[cell.get((a, b), -1), cell.get((b, a), -1)] for a, b in tree.pairs.tolist()])
    filled = set(pair_cells.reshape(-1).tolist())
    empty = [i for i in cell.values() if i not in filled]
    levels = [sums for sums in over_second + over_first if sums]
    return MomentProgram(len(cell), table, pair_cells.reshape(-1, 2), empty, levels)
