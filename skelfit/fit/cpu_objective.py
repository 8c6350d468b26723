"""A stage's objective on a CPU: value, gradient and Gauss-Newton matrix, one person after the other in the cache.

The same as `objective.PoseObjective`, from fewer operations. With x_a the posed place of a vertex as joint a holds it,
a DoF i of joint k moves it by omega_i x x_a + v_i if a is below k. So the Gauss-Newton matrix only needs, of each two
subtrees, the second moments N_kl = sum om w_a w_b [x_a; 1] [x_b; 1]^T over a below k and b below l, and those are
sums up the tree of A_a M_ab A_b^T over the pairs of joints that share vertices.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import pi
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skelfit.body.dofs import DOF_JOINT, NUM_JOINTS, SKEL_PARENTS, descendants, dofs_of_joint
from skelfit.body.kinematics import ABDUCTION, ELEVATION, SCAPULAE, SPINE, SPINE_BEND, SPINE_EXT, Frames, Rig
from skelfit.fit.compiled import Array, compiled
from skelfit.fit.moments import Moments
from skelfit.fit.plans import Plan
from skelfit.fit.solver import Evaluation

_X = 16  # numbers of a second moment: sum x x'^T (9), sum x (3), sum x' (3), sum 1


@dataclass(frozen=True)
class Tree:
    """Who moves whom, as arrays for the compiled code."""

    parents: NDArray[np.int64]  # (24,)
    first_dof: NDArray[np.int64]  # (25,) of each joint
    joints: NDArray[np.int64]  # (J,) active
    above: NDArray[np.int64]  # (J,) position of the next active joint above; -1: none
    dofs: NDArray[np.int64]  # (n,) active
    owner: NDArray[np.int64]  # (n,) position of the DoF's joint
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

    def __call__(self, x: Tensor) -> Evaluation:
        """Evaluate at active DoFs x (B, n)."""
        frames, state, tree = self.frames, self.state, self.tree
        count, n = x.shape
        value, gradient, hessian = x.new_empty(count), x.new_empty(count, n), x.new_empty(count, n, n)
        people = (
            self.q.index_copy(1, self.plan.dofs, x), self.axes, frames.offsets, frames.joints,
            frames.spine_length, frames.thorax_width, frames.thorax_height,
            state.transforms, state.pairs, state.d, state.value,
        )  # fmt: skip
        _evaluate_all(
            tuple(t.contiguous().numpy() for t in people), tuple(vars(tree).values()), self.plan.pairs,
            self.limits.numpy(), self.limit_weight, value.numpy(), gradient.numpy(), hessian.numpy(),
        )  # fmt: skip
        return Evaluation(value, gradient, hessian)

    def take(self, rows: Tensor) -> FusedObjective:
        """The same objective of some of the people; rows (K,) int64."""
        state = Moments(**{k: v[rows] for k, v in vars(self.state).items()})
        return replace(self, frames=self.frames.take(rows), axes=self.axes[rows], q=self.q[rows], state=state)


def rest_axes(rig: Rig, frames: Frames) -> Tensor:
    """The DoFs' axes (B, 46, 3) in the frame of the T-posed person."""
    return (frames.frame[:, list(DOF_JOINT)] @ rig.axes[..., None])[..., 0]


