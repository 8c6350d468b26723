"""Betas as variables beside the DoFs: their part of the value and the gradient. See `betas_matrix` for the matrix.

Beta k moves a vertex by f_k, its shape vector turned by the blended transform, and by its change of the transforms,
dA_k u. With d the change of betas since the vertex pass, the residual is r + dA u + sum d_k f_k. Its squares need the
sums of `betas_moments`: L_k = cross_k, products_kl and residual_k.

- For the pose, the change of betas changes the slope: D0 + sum d_k L_k.
- The gradient along beta k is twice residual_k + sum d_l products_kl + <L_k, dA> + <slope, dA_k>.
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
    """The parts of an evaluation with free betas, for each of S slots."""

    moments: BetaMoments  # of the group in the slot
    twists: BetaTwists
    slope: A2  # (S, K) residual + products d
    torque: A3  # (S, J, 3) of the slopes
    gradient_part: A3  # (S, J, K) of half the gradient
    wrenches: A3  # (S, J, 6 K) torque and force of each beta; K c + k is component c of beta k
    square: A3  # (S, K, K) of half the matrix


def make_beta_moments(slots: int, num_joints: int, device: str) -> Any:
    """The moments of betas of so many groups."""
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
    """Scratch for so many groups."""
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
    """Read the moments of the people of group g into slot s; pass_rows (G, L): their rows in the vertex pass."""
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
    """D0 at betas (S, K), for `quadratic.slopes`, and the twists of betas; `joints` are posed."""
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
    """The parts that `beta_gradient` sums; x, y, z: the best translation, or 0."""
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
    """The part of betas in the value; a squared beta costs weight, m^2. The same in each thread."""
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
def clear_beta_curvature(t: int, h: int, n: int, curvature: A3):
    """Set the second-order part to zero in the columns of betas, after n DoFs.

    Second derivatives by two betas are large, as a joint frame follows the direction of its bone, and they are not
    computed. The entries of a DoF and a beta without them give bad steps.
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
    """The part of joint j, SKEL's `joint`, in half the gradient along beta k: <L_k, dA> + <slope, dA_k>."""
    x = V()
    for c in range(12):
        x += m(form.change[s, j, c], beta_moments.cross[s, j, c, k])
    for r in range(3):
        x += m(beta_terms.torque[s, j, r], twists.twist[s, joint, wp.static(K) * r + k])
        x += m(form.slope[s, j, 4 * r + 3], twists.twist[s, joint, wp.static(K) * (3 + r) + k])
    return x
