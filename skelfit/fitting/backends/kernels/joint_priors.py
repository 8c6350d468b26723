"""The costs on joints, as parts of the quadratic form: joint targets, and priors on the root.

The position of a joint is linear in its skinning transform, p = A_k [J_k; 1]. So weight |p - target|^2 adds to M, D0
and E0. So does the cost of the root's rotation G, turn_weight |G - I|^2 / 2, about turn_weight times the squared angle.
"""

import warp as wp

from skelfit.fitting.backends.variable_tables import StageVariables

from .joint_frames import JointFrames
from .lanes import F3, I2, L, V, m, sync
from .quadratic import QuadraticForm

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def _add_joint_target(
    s: int, n: int, g: int, rows: I2, weight: float, joint_targets: F3, variables: StageVariables,
    joints: JointFrames, form: QuadraticForm,
):  # fmt: skip
    """Add weight |p - target|^2 of a joint at p = A_k [rest; 1] to the moments; returns its E0."""
    k = variables.targets[n, 0]
    pair = variables.targets[n, 1]
    j = variables.joints[k]
    x = joints.rest[s, j, 0]
    y = joints.rest[s, j, 1]
    z = joints.rest[s, j, 2]
    form.pairs[s, pair, 0] = form.pairs[s, pair, 0] + weight * m(x, x)
    form.pairs[s, pair, 1] = form.pairs[s, pair, 1] + weight * m(x, y)
    form.pairs[s, pair, 2] = form.pairs[s, pair, 2] + weight * m(x, z)
    form.pairs[s, pair, 3] = form.pairs[s, pair, 3] + weight * m(y, y)
    form.pairs[s, pair, 4] = form.pairs[s, pair, 4] + weight * m(y, z)
    form.pairs[s, pair, 5] = form.pairs[s, pair, 5] + weight * m(z, z)
    form.pairs[s, pair, 6] = form.pairs[s, pair, 6] + weight * x
    form.pairs[s, pair, 7] = form.pairs[s, pair, 7] + weight * y
    form.pairs[s, pair, 8] = form.pairs[s, pair, 8] + weight * z
    form.pairs[s, pair, 9] = form.pairs[s, pair, 9] + V(weight)
    total = V()
    for r in range(3):
        goal = V()
        for lane in range(wp.static(L)):
            goal[lane] = joint_targets[rows[g, lane], variables.targets[n, 2], r]
        off = (
            m(form.start[s, k, 4 * r], x)
            + m(form.start[s, k, 4 * r + 1], y)
            + m(form.start[s, k, 4 * r + 2], z)
        )
        off += form.start[s, k, 4 * r + 3] - goal
        form.d[s, k, 4 * r] = form.d[s, k, 4 * r] + weight * m(off, x)
        form.d[s, k, 4 * r + 1] = form.d[s, k, 4 * r + 1] + weight * m(off, y)
        form.d[s, k, 4 * r + 2] = form.d[s, k, 4 * r + 2] + weight * m(off, z)
        form.d[s, k, 4 * r + 3] = form.d[s, k, 4 * r + 3] + weight * off
        total += weight * m(off, off)
        for c in range(4):
            form.d_with_betas[s, k, 4 * r + c] = form.d[s, k, 4 * r + c]
    return total


@wp.func
def add_joint_targets(
    s: int, t: int, g: int, rows: I2, weight: float, joint_targets: F3, variables: StageVariables,
    joints: JointFrames, form: QuadraticForm,
):  # fmt: skip
    """Add the costs of joint targets; by one thread, as they are few."""
    if t == 0 and weight > 0.0:
        for n in range(variables.num_targets):
            form.energy[s] = form.energy[s] + _add_joint_target(
                s, n, g, rows, weight, joint_targets, variables, joints, form
            )
    sync()


@wp.func
def add_root_prior(s: int, t: int, weight: float, form: QuadraticForm):
    """Add the cost of the rotation G of the root, the first joint: weight |G - I|^2 / 2; it has no mass."""
    if t == 0 and weight > 0.0:
        half = 0.5 * weight
        total = V()
        for r in range(3):
            for c in range(3):
                off = form.start[s, 0, 4 * r + c] - V(wp.where(r == c, 1.0, 0.0))
                form.d[s, 0, 4 * r + c] = form.d[s, 0, 4 * r + c] + half * off
                form.d_with_betas[s, 0, 4 * r + c] = form.d[s, 0, 4 * r + c]
                total += half * m(off, off)
        # The first pair is that of the first joint with itself.
        form.pairs[s, 0, 0] = form.pairs[s, 0, 0] + V(half)
        form.pairs[s, 0, 3] = form.pairs[s, 0, 3] + V(half)
        form.pairs[s, 0, 5] = form.pairs[s, 0, 5] + V(half)
        form.energy[s] = form.energy[s] + total
    sync()


@wp.func
def add_translation_prior(s: int, t: int, weight: float, joints: JointFrames, form: QuadraticForm):
    """Add the cost of the translation."""
    if t == 0:
        total = m(joints.trans[s, 0], joints.trans[s, 0])
        total += m(joints.trans[s, 1], joints.trans[s, 1])
        total += m(joints.trans[s, 2], joints.trans[s, 2])
        form.energy[s] = form.energy[s] + weight * total
    sync()