@compiled
def _evaluate_all(
    people: Any, tree: Any, pairs: Array, limits: Array, limit_weight: float,
    value: Array, gradient: Array, hessian: Array,
) -> None:  # fmt: skip
    q, axes, offsets, rest, spine, width, height, start, moments, d, energy = people
    parents, first_dof, joints, above, dofs, owner, below, meets = tree
    kind, count = q.dtype, len(joints)
    # Where people stand and what moves them is known to float64: the value is then as exact as its moments.
    rot, pos = np.empty((NUM_JOINTS, 3, 3)), np.empty((NUM_JOINTS, 3))
    omega, v = np.empty((len(DOF_JOINT), 3)), np.empty((len(DOF_JOINT), 3))
    a, change, slope = np.empty((count, 3, 4)), np.empty((count, 3, 4)), np.empty((count, 3, 4))
    push, twist = np.empty((count, 3)), np.empty((count, 3))
    placed, second = np.empty((count, 3, 4), kind), np.empty((count, count, _X), kind)
    for k in range(len(q)):
        _pose(
            q[k], axes[k], offsets[k], parents, first_dof, spine[k], width[k], height[k], rot, pos, omega, v
        )
        for j in range(count):
            joint = joints[j]
            for r in range(3):
                t = pos[joint, r]
                for c in range(3):
                    a[j, r, c] = rot[joint, r, c]
                    t -= rot[joint, r, c] * rest[k, joint, c]
                a[j, r, 3] = t
                for c in range(4):
                    placed[j, r, c] = a[j, r, c]
                    change[j, r, c] = a[j, r, c] - start[k, r, 4 * j + c]
                    slope[j, r, c] = d[k, r, 4 * j + c]
        value[k] = energy[k] + _slopes(moments[k], pairs, change, slope)
        _gradient(a, slope, above, dofs, owner, omega, v, push, twist, gradient[k])
        _second_moments(moments[k], pairs, placed, above, below, meets, second)
        _normal_matrix(second, dofs, owner, meets, omega, v, hessian[k])
        for i in range(len(dofs)):
            angle = q[k, dofs[i]]
            excess = max(angle - limits[i, 1], 0.0) - max(limits[i, 0] - angle, 0.0)
            if excess != 0:
                value[k] += limit_weight * excess * excess
                gradient[k, i] += 2 * limit_weight * excess
                hessian[k, i, i] += 2 * limit_weight


@compiled
def _pose(
    q: Array, axes: Array, offsets: Array, parents: Array, first_dof: Array, spine: Array, width: float,
    height: float, rot: Array, pos: Array, omega: Array, v: Array,
) -> None:  # fmt: skip
    """Global rotations and positions of the joints, and the world twists of the DoFs, as `kinematics` has them."""
    up, shift, g = np.eye(3), np.empty(3), np.empty((3, 3))
    for j in range(NUM_JOINTS):
        if j > 0:
            up = rot[parents[j]]
        for r in range(3):
            shift[r] = offsets[j, r]
        _slide(j, q, spine, width, height, shift)
        for r in range(3):
            pos[j, r] = up[r, 0] * shift[0] + up[r, 1] * shift[1] + up[r, 2] * shift[2]
            if j > 0:
                pos[j, r] += pos[parents[j], r]
            for c in range(3):
                rot[j, r, c] = up[r, c]
        for i in range(first_dof[j + 1] - 1, first_dof[j] - 1, -1):
            x, y, z = axes[i, 0], axes[i, 1], axes[i, 2]
            for r in range(3):
                omega[i, r] = rot[j, r, 0] * x + rot[j, r, 1] * y + rot[j, r, 2] * z
            v[i, 0] = pos[j, 1] * omega[i, 2] - pos[j, 2] * omega[i, 1]
            v[i, 1] = pos[j, 2] * omega[i, 0] - pos[j, 0] * omega[i, 2]
            v[i, 2] = pos[j, 0] * omega[i, 1] - pos[j, 1] * omega[i, 0]
            angle = np.float64(q[i])
            sin, turn = np.sin(angle), 2 * np.sin(angle / 2) ** 2
            g[0, 0], g[0, 1], g[0, 2] = (
                1 - turn * (y * y + z * z),
                turn * x * y - sin * z,
                turn * x * z + sin * y,
            )
            g[1, 0], g[1, 1], g[1, 2] = (
                turn * x * y + sin * z,
                1 - turn * (x * x + z * z),
                turn * y * z - sin * x,
            )
            g[2, 0], g[2, 1], g[2, 2] = (
                turn * x * z - sin * y,
                turn * y * z + sin * x,
                1 - turn * (x * x + y * y),
            )
            for r in range(3):
                a, b, c = rot[j, r, 0], rot[j, r, 1], rot[j, r, 2]
                for s in range(3):
                    rot[j, r, s] = a * g[0, s] + b * g[1, s] + c * g[2, s]
        if j > 0:
            _slide_slopes(j, q, spine, width, height, up, v)


@compiled
def _curve(angle: float) -> tuple[float, float, float, float]:
    """Sideways and upward displacement of a bent segment of unit length, and their slopes; see `kinematics`."""
    if abs(angle) < 0.1:
        a2 = angle * angle
        side = angle * (0.5 - a2 / 24 + a2 * a2 / 720)
        up = 1 - a2 / 6 + a2 * a2 / 120
        side_slope = 0.5 - a2 / 8 + a2 * a2 / 144
        up_slope = angle * (-1 / 3 + a2 / 30 - a2 * a2 / 840)
        return side, up, side_slope, up_slope
    sin, cos = np.sin(angle), np.cos(angle)
    side, up = (1 - cos) / angle, sin / angle
    return side, up, (sin - side) / angle, (cos - up) / angle


