"""A stage's objective on a CPU: value, gradient and Hessian, one person after the other in the cache.

The same as `objective.PoseObjective` and `objective.ShapedObjective`, from fewer operations: see `cpu_quadratic`.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.body.dofs import DOF_JOINT, NUM_JOINTS, SKEL_PARENTS, descendants, dofs_of_joint
from skelfit.body.kinematics import SLIDE_PAIRS, Frames, Rig
from skelfit.fit.compiled import Array, compiled
from skelfit.fit.cpu_pose import pose, slide_bends
from skelfit.fit.cpu_quadratic import (
    MOMENT_SIZE,
    add_slides,
    add_wrenches,
    gradient_along,
    normal_matrix,
    second_derivatives,
    second_moments,
    slopes,
)
from skelfit.fit.cpu_shape import ShapeTables, shape_joints, shape_twists
from skelfit.fit.cpu_tens import NUM_BETAS, load, plus, plus3, store, times
from skelfit.fit.moments import Levers, Moments
from skelfit.fit.plans import Plan
from skelfit.fit.solver import Evaluation


@dataclass(frozen=True)
class Tree:
    """Who moves whom, as arrays for the compiled code."""

    parents: NDArray[np.int64]  # (24,)
    first_dof: NDArray[np.int64]  # (25,) of each joint
    joints: NDArray[np.int64]  # (J,) active
    above: NDArray[np.int64]  # (J,) position of the next active joint above; -1: none
    dofs: NDArray[np.int64]  # (n,) active
    owner: NDArray[np.int64]  # (n,) position of the DoF's joint
    turns: NDArray[np.bool_]  # (n, n) whether DoF i turns the axis of DoF j
    slides: NDArray[np.int64]  # (K, 3) which of SLIDE_PAIRS, and its two DoFs
    below: NDArray[
        np.bool_
    ]  # (J, J) the pairs of joints k, l with something to sum once b has gone up the tree
    meets: NDArray[np.bool_]  # (J, J) the pairs k, l whose subtrees share vertices


def make_tree(plan: Plan) -> Tree:
    """The tree of a stage's active joints."""
    position = {j: k for k, j in enumerate(plan.joints)}
    above = []
    for j in plan.joints:
        up = SKEL_PARENTS[j]
        while up >= 0 and up not in position:
            up = SKEL_PARENTS[up]
        above.append(position.get(up, -1))
    count = len(plan.joints)
    shared = np.zeros((count, count), dtype=bool)
    shared[plan.pairs[:, 0], plan.pairs[:, 1]] = shared[plan.pairs[:, 1], plan.pairs[:, 0]] = True
    subtree = np.array([[b in descendants(a) for b in plan.joints] for a in plan.joints])
    below = (shared.astype(int) @ subtree.T.astype(int)) > 0
    dofs = plan.dofs.numpy()
    return Tree(
        parents=np.array(SKEL_PARENTS),
        first_dof=np.array([dofs_of_joint(j)[0] for j in range(NUM_JOINTS)] + [len(DOF_JOINT)]),
        joints=np.array(plan.joints),
        above=np.array(above),
        dofs=dofs,
        owner=np.array([position[DOF_JOINT[i]] for i in dofs]),
        turns=plan.turns.numpy() > 0,
        slides=plan.slides.numpy(),
        below=below,
        meets=(subtree.astype(int) @ below.astype(int)) > 0,
    )


@dataclass(frozen=True)
class FusedObjective:
    """A stage's objective of its active DoFs, the other angles held; an `Objective` of the solver.

    The arguments are those of `objective.PoseObjective`, all tensors on the CPU and of one float type.
    """

    plan: Plan
    tree: Tree
    frames: Frames
    axes: Tensor  # (B, 46, 3) the DoFs' axes in the frame of the T-posed person
    q: Tensor  # (B, 46) rad
    state: Moments
    limits: Tensor  # (n, 2) rad, of the active DoFs
    limit_weight: float
    exact: bool = False  # whether the Hessian is wanted, or its model alone

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs x (B, n)."""
        frames, state, tree = self.frames, self.state, self.tree
        count, n = x.shape
        value, gradient, hessian = (x.new_empty(count, *(n,) * k) for k in range(3))
        bend = torch.empty_like(hessian) if self.exact else x.new_empty(count, 0, 0)
        people = (
            self.q.index_copy(1, self.plan.dofs, x), self.axes, frames.offsets, frames.joints,
            frames.spine_length, frames.thorax_width, frames.thorax_height,
            state.transforms, state.pairs, state.d, state.value,
        )  # fmt: skip
        _evaluate_all(
            tuple(t.contiguous().numpy() for t in people), tuple(vars(tree).values()), self.plan.pairs,
            self.limits.numpy(), self.limit_weight, value.numpy(), gradient.numpy(), hessian.numpy(), bend.numpy(),
        )  # fmt: skip
        return Evaluation(value, gradient, hessian, bend if self.exact else None)

    def take(self, rows: Tensor) -> FusedObjective:
        """The same objective of some of the people; rows (K,) int64."""
        state = Moments(**{k: v[rows] for k, v in vars(self.state).items()})
        return replace(self, frames=self.frames.take(rows), axes=self.axes[rows], q=self.q[rows], state=state)


def rest_axes(rig: Rig, frames: Frames) -> Tensor:
    """The DoFs' axes (B, 46, 3) in the frame of the T-posed person."""
    return (frames.frame[:, list(DOF_JOINT)] @ rig.axes[..., None])[..., 0]


