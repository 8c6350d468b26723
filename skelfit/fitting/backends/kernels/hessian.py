"""The second-order part C of the Hessian: what it has beyond the Gauss-Newton matrix, 2 <slope, d2A>.

If DoF i turns the axis of DoF j, then d2A is [omega_i]x dA_j, and the entry of i and j is 2 omega_i . t_j with
t_j = sum dA_j x slope over the subtree of j: no more work than the gradient. The sliding of spine and scapulae has
second derivatives of its own.
"""

import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.variable_tables import StageVariables

from .joint_chain import slide_second_derivative
from .joint_frames import JointFrames
from .lanes import A2, A3, V, m
from .quadratic import QuadraticForm

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def curvature_column(
    s: int, h: int, j: int, variables: StageVariables, joints: JointFrames, form: QuadraticForm, curvature: A3
):
    """The entries of C for DoF j and all DoFs i that turn its axis, into curvature[h, i, j], i <= j.

    If i and j belong to one joint, then i does not turn the sliding of j: v_j is then that of the rotation alone.
    """
    k = variables.owner[j]
    d = variables.dofs[j]
    joint = variables.joints[k]
    trace = form.moment[s, k, 0] + form.moment[s, k, 4] + form.moment[s, k, 8]
    w0 = joints.omega[s, d, 0]
    w1 = joints.omega[s, d, 1]
    w2 = joints.omega[s, d, 2]
    f0 = form.force[s, k, 0]
    f1 = form.force[s, k, 1]
    f2 = form.force[s, k, 2]
    x0 = (
        m(form.moment[s, k, 0], w0) + m(form.moment[s, k, 1], w1) + m(form.moment[s, k, 2], w2) - m(trace, w0)
    )
    x1 = (
        m(form.moment[s, k, 3], w0) + m(form.moment[s, k, 4], w1) + m(form.moment[s, k, 5], w2) - m(trace, w1)
    )
    x2 = (
        m(form.moment[s, k, 6], w0) + m(form.moment[s, k, 7], w1) + m(form.moment[s, k, 8], w2) - m(trace, w2)
    )
    v0 = joints.v[s, d, 0]
    v1 = joints.v[s, d, 1]
    v2 = joints.v[s, d, 2]
    p0 = joints.pos[s, joint, 0]
    p1 = joints.pos[s, joint, 1]
    p2 = joints.pos[s, joint, 2]
    u0 = m(p1, w2) - m(p2, w1)
    u1 = m(p2, w0) - m(p0, w2)
    u2 = m(p0, w1) - m(p1, w0)
    t0 = x0 + m(v1, f2) - m(v2, f1)
    t1 = x1 + m(v2, f0) - m(v0, f2)
    t2 = x2 + m(v0, f1) - m(v1, f0)
    a0 = x0 + m(u1, f2) - m(u2, f1)
    a1 = x1 + m(u2, f0) - m(u0, f2)
    a2 = x2 + m(u0, f1) - m(u1, f0)
    for i in range(variables.num_dofs):
        turns = variables.turns[i, j]
        if turns != 0:
            di = variables.dofs[i]
            e = V()
            if turns == 1:
                e = (
                    m(joints.omega[s, di, 0], t0)
                    + m(joints.omega[s, di, 1], t1)
                    + m(joints.omega[s, di, 2], t2)
                )
            else:
                e = (
                    m(joints.omega[s, di, 0], a0)
                    + m(joints.omega[s, di, 1], a1)
                    + m(joints.omega[s, di, 2], a2)
                )
            curvature[h, wp.min(i, j), wp.max(i, j)] = 2.0 * e
        elif i < j and variables.turns[j, i] == 0:
            curvature[h, i, j] = V()


@wp.func
def add_slide_curvature(
    s: int, h: int, q: A2, variables: StageVariables, body: BodyTables, joints: JointFrames,
    form: QuadraticForm, curvature: A3,
):  # fmt: skip
    """Add the second derivatives of the sliding offsets to curvature[h]; by one thread."""
    for n in range(variables.num_slides):
        i = variables.slides[n, 1]
        j = variables.slides[n, 2]
        x, y, z = slide_second_derivative(s, variables.slides[n, 0], q, body, joints)
        k = variables.owner[i]
        e = m(form.force[s, k, 0], x) + m(form.force[s, k, 1], y) + m(form.force[s, k, 2], z)
        low = wp.min(i, j)
        high = wp.max(i, j)
        curvature[h, low, high] = curvature[h, low, high] + 2.0 * e