@compiled
def _slide(j: int, q: Array, spine: Array, width: float, height: float, shift: Array) -> None:
    """Add the sliding of a spine joint or a scapula to its offset."""
    for k in range(3):
        if j == SPINE[k]:
            side_b, up_b, _, _ = _curve(np.float64(q[SPINE_BEND[k]]))
            side_e, up_e, _, _ = _curve(np.float64(q[SPINE_EXT[k]]))
            shift[0] -= side_b * spine[k]
            shift[1] += (up_b + up_e - 2) * spine[k]
            shift[2] -= side_e * spine[k]
    for k in range(2):
        if j == SCAPULAE[k]:
            sign = 1.0 - 2.0 * k
            a, e = sign * q[ABDUCTION[k]], sign * q[ELEVATION[k]] - pi / 4
            shift[0] -= sign * width / 4 * (np.cos(e) * np.cos(a) - np.cos(pi / 4))
            shift[1] -= height / 2 * (np.sin(e) + np.sin(pi / 4))
            shift[2] += width / 4 * np.sin(a)


@compiled
def _slide_slopes(j: int, q: Array, spine: Array, width: float, height: float, up: Array, v: Array) -> None:
    """Add the derivative of the sliding to the twists of the DoFs that slide."""
    for k in range(3):
        if j == SPINE[k]:
            _, _, side_b, up_b = _curve(np.float64(q[SPINE_BEND[k]]))
            _, _, side_e, up_e = _curve(np.float64(q[SPINE_EXT[k]]))
            for r in range(3):
                v[SPINE_BEND[k], r] += spine[k] * (up[r, 1] * up_b - up[r, 0] * side_b)
                v[SPINE_EXT[k], r] += spine[k] * (up[r, 1] * up_e - up[r, 2] * side_e)
    for k in range(2):
        if j == SCAPULAE[k]:
            sign = 1.0 - 2.0 * k
            a, e = sign * q[ABDUCTION[k]], sign * q[ELEVATION[k]] - pi / 4
            x, z = width / 4 * np.cos(e) * np.sin(a), sign * width / 4 * np.cos(a)
            x_e, y_e = width / 4 * np.sin(e) * np.cos(a), -sign * height / 2 * np.cos(e)
            for r in range(3):
                v[ABDUCTION[k], r] += up[r, 0] * x + up[r, 2] * z
                v[ELEVATION[k], r] += up[r, 0] * x_e + up[r, 1] * y_e


@compiled
def _slopes(moments: Array, pairs: Array, change: Array, slope: Array) -> float:
    """slope (J, 3, 4) holds D0 and becomes D0 + dA M; returns <D0 + slope, dA>."""
    total = 0.0
    for j in range(len(slope)):
        for r in range(3):
            for c in range(4):
                total += slope[j, r, c] * change[j, r, c]
    for p in range(len(pairs)):
        a, b, m = pairs[p, 0], pairs[p, 1], moments[p]
        _times_moment(change[b], m, slope[a])
        if a != b:
            _times_moment(change[a], m, slope[b])
    for j in range(len(slope)):
        for r in range(3):
            for c in range(4):
                total += slope[j, r, c] * change[j, r, c]
    return total


@compiled
def _times_moment(a: Array, m: Array, out: Array) -> None:
    """out (3, 4) += a (3, 4) times the symmetric 4x4 matrix of the ten numbers m."""
    for r in range(3):
        x, y, z, w = a[r, 0], a[r, 1], a[r, 2], a[r, 3]
        out[r, 0] += x * m[0] + y * m[1] + z * m[2] + w * m[6]
        out[r, 1] += x * m[1] + y * m[3] + z * m[4] + w * m[7]
        out[r, 2] += x * m[2] + y * m[4] + z * m[5] + w * m[8]
        out[r, 3] += x * m[6] + y * m[7] + z * m[8] + w * m[9]


