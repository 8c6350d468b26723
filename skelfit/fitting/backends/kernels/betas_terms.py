"""Betas as variables beside the DoFs: what they add to value, gradient and Gauss-Newton matrix of `quadratic`.

Beta k moves a vertex by f_k, its shape vector turned by its blended transform, and by what it changes of the
transforms, dA_k u. With d the betas' change since the vertex pass, the residual is r + dA u + sum d_k f_k, and its
squares need the levers L_k = sum om f_k u^T, the products sum om f_k f_l and the pulls sum om f_k r.

- To the pose, the betas' change is another slope: D0 + sum d_k L_k.
- On a twist, as which a beta or a DoF changes a joint's transform, a lever does what a wrench does: a torque
  sum A x L and a force L e. So does dA_k M, whose wrench on joint a is, of the second moments of the pairs of joints,
  sum over b of x x (omega x x' + v) and omega x x' + v. What all that is on a beta's twists gives the matrix of two
  betas, and what it is on a DoF's, once summed up the tree, that of a DoF and a beta.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables
from skelfit.fitting.backends.variable_tables import StageVariables

from .betas_moments import BetaMoments
from .betas_twists import BetaTwists, make_beta_twists, shape_speeds, shape_twists
from .joint_frames import JointFrames
from .lanes import A2, A3, I2, L, V, m, sync
from .quadratic import QuadraticForm

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS


@wp.struct
class BetaTerms:
    """Of each slot, what an evaluation makes of the levers."""

    moments: BetaMoments  # of the slot's group
    twists: BetaTwists
    slope: A2  # (S, K) residual + products d
    torque: A3  # (S, J, 3) of the slopes
    gradient_part: A3  # (S, J, K) of half the gradient
    wrenches: A3  # (S, J, 6 K) torque and force of each beta; K c + k is component c of beta k
    square: A3  # (S, K, K) of half the matrix


def make_beta_moments(slots: int, num_joints: int, device: str) -> Any:
    """Levers of so many groups."""
    beta_moments = BetaMoments()
    for name, shape in (
        ("betas", (K,)),
        ("cross", (num_joints, 12, K)),
        ("products", (K, K)),
        ("residual", (K,)),
    ):
        setattr(beta_moments, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return beta_moments


def make_beta_terms(slots: int, num_joints: int, device: str) -> Any:
    """Room for so many groups."""
    beta_terms = BetaTerms()
    for name, shape in (
        ("slope", (K,)), ("torque", (num_joints, 3)), ("gradient_part", (num_joints, K)),
        ("wrenches", (num_joints, 6 * K)), ("square", (K, K)),
    ):  # fmt: skip
        setattr(beta_terms, name, wp.zeros((slots, *shape), dtype=V, device=device))
    beta_terms.moments, beta_terms.twists = (
        make_beta_moments(slots, num_joints, device),
        make_beta_twists(slots, device),
    )
    return beta_terms


@wp.func
def load_beta_moments(s: int, t: int, g: int, pass_rows: I2, source: BetaMoments, beta_terms: BetaTerms):
    """Into slot s the levers of the people of group g; places (G, L): where each is among those of the vertex pass."""
    beta_moments = beta_terms.moments
    num_joints = source.cross.shape[1]
    for i in range(t, num_joints * wp.static(12 * K), wp.block_dim()):
        j = i // wp.static(12 * K)
        c = (i // wp.static(K)) % 12
        k = i % wp.static(K)
        x = V()
        for lane in range(wp.static(L)):
            p = pass_rows[g, lane]
            v = source.cross[p / wp.static(L), j, c, k]
            x[lane] = v[p % wp.static(L)]
        beta_moments.cross[s, j, c, k] = x
    for i in range(t, wp.static((K + 2) * K), wp.block_dim()):
        row = i // wp.static(K)
        k = i % wp.static(K)
        x = V()
        for lane in range(wp.static(L)):
            p = pass_rows[g, lane]
            v = source.residual[p / wp.static(L), k]
            if row == 1:
                v = source.betas[p / wp.static(L), k]
            if row >= 2:
                v = source.products[p / wp.static(L), row - 2, k]
            x[lane] = v[p % wp.static(L)]
        if row == 0:
            beta_moments.residual[s, k] = x
        elif row == 1:
            beta_moments.betas[s, k] = x
        else:
            beta_moments.products[s, row - 2, k] = x
    sync()


@wp.func
def beta_slopes(
    s: int, t: int, betas: A2, body: BodyTables, variables: StageVariables, joints: JointFrames,
    form: QuadraticForm, beta_terms: BetaTerms
):  # fmt: skip
    """What the betas (S, K) make of D0, for `quadratic.slopes`, and how they move the joints; `place` is posed."""
    beta_moments = beta_terms.moments
    twists = beta_terms.twists
    shape_speeds(s, t, body, joints, twists)
    shape_twists(s, t, body, joints, twists)
    for i in range(t, variables.num_joints * 12, wp.block_dim()):
        _slope_with_betas(s, i // 12, i % 12, betas, beta_moments, form, beta_terms)
    for k in range(t, wp.static(K), wp.block_dim()):
        _slope_of_beta(s, k, betas, beta_moments, beta_terms)
    sync()


@wp.func
def beta_parts(
    s: int, t: int, x: V, y: V, z: V, variables: StageVariables, form: QuadraticForm, beta_terms: BetaTerms
):
    """What `beta_gradient` adds up, from the slopes and the betas' twists; x, y, z: `mean_residual`, or 0."""
    beta_moments = beta_terms.moments
    twists = beta_terms.twists
    for i in range(t, variables.num_joints * 3, wp.block_dim()):
        _slope_torque(s, i // 3, i % 3, form, beta_terms)
    sync()
    for i in range(t, variables.num_joints * wp.static(K), wp.block_dim()):
        j = i // wp.static(K)
        k = i % wp.static(K)
        part = _beta_part(s, j, k, variables.joints[j], beta_moments, twists, form, beta_terms)
        part -= m(x, beta_moments.cross[s, j, 3, k]) + m(y, beta_moments.cross[s, j, 7, k])
        beta_terms.gradient_part[s, j, k] = part - m(z, beta_moments.cross[s, j, 11, k])
    sync()


@wp.func
def beta_value(s: int, betas: A2, weight: float, beta_terms: BetaTerms) -> V:
    """What the betas add to `quadratic.value_of`; a squared beta costs weight, m^2. The same in each thread."""
    beta_moments = beta_terms.moments
    total = V()
    for k in range(wp.static(K)):
        beta = betas[s, k]
        total += m(
            beta - beta_moments.betas[s, k], beta_moments.residual[s, k] + beta_terms.slope[s, k]
        ) + weight * m(beta, beta)
    return total


@wp.func
def beta_gradient(
    s: int, k: int, betas: A2, weight: float, variables: StageVariables, beta_terms: BetaTerms
) -> V:
    """The gradient along beta k."""
    total = beta_terms.slope[s, k] + weight * betas[s, k]
    for j in range(variables.num_joints):
        total += beta_terms.gradient_part[s, j, k]
    return 2.0 * total


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
def clear_beta_curvature(t: int, h: int, n: int, curvature: A3):
    """Zero is what the Hessian is taken to be more than the matrix, in the columns of betas after n DoFs.

    A frame follows the direction of its bone, which bends most for two betas together: the entries of a DoF and a beta
    without those of two betas lead astray.
    """
    for i in range(t, n + wp.static(K), wp.block_dim()):
        for k in range(wp.static(K)):
            if i <= n + k:
                curvature[h, i, n + k] = V()


@wp.func
def _slope_with_betas(
    s: int, j: int, c: int, betas: A2, beta_moments: BetaMoments, form: QuadraticForm, beta_terms: BetaTerms
):
    x = V()
    for k in range(wp.static(K)):
        x += m(betas[s, k] - beta_moments.betas[s, k], beta_moments.cross[s, j, c, k])
    form.d_with_betas[s, j, c] = form.d[s, j, c] + x


@wp.func
def _slope_of_beta(s: int, k: int, betas: A2, beta_moments: BetaMoments, beta_terms: BetaTerms):
    x = beta_moments.residual[s, k]
    for o in range(wp.static(K)):
        x += m(betas[s, o] - beta_moments.betas[s, o], beta_moments.products[s, k, o])
    beta_terms.slope[s, k] = x


@wp.func
def _slope_torque(s: int, j: int, r: int, form: QuadraticForm, beta_terms: BetaTerms):
    """Component r of sum A x slope over the columns of joint j."""
    a = 4 * ((r + 1) % 3)
    b = 4 * ((r + 2) % 3)
    x = V()
    for c in range(4):
        x += m(form.transform[s, j, a + c], form.slope[s, j, b + c]) - m(
            form.transform[s, j, b + c], form.slope[s, j, a + c]
        )
    beta_terms.torque[s, j, r] = x


@wp.func
def _beta_part(
    s: int, j: int, k: int, joint: int, beta_moments: BetaMoments, twists: BetaTwists, form: QuadraticForm,
    beta_terms: BetaTerms
) -> V:  # fmt: skip
    """What joint j, SKEL's `joint`, adds to half the gradient along beta k: <L_k, dA> + <slope, dA_k>."""
    x = V()
    for c in range(12):
        x += m(form.change[s, j, c], beta_moments.cross[s, j, c, k])
    for r in range(3):
        x += m(beta_terms.torque[s, j, r], twists.twist[s, joint, wp.static(K) * r + k])
        x += m(form.slope[s, j, 4 * r + 3], twists.twist[s, joint, wp.static(K) * (3 + r) + k])
    return x


@wp.func
def _skin_wrench(
    s: int, j: int, first: int, step: int, beta_moments: BetaMoments, form: QuadraticForm, beta_terms: BetaTerms
):  # fmt: skip
    """What the levers are on joint j; for the betas from first on, in steps."""
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
    """What the wrenches of beta k do on the twists of beta o."""
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
    """Add what dA_k M is on joint j, from the cells of its pairs; for the betas from first on, in steps."""
    for n in range(variables.near.first[j], variables.near.first[j + 1]):
        code = variables.near.indices[n]
        second = code % 2  # of the pair, whose cell is then read as its transpose
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
    """How beta k moves the mean of the skin, of `mean_residual`; the root is the first active joint."""
    return beta_terms.wrenches[s, 0, wp.static(K) * (3 + r) + k]


@wp.func
def _add_up_wrenches(s: int, t: int, variables: StageVariables, beta_terms: BetaTerms):
    """The wrenches on each joint become those on its subtree; a thread has some of their numbers, up the whole tree."""
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
