"""The Gauss-Newton matrix of betas: the entries of two betas, and of a DoF and a beta.

Beta k changes a joint's transform as a twist does, dA_k = [omega]x A + [0 | v]. On a twist, the moment L_k acts as a
wrench: a torque sum A x L and a force L e. So does dA_k M. Its wrench on joint a follows from the second moments of the
pairs of joints: sum over b of x x (omega x x' + v), and of omega x x' + v. The power of these wrenches on the twists of
a beta gives the entries of two betas. Summed up the tree, their power on a DoF gives the entries of a DoF and a beta.
"""

import warp as wp

from skelfit.fitting.backends.variable_tables import StageVariables

from .betas_moments import BetaMoments
from .betas_terms import BetaTerms, K
from .betas_twists import BetaTwists
from .joint_frames import JointFrames
from .lanes import A3, V, m, sync
from .quadratic import QuadraticForm

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.func
def beta_columns(
    s: int, t: int, h: int, weight: float, variables: StageVariables, joints: JointFrames, form: QuadraticForm,
    beta_terms: BetaTerms, hessian: A3,
):  # fmt: skip
    """The columns of betas, to the diagonal, in buffer h of hessian (H, n + K, n + K).

    Between `quadratic.pair_moments` and the adding up of the cells.
    """
    beta_moments = beta_terms.moments
    twists = beta_terms.twists
    share = wp.min(wp.block_dim(), wp.static(K))  # threads that share a joint, or a DoF
    for i in range(t, variables.num_joints * share, wp.block_dim()):
        _skin_wrench(s, i // share, i % share, share, beta_moments, form, beta_terms)
    sync()
    for i in range(t, wp.static(K * K), wp.block_dim()):
        k = i // wp.static(K)
        o = i % wp.static(K)
        if k <= o:
            beta_terms.square[s, k, o] = beta_moments.products[s, k, o] + _wrench_on_twist(
                s, o, k, variables, twists, beta_terms
            )
    sync()
    for i in range(t, variables.num_joints * share, wp.block_dim()):
        _add_joint_wrench(s, i // share, i % share, share, variables, twists, form, beta_terms)
    sync()
    n = variables.num_dofs
    for i in range(t, wp.static(K * K), wp.block_dim()):
        k = i // wp.static(K)
        o = i % wp.static(K)
        if k <= o:
            e = beta_terms.square[s, k, o] + _wrench_on_twist(s, k, o, variables, twists, beta_terms)
            hessian[h, n + k, n + o] = 2.0 * e + V(wp.where(k == o, 2.0 * weight, 0.0))
    sync()
    _add_up_wrenches(s, t, variables, beta_terms)
    sync()
    for i in range(t, n * share, wp.block_dim()):
        _dof_beta_entries(s, h, i // share, i % share, share, variables, joints, beta_terms, hessian)
    sync()


@wp.func
def _skin_wrench(
    s: int, j: int, first: int, step: int, beta_moments: BetaMoments, form: QuadraticForm, beta_terms: BetaTerms
):  # fmt: skip
    """The wrench of L_k on joint j; for the betas from first on, in steps."""
    for r in range(3):
        a = 4 * ((r + 1) % 3)
        b = 4 * ((r + 2) % 3)
        a0 = form.transform[s, j, a]
        a1 = form.transform[s, j, a + 1]
        a2 = form.transform[s, j, a + 2]
        a3 = form.transform[s, j, a + 3]
        b0 = form.transform[s, j, b]
        b1 = form.transform[s, j, b + 1]
        b2 = form.transform[s, j, b + 2]
        b3 = form.transform[s, j, b + 3]
        for k in range(first, wp.static(K), step):
            x = m(a0, beta_moments.cross[s, j, b, k]) + m(a1, beta_moments.cross[s, j, b + 1, k])
            x += m(a2, beta_moments.cross[s, j, b + 2, k]) + m(a3, beta_moments.cross[s, j, b + 3, k])
            x -= m(b0, beta_moments.cross[s, j, a, k]) + m(b1, beta_moments.cross[s, j, a + 1, k])
            x -= m(b2, beta_moments.cross[s, j, a + 2, k]) + m(b3, beta_moments.cross[s, j, a + 3, k])
            beta_terms.wrenches[s, j, wp.static(K) * r + k] = x
            beta_terms.wrenches[s, j, wp.static(K) * (3 + r) + k] = beta_moments.cross[s, j, 4 * r + 3, k]


@wp.func
def _wrench_on_twist(
    s: int, k: int, o: int, variables: StageVariables, twists: BetaTwists, beta_terms: BetaTerms
) -> V:
    """The power of the wrenches of beta k on the twists of beta o."""
    x = V()
    y = V()
    for j in range(variables.num_joints):
        joint = variables.joints[j]
        for c in range(3):
            x += m(
                beta_terms.wrenches[s, j, wp.static(K) * c + k], twists.twist[s, joint, wp.static(K) * c + o]
            )
            y += m(
                beta_terms.wrenches[s, j, wp.static(K) * (3 + c) + k],
                twists.twist[s, joint, wp.static(K) * (3 + c) + o],
            )
    return x + y


@wp.func
def _add_joint_wrench(
    s: int, j: int, first: int, step: int, variables: StageVariables, twists: BetaTwists, form: QuadraticForm,
    beta_terms: BetaTerms
):  # fmt: skip
    """Add the wrench of dA_k M on joint j, from the cells of its pairs; for the betas from first on, in steps."""
    for n in range(variables.near.first[j], variables.near.first[j + 1]):
        code = variables.near.indices[n]
        second = code % 2  # 1: joint j is the second of the pair, and the cell is read transposed
        p = code / 2
        other = variables.joints[variables.pairs[p, 1 - second]]
        _add_pair_wrench(
            s, j, other, variables.pair_cells[p, 0], second, first, step, twists, form, beta_terms
        )


@wp.func
def _add_pair_wrench(
    s: int, j: int, other: int, cell: int, second: int, first: int, step: int, twists: BetaTwists,
    form: QuadraticForm, beta_terms: BetaTerms,
):  # fmt: skip
    row = 1 + 2 * second
    column = 3 - 2 * second
    x01 = form.cells[s, cell, column]
    x02 = form.cells[s, cell, 2 * column]
    x10 = form.cells[s, cell, row]
    x12 = form.cells[s, cell, row + 2 * column]
    x20 = form.cells[s, cell, 2 * row]
    x21 = form.cells[s, cell, 2 * row + column]
    x00 = form.cells[s, cell, 4] + form.cells[s, cell, 8]
    x11 = form.cells[s, cell, 0] + form.cells[s, cell, 8]
    x22 = form.cells[s, cell, 0] + form.cells[s, cell, 4]
    a0 = form.cells[s, cell, 9 + 3 * second]
    a1 = form.cells[s, cell, 10 + 3 * second]
    a2 = form.cells[s, cell, 11 + 3 * second]
    b0 = form.cells[s, cell, 12 - 3 * second]
    b1 = form.cells[s, cell, 13 - 3 * second]
    b2 = form.cells[s, cell, 14 - 3 * second]
    mass = form.cells[s, cell, 15]
    for k in range(first, wp.static(K), step):
        w0 = twists.twist[s, other, k]
        w1 = twists.twist[s, other, wp.static(K) + k]
        w2 = twists.twist[s, other, wp.static(2 * K) + k]
        v0 = twists.twist[s, other, wp.static(3 * K) + k]
        v1 = twists.twist[s, other, wp.static(4 * K) + k]
        v2 = twists.twist[s, other, wp.static(5 * K) + k]
        t0 = m(x00, w0) - m(x01, w1) - m(x02, w2) + m(a1, v2) - m(a2, v1)
        t1 = m(x11, w1) - m(x10, w0) - m(x12, w2) + m(a2, v0) - m(a0, v2)
        t2 = m(x22, w2) - m(x20, w0) - m(x21, w1) + m(a0, v1) - m(a1, v0)
        f0 = m(w1, b2) - m(w2, b1) + m(mass, v0)
        f1 = m(w2, b0) - m(w0, b2) + m(mass, v1)
        f2 = m(w0, b1) - m(w1, b0) + m(mass, v2)
        beta_terms.wrenches[s, j, k] = beta_terms.wrenches[s, j, k] + t0
        beta_terms.wrenches[s, j, wp.static(K) + k] = beta_terms.wrenches[s, j, wp.static(K) + k] + t1
        beta_terms.wrenches[s, j, wp.static(2 * K) + k] = beta_terms.wrenches[s, j, wp.static(2 * K) + k] + t2
        beta_terms.wrenches[s, j, wp.static(3 * K) + k] = beta_terms.wrenches[s, j, wp.static(3 * K) + k] + f0
        beta_terms.wrenches[s, j, wp.static(4 * K) + k] = beta_terms.wrenches[s, j, wp.static(4 * K) + k] + f1
        beta_terms.wrenches[s, j, wp.static(5 * K) + k] = beta_terms.wrenches[s, j, wp.static(5 * K) + k] + f2


@wp.func
def beta_speed(s: int, k: int, r: int, beta_terms: BetaTerms) -> V:
    """ds_r / dbeta_k, for s of `mean_residual`; the root is the first active joint."""
    return beta_terms.wrenches[s, 0, wp.static(K) * (3 + r) + k]


@wp.func
def _add_up_wrenches(s: int, t: int, variables: StageVariables, beta_terms: BetaTerms):
    """Sum the wrenches of each subtree into its joint; a thread sums its components up the whole tree."""
    for n in range(variables.up.first[variables.up.levels]):
        j = variables.up.target[n]
        for i in range(variables.up.sources.first[n], variables.up.sources.first[n + 1]):
            below = variables.up.sources.indices[i]
            for c in range(t, wp.static(6 * K), wp.block_dim()):
                beta_terms.wrenches[s, j, c] = beta_terms.wrenches[s, j, c] + beta_terms.wrenches[s, below, c]


@wp.func
def _dof_beta_entries(
    s: int, h: int, i: int, first: int, step: int, variables: StageVariables, joints: JointFrames,
    beta_terms: BetaTerms, hessian: A3,
):  # fmt: skip
    """The entries of DoF i and the betas from first on, in steps."""
    j = variables.owner[i]
    d = variables.dofs[i]
    w0 = joints.omega[s, d, 0]
    w1 = joints.omega[s, d, 1]
    w2 = joints.omega[s, d, 2]
    v0 = joints.v[s, d, 0]
    v1 = joints.v[s, d, 1]
    v2 = joints.v[s, d, 2]
    for k in range(first, wp.static(K), step):
        x = m(w0, beta_terms.wrenches[s, j, k]) + m(w1, beta_terms.wrenches[s, j, wp.static(K) + k])
        x += m(w2, beta_terms.wrenches[s, j, wp.static(2 * K) + k]) + m(
            v0, beta_terms.wrenches[s, j, wp.static(3 * K) + k]
        )
        x += m(v1, beta_terms.wrenches[s, j, wp.static(4 * K) + k]) + m(
            v2, beta_terms.wrenches[s, j, wp.static(5 * K) + k]
        )
        hessian[h, i, variables.num_dofs + k] = 2.0 * x