@compiled
def _gradient(
    a: Array, slope: Array, above: Array, dofs: Array, owner: Array, omega: Array, v: Array,
    push: Array, twist: Array, gradient: Array,
) -> None:  # fmt: skip
    """Forces and torques on the joints, summed up the tree, along each DoF's twist."""
    for j in range(len(a)):
        for r in range(3):
            s, t = (r + 1) % 3, (r + 2) % 3
            push[j, r], twist[j, r] = slope[j, r, 3], 0.0
            for c in range(4):
                twist[j, r] += a[j, s, c] * slope[j, t, c] - a[j, t, c] * slope[j, s, c]
    for j in range(len(a) - 1, -1, -1):
        if above[j] >= 0:
            for r in range(3):
                push[above[j], r] += push[j, r]
                twist[above[j], r] += twist[j, r]
    for i in range(len(dofs)):
        total = 0.0
        for r in range(3):
            total += omega[dofs[i], r] * twist[owner[i], r] + v[dofs[i], r] * push[owner[i], r]
        gradient[i] = 2 * total


@compiled
def _second_moments(
    moments: Array, pairs: Array, a: Array, above: Array, below: Array, meets: Array, second: Array
) -> None:
    """N_kl of each two subtrees into second (J, J, 16)."""
    second[:] = 0
    t = np.empty((3, 4), a.dtype)
    for p in range(len(pairs)):
        j, i, m = pairs[p, 0], pairs[p, 1], moments[p]
        t[:] = 0
        _times_moment(a[j], m, t)
        one, two, b = second[j, i], second[i, j], a[i]
        for r in range(3):
            for s in range(3):
                x = t[r, 0] * b[s, 0] + t[r, 1] * b[s, 1] + t[r, 2] * b[s, 2] + t[r, 3] * b[s, 3]
                one[3 * r + s] = x
                two[3 * s + r] = x
            one[9 + r] = two[12 + r] = t[r, 3]
            other = b[r, 0] * m[6] + b[r, 1] * m[7] + b[r, 2] * m[8] + b[r, 3] * m[9]
            one[12 + r] = two[9 + r] = other
        one[15] = two[15] = m[9]
    count = len(a)
    for b in range(count - 1, -1, -1):
        if above[b] >= 0:
            for j in range(count):
                if below[j, b]:
                    into, row = second[j, above[b]], second[j, b]
                    for c in range(_X):
                        into[c] += row[c]
    for j in range(count - 1, -1, -1):
        if above[j] >= 0:
            for b in range(count):
                if meets[j, b]:
                    into, row = second[above[j], b], second[j, b]
                    for c in range(_X):
                        into[c] += row[c]


@compiled
def _normal_matrix(
    second: Array, dofs: Array, owner: Array, meets: Array, omega: Array, v: Array, hessian: Array
) -> None:
    """The Gauss-Newton matrix (n, n) from the second moments and the twists."""
    n = len(dofs)
    for i in range(n):
        k = owner[i]
        w0, w1, w2 = omega[dofs[i], 0], omega[dofs[i], 1], omega[dofs[i], 2]
        v0, v1, v2 = v[dofs[i], 0], v[dofs[i], 1], v[dofs[i], 2]
        last = -1
        g0 = g1 = g2 = f0 = f1 = f2 = 0.0
        for j in range(i, n):
            other = owner[j]
            if not meets[k, other]:
                hessian[i, j] = hessian[j, i] = 0
                continue
            if other != last:  # of all DoFs of a joint
                x, last = second[k, other], other
                trace = x[0] + x[4] + x[8]
                g0 = trace * w0 - (x[0] * w0 + x[1] * w1 + x[2] * w2) + x[13] * v2 - x[14] * v1
                g1 = trace * w1 - (x[3] * w0 + x[4] * w1 + x[5] * w2) + x[14] * v0 - x[12] * v2
                g2 = trace * w2 - (x[6] * w0 + x[7] * w1 + x[8] * w2) + x[12] * v1 - x[13] * v0
                f0 = w1 * x[11] - w2 * x[10] + x[15] * v0
                f1 = w2 * x[9] - w0 * x[11] + x[15] * v1
                f2 = w0 * x[10] - w1 * x[9] + x[15] * v2
            u, t = omega[dofs[j]], v[dofs[j]]
            entry = 2 * (u[0] * g0 + u[1] * g1 + u[2] * g2 + t[0] * f0 + t[1] * f1 + t[2] * f2)
            hessian[i, j] = hessian[j, i] = entry