@dataclass(frozen=True)
class FusedShapedObjective:
    """As `FusedObjective`, with K betas as variables after the DoFs; arguments as `objective.ShapedObjective`'s."""

    plan: Plan
    tree: Tree
    tables: ShapeTables
    betas: Tensor  # (B, K) of the moments
    q: Tensor  # (B, 46) rad
    state: Moments
    levers: Levers
    limits: Tensor  # (n, 2) rad, of the active DoFs
    limit_weight: float
    beta_weight: float

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs and betas x (B, n + K)."""
        state, levers, n = self.state, self.levers, len(self.plan.dofs)
        count, size = x.shape
        value, gradient, hessian = (x.new_empty(count, *(size,) * k) for k in range(3))
        people = (
            self.q.index_copy(1, self.plan.dofs, x[:, :n]), x[:, n:], self.betas,
            state.transforms, state.pairs, state.d, state.value, levers.lever, levers.products, levers.pull,
        )  # fmt: skip
        _evaluate_all_shaped(
            tuple(t.contiguous().numpy() for t in people), tuple(vars(self.tree).values()),
            tuple(vars(self.tables).values()), self.plan.pairs, self.limits.numpy(), self.limit_weight,
            self.beta_weight, value.numpy(), gradient.numpy(), hessian.numpy(),
        )  # fmt: skip
        return Evaluation(value, gradient, hessian)

    def take(self, rows: Tensor) -> FusedShapedObjective:
        """The same objective of some of the people; rows (k,) int64."""
        return replace(
            self,
            betas=self.betas[rows],
            q=self.q[rows],
            state=self.state.take(rows),
            levers=self.levers.take(rows),
        )


@compiled
def _evaluate_all(
    people: Any, tree: Any, pairs: Array, limits: Array, limit_weight: float,
    value: Array, gradient: Array, hessian: Array, bend: Array,
) -> None:  # fmt: skip
    q, axes, offsets, rest, spine, width, height, start, moments, d, energy = people
    room = _make_room(len(tree[2]), q)
    for p in range(len(q)):
        shape = (axes[p], offsets[p], rest[p], spine[p], width[p], height[p])
        value[p] = energy[p] + _evaluate(
            q[p], shape, start[p], moments[p], d[p], tree, pairs, limits, limit_weight, room, gradient[p],
            hessian[p], bend[p],
        )  # fmt: skip


@compiled
def _make_room(count: int, like: Array) -> Any:
    """Room for what is known of one person."""
    # Where people stand and what moves them is known to float64: the value is then as exact as its moments.
    rot, pos = np.empty((NUM_JOINTS, 3, 3)), np.empty((NUM_JOINTS, 3))
    omega, v = np.empty((len(DOF_JOINT), 3)), np.empty((len(DOF_JOINT), 3))
    a, change, slope = np.empty((count, 3, 4)), np.empty((count, 3, 4)), np.empty((count, 3, 4))
    push, pull = np.empty((count, 3)), np.empty((count, 3, 3))
    placed, second = np.empty((count, 3, 4), like.dtype), np.empty((count, count, MOMENT_SIZE), like.dtype)
    return rot, pos, omega, v, a, change, slope, push, pull, placed, second, np.empty((len(SLIDE_PAIRS), 3))


@compiled
def _evaluate(
    q: Array, shape: Any, start: Array, moments: Array, d: Array, tree: Any, pairs: Array, limits: Array,
    limit_weight: float, room: Any, gradient: Array, hessian: Array, bend: Array,
) -> float:  # fmt: skip
    """Of one person, the value without E0; fills gradient (n,), hessian (n, n), and the room.

    bend (n, n) becomes what the Hessian is more than that; (0, 0): it is not wanted.
    """
    axes, offsets, rest, spine, width, height = shape
    parents, first_dof, joints, above, dofs, owner, turns, slides, below, meets = tree
    rot, pos, omega, v, a, change, slope, push, pull, placed, second, curved = room
    pose(q, axes, offsets, parents, first_dof, spine, width, height, rot, pos, omega, v)
    for j in range(len(joints)):
        joint = joints[j]
        for r in range(3):
            t = pos[joint, r]
            for c in range(3):
                a[j, r, c] = rot[joint, r, c]
                t -= rot[joint, r, c] * rest[joint, c]
            a[j, r, 3] = t
            for c in range(4):
                placed[j, r, c] = a[j, r, c]
                change[j, r, c] = a[j, r, c] - start[r, 4 * j + c]
                slope[j, r, c] = d[r, 4 * j + c]
    value = slopes(moments, pairs, change, slope)
    gradient_along(a, slope, above, dofs, owner, omega, v, push, pull, gradient)
    if len(bend):
        second_derivatives(dofs, owner, joints, turns, pos, omega, v, push, pull, bend)
        slide_bends(q, spine, width, height, parents, rot, curved)
        add_slides(slides, curved, owner, push, bend)
    second_moments(moments, pairs, placed, above, below, meets, second)
    normal_matrix(second, dofs, owner, meets, omega, v, hessian)
    for i in range(len(dofs)):
        angle = q[dofs[i]]
        excess = max(angle - limits[i, 1], 0.0) - max(limits[i, 0] - angle, 0.0)
        if excess != 0:
            value += limit_weight * excess * excess
            gradient[i] += 2 * limit_weight * excess
            hessian[i, i] += 2 * limit_weight
    return value


@compiled
def _evaluate_all_shaped(
    people: Any, tree: Any, tables: Any, pairs: Array, limits: Array, limit_weight: float, beta_weight: float,
    value: Array, gradient: Array, hessian: Array,
) -> None:  # fmt: skip
    q, betas, start_betas, start, moments, d, energy, lever, products, pull = people
    parents, first_dof, joints, above, dofs, owner = tree[:6]
    count, n, size = len(joints), len(dofs), NUM_BETAS
    room = _make_room(count, q)
    rot, pos, omega, v, a, change, slope = room[:7]
    rest, offsets, axes = np.empty((NUM_JOINTS, 3)), np.empty((NUM_JOINTS, 3)), np.empty((len(DOF_JOINT), 3))
    spine, thorax, spins = np.empty(3), np.empty(2), np.empty((NUM_JOINTS, 3, size))
    spine_speeds, thorax_speeds = np.empty((3, size)), np.empty((2, size))
    turn, place = np.empty((NUM_JOINTS, 3, size)), np.empty((NUM_JOINTS, 3, size))
    twists, wrenches = np.empty((2, count, 3, size)), np.empty((2, count, 3, size))
    delta, force, square = np.empty(size), np.empty(size), np.empty((size, size))
    none = np.empty((0, 0))
    levered, at = np.empty((3, 4 * count)), np.empty((count, 3, 4, size))
    for p in range(len(q)):
        shape_joints(
            betas[p],
            parents,
            first_dof,
            tables,
            rest,
            offsets,
            axes,
            spine,
            thorax,
            spins,
            spine_speeds,
            thorax_speeds,
        )
        for k in range(NUM_BETAS):
            delta[k] = betas[p, k] - start_betas[p, k]
        at[:] = lever[p]
        for j in range(count):
            for r in range(3):
                for c in range(4):
                    t = np.float64(d[p, r, 4 * j + c])
                    for k in range(NUM_BETAS):
                        t += delta[k] * at[j, r, c, k]
                    levered[r, 4 * j + c] = t
        shape = (axes, offsets, rest, spine, thorax[0], thorax[1])
        found = _evaluate(
            q[p], shape, start[p], moments[p], levered, tree, pairs, limits, limit_weight, room,
            gradient[p, :n], hessian[p, :n, :n], none,
        )  # fmt: skip
        shape_twists(
            q[p],
            rot,
            pos,
            parents,
            joints,
            tables,
            spins,
            spine_speeds,
            thorax_speeds,
            turn,
            place,
            twists[0],
            twists[1],
        )
        found += _own_part(delta, betas[p], products[p], pull[p], beta_weight, force, square)
        _lever_part(a, at, change, slope, twists, wrenches, force)
        _motion_part(twists, wrenches, square)
        add_wrenches(moments[p], pairs, a, twists[0], twists[1], wrenches[0], wrenches[1])
        _motion_part(twists, wrenches, square)
        for k in range(NUM_BETAS):
            gradient[p, n + k] = 2 * force[k]
            for m in range(NUM_BETAS):
                hessian[p, n + k, n + m] = 2 * (square[k, m] + square[m, k])
        _meet(wrenches, above, dofs, owner, omega, v, hessian[p])
        value[p] = energy[p] + found


# The betas' own gradient and matrix are added up in parts. The matrix is symmetric: what is added up is such that it
# is the sum of that and its transpose.


@compiled
def _own_part(
    delta: Array, betas: Array, products: Array, pull: Array, beta_weight: float, force: Array, square: Array
) -> float:
    """Of the betas alone; returns what they add to the value."""
    value = 0.0
    for k in range(NUM_BETAS):
        force[k] = pull[k]
        for m in range(NUM_BETAS):
            force[k] += products[k, m] * delta[m]
            square[k, m] = 0.5 * products[k, m]
        value += delta[k] * (pull[k] + force[k]) + beta_weight * betas[k] * betas[k]
        force[k] += beta_weight * betas[k]
        square[k, k] += 0.5 * beta_weight
    return value


@compiled
def _lever_part(
    a: Array, lever: Array, change: Array, slope: Array, twists: Array, wrenches: Array, force: Array
) -> None:
    """Of the levers and the transforms; writes the levers as wrenches (2, J, 3, K) on the joints."""
    total = load(force)
    for j in range(len(a)):
        for r in range(3):
            s, t = (r + 1) % 3, (r + 2) % 3
            at_s, at_t, to_s, to_t = a[j, s], a[j, t], slope[j, s], slope[j, t]
            turning = at_s[0] * to_t[0] + at_s[1] * to_t[1] + at_s[2] * to_t[2] + at_s[3] * to_t[3]
            turning -= at_t[0] * to_s[0] + at_t[1] * to_s[1] + at_t[2] * to_s[2] + at_t[3] * to_s[3]
            total = plus(plus(total, turning, twists[0, j, r]), slope[j, r, 3], twists[1, j, r])
            total = plus3(total, change[j, r, 0], change[j, r, 1], change[j, r, 2], lever[j, r])
            total = plus(total, change[j, r, 3], lever[j, r, 3])
            torque = plus3(times(at_s[3], lever[j, t, 3]), at_s[0], at_s[1], at_s[2], lever[j, t])
            torque = plus3(plus(torque, -at_t[3], lever[j, s, 3]), -at_t[0], -at_t[1], -at_t[2], lever[j, s])
            store(torque, wrenches[0, j, r])
            store(load(lever[j, r, 3]), wrenches[1, j, r])
    store(total, force)


@compiled
def _motion_part(twists: Array, wrenches: Array, square: Array) -> None:
    """Half of what the wrenches do on the twists: of the levers first, then of levers and transforms together."""
    for k in range(NUM_BETAS):
        row = load(square[k])
        for j in range(twists.shape[1]):
            for r in range(3):
                row = plus(row, 0.5 * wrenches[0, j, r, k], twists[0, j, r])
                row = plus(row, 0.5 * wrenches[1, j, r, k], twists[1, j, r])
        store(row, square[k])


@compiled
def _meet(
    wrenches: Array, above: Array, dofs: Array, owner: Array, omega: Array, v: Array, hessian: Array
) -> None:
    """The entries of the matrix (n + K, n + K) of a DoF and a beta; sums the wrenches up the tree."""
    n, count = len(dofs), wrenches.shape[1]
    torque, push = wrenches[0], wrenches[1]
    row = np.empty(NUM_BETAS)
    for j in range(count - 1, -1, -1):
        if above[j] >= 0:
            for r in range(3):
                store(plus(load(push[above[j], r]), 1.0, push[j, r]), push[above[j], r])
                store(plus(load(torque[above[j], r]), 1.0, torque[j, r]), torque[above[j], r])
    for i in range(n):
        j, w, u = owner[i], omega[dofs[i]], v[dofs[i]]
        along = plus(plus(times(w[0], torque[j, 0]), w[1], torque[j, 1]), w[2], torque[j, 2])
        store(plus3(along, u[0], u[1], u[2], push[j]), row)
        for k in range(NUM_BETAS):
            hessian[i, n + k] = hessian[n + k, i] = 2 * row[k]
