"""The objective of a refinement for a group of people: `baseline.naive_refinement` in lanes.

Variables are the translation (3), the angles (46), the betas (10); a phase that moves the camera alone has the first
six. A keypoint's terms are a force f = dE/dx and a symmetric matrix A of its position x, so with columns J the gradient
is the sum of J^T f, and Gauss-Newton's matrix that of J^T A J. The weights of Geman-McClure are those at x.
Exponentials have their second derivative in place of Gauss-Newton's.
"""

from typing import Any

import warp as wp

from skelfit.fitting.backends.body_tables import NUM_BETAS, BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables

from .betas_twists import BetaTwists, shape_speeds, shape_twists
from .damped_step import NewtonScratch
from .joint_chain import pose
from .joint_frames import JointFrames
from .keypoint_columns import KeypointScratch, differentiate_keypoints, place_keypoints
from .lanes import A1, A2, A3, V, choose, exceeds, m, sine_and_turn, sync
from .quadratic import exceeds_limit, limit_excess
from .rest_joints import shape_joints
from .rotations import Matrix, times

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

K: int = NUM_BETAS
ANGLES = 3  # the first variable that is an angle
BETAS = 49  # the first that is a beta
VARIABLES = 59
CAMERA = 6  # variables of the camera
POINTS = 44
_LARGEST_EXPONENT = 16.0


@wp.struct
class RefineRules:
    """Constants of a phase; weights are factors of squares."""

    steps: int
    camera: int  # 1: the camera alone moves
    torso: int  # 1: against keypoints of the torso alone
    sigma2: float
    reprojection: float
    depth: float
    shape: float
    angles: float
    limits: float
    spine: float
    anchor_pose: float
    anchor_root: float
    anchor_skin: float  # of one keypoint
    anchor_betas: float
    anchor_move: float
    nearest: float  # m
    tolerance: float
    max_angle_step: float
    max_move_step: float
    max_beta_step: float
    damping: float
    damping_min: float
    damping_max: float
    damping_up: float
    damping_down: float
    damping_at_rest: float
    noise: float


@wp.struct
class RefineScratch:
    """For each of S slots."""

    x: A2  # (S, 59)
    trial: A2  # (S, 59)
    balls: A2  # (S, .)
    angles: A2  # (S, 46)
    betas: A2  # (S, K)
    given: A3  # (S, 44, 3) keypoints in units, and confidences
    camera: A2  # (S, 6) the first two rows of the intrinsics, in units
    depth: A1  # (S,) m, of the start
    label: A2  # (S, 59) the anchor
    label_points: A3  # (S, 44, 3) m, the anchor's keypoints without translation
    label_joints: A3  # (S, 24, 9) rotations of the anchor's joints in their frames
    turns: A2  # (S, 3 * 46) axes of DoFs as moved by the joint's later ones
    forces: A3  # (S, 44, 6) of a keypoint: of all terms, of reprojection
    weights: A3  # (S, 44, 6) A of reprojection: xx, xy, xz, yy, yz, zz
    scaled: A3  # (S, columns, 3) A J
    costs: A2  # (S, 68) of each keypoint and joint


def make_refine_scratch(slots: int, balls: int, columns: int, device: str) -> Any:
    """Scratch for so many groups."""
    scratch = RefineScratch()
    scratch.depth = wp.zeros(slots, dtype=V, device=device)
    for name, shape in (
        ("x", (VARIABLES,)), ("trial", (VARIABLES,)), ("balls", (balls,)), ("angles", (46,)), ("betas", (K,)),
        ("given", (POINTS, 3)), ("camera", (6,)), ("label", (VARIABLES,)), ("label_points", (POINTS, 3)),
        ("label_joints", (24, 9)), ("turns", (3 * 46,)), ("forces", (POINTS, 6)), ("weights", (POINTS, 6)),
        ("scaled", (columns, 3)), ("costs", (POINTS + 24,)),
    ):  # fmt: skip
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.func
def exponential(a: V) -> V:
    """exp(a) to 1e-5 of itself for a within 16; beyond, that of 16 or -16."""
    largest = V(wp.static(_LARGEST_EXPONENT))
    x = wp.min(wp.max(a, -largest), largest) * wp.static(1.0 / 64.0)
    y = V(wp.static(1.0 / 120.0)) + x * wp.static(1.0 / 720.0)
    y = V(wp.static(1.0 / 6.0)) + m(x, V(wp.static(1.0 / 24.0)) + m(x, y))
    y = V(1.0) + m(x, V(1.0) + m(x, V(0.5) + m(x, y)))
    for _ in range(6):
        y = m(y, y)
    return y


@wp.func
def _about(i: int, a: V, tables: KeypointTables) -> Matrix:
    """The rotation by a about the axis of DoF i."""
    x = tables.axes[i, 0]
    y = tables.axes[i, 1]
    z = tables.axes[i, 2]
    sine, turn = sine_and_turn(a)
    r = Matrix()
    r[0] = V(1.0) - turn * (y * y + z * z)
    r[1] = turn * (x * y) - sine * z
    r[2] = turn * (x * z) + sine * y
    r[3] = turn * (x * y) + sine * z
    r[4] = V(1.0) - turn * (x * x + z * z)
    r[5] = turn * (y * z) - sine * x
    r[6] = turn * (x * z) - sine * y
    r[7] = turn * (y * z) + sine * x
    r[8] = V(1.0) - turn * (x * x + y * y)
    return r


@wp.func
def _joint_rotation(
    s: int, j: int, x: A2, tables: KeypointTables, body: BodyTables, scratch: RefineScratch
) -> Matrix:
    """The rotation of joint j in its frame; writes the axes of its DoFs as moved by the later ones."""
    r = Matrix()
    for i in range(3):
        r[4 * i] = V(1.0)
    first = body.first_dof[j]
    stop = body.first_dof[j + 1]
    for n in range(first, stop):
        i = first + stop - 1 - n
        for c in range(3):
            turned = tables.axes[i, 0] * r[3 * c] + tables.axes[i, 1] * r[3 * c + 1]
            scratch.turns[s, 3 * i + c] = turned + tables.axes[i, 2] * r[3 * c + 2]
        r = times(r, _about(i, x[s, wp.static(ANGLES) + i], tables))
    return r


@wp.func
def write_label_joints(s: int, t: int, tables: KeypointTables, body: BodyTables, scratch: RefineScratch):
    """The rotations of the anchor's joints."""
    for j in range(t, 24, wp.block_dim()):
        r = _joint_rotation(s, j, scratch.label, tables, body, scratch)
        for i in range(9):
            scratch.label_joints[s, j, i] = r[i]
    sync()


@wp.func
def _point_terms(
    s: int, k: int, x: A2, rules: RefineRules, tables: KeypointTables, points: A3, scratch: RefineScratch
):
    """Force, matrix and cost of keypoint k."""
    confidence = scratch.given[s, k, 2]
    weight = rules.reprojection * m(confidence, confidence)
    if rules.torso != 0:
        weight = weight * tables.torso[k]
    px = points[s, k, 0] + x[s, 0]
    py = points[s, k, 1] + x[s, 1]
    pz = points[s, k, 2] + x[s, 2]
    behind = exceeds(V(rules.nearest), pz)
    over = wp.cw_div(V(1.0), choose(behind, V(1.0), pz))
    square = V()
    rows = Matrix()  # of each image coordinate: its offset, then d/dx, d/dy, d/dz
    for r in range(2):
        u = m(scratch.camera[s, 3 * r], px) + m(scratch.camera[s, 3 * r + 1], py)
        u = m(u, over)
        off = u + scratch.camera[s, 3 * r + 2] - scratch.given[s, k, r]
        square += m(off, off)
        rows[4 * r] = off
        rows[4 * r + 1] = m(scratch.camera[s, 3 * r], over)
        rows[4 * r + 2] = m(scratch.camera[s, 3 * r + 1], over)
        rows[4 * r + 3] = -m(u, over)
    share = wp.cw_div(V(rules.sigma2), V(rules.sigma2) + square)
    cost = choose(behind, V(rules.sigma2), m(share, square))
    held = 2.0 * choose(behind, V(0.0), m(weight, m(share, share)))
    total = m(weight, cost)
    at = int(0)
    for a in range(3):
        force = m(held, m(rows[0], rows[1 + a]) + m(rows[4], rows[5 + a]))
        scratch.forces[s, k, 3 + a] = force
        away = points[s, k, a] - scratch.label_points[s, k, a]
        total += rules.anchor_skin * m(away, away)
        scratch.forces[s, k, a] = force + (2.0 * rules.anchor_skin) * away
        for b in range(a, 3):
            scratch.weights[s, k, at] = m(held, m(rows[1 + a], rows[1 + b]) + m(rows[5 + a], rows[5 + b]))
            at += 1
    scratch.costs[s, k] = total


@wp.func
def _scale_column(
    s: int, c: int, rules: RefineRules, tables: KeypointTables, columns: A3, scratch: RefineScratch
):
    """A J of column c."""
    k = tables.column_point[c]
    x = columns[s, c, 0]
    y = columns[s, c, 1]
    z = columns[s, c, 2]
    skin = 2.0 * rules.anchor_skin
    xy = scratch.weights[s, k, 1]
    xz = scratch.weights[s, k, 2]
    yz = scratch.weights[s, k, 4]
    scratch.scaled[s, c, 0] = m(scratch.weights[s, k, 0], x) + m(xy, y) + m(xz, z) + skin * x
    scratch.scaled[s, c, 1] = m(xy, x) + m(scratch.weights[s, k, 3], y) + m(yz, z) + skin * y
    scratch.scaled[s, c, 2] = m(xz, x) + m(yz, y) + m(scratch.weights[s, k, 5], z) + skin * z


@wp.func
def _column_variable(c: int, point: int, tables: KeypointTables) -> int:
    i = tables.column_dof[c]
    v = wp.static(ANGLES) + i
    if i < 0:
        v = wp.static(VARIABLES) - (tables.column_first[point + 1] - c)
    return v


@wp.func
def _moving_row(
    s: int, h: int, r: int, n: int, rules: RefineRules, tables: KeypointTables, columns: A3,
    scratch: RefineScratch, newton: NewtonScratch,
):  # fmt: skip
    """Row r of the translation."""
    for j in range(r, n):
        newton.hessian[h, r, j] = V()
    force = V()
    skin = 2.0 * rules.anchor_skin
    for k in range(wp.static(POINTS)):
        force += scratch.forces[s, k, 3 + r]
        for b in range(r, 3):
            at = b + r + wp.min(r, 1)
            newton.hessian[h, r, b] = newton.hessian[h, r, b] + scratch.weights[s, k, at]
        for c in range(tables.column_first[k], tables.column_first[k + 1]):
            v = _column_variable(c, k, tables)
            if v < n:
                newton.hessian[h, r, v] = newton.hessian[h, r, v] + (
                    scratch.scaled[s, c, r] - skin * columns[s, c, r]
                )
    newton.gradient[h, r] = force


@wp.func
def _turning_row(
    s: int, h: int, i: int, n: int, tables: KeypointTables, columns: A3, scratch: RefineScratch,
    newton: NewtonScratch,
):  # fmt: skip
    """Row i of an angle or a beta; both counted from the first angle."""
    row = wp.static(ANGLES) + i
    for j in range(row, n):
        newton.hessian[h, row, j] = V()
    force = V()
    for e in range(tables.row_first[i], tables.row_first[i + 1]):
        c = tables.row_column[e]
        k = tables.column_point[c]
        x = columns[s, c, 0]
        y = columns[s, c, 1]
        z = columns[s, c, 2]
        force += m(x, scratch.forces[s, k, 0]) + m(y, scratch.forces[s, k, 1]) + m(z, scratch.forces[s, k, 2])
        for d in range(c, tables.column_first[k + 1]):
            v = _column_variable(d, k, tables)
            if v < n:
                newton.hessian[h, row, v] = newton.hessian[h, row, v] + (
                    m(x, scratch.scaled[s, d, 0])
                    + m(y, scratch.scaled[s, d, 1])
                    + m(z, scratch.scaled[s, d, 2])
                )
    newton.gradient[h, row] = force


@wp.func
def _joint_terms(
    s: int, h: int, j: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, body: BodyTables,
    scratch: RefineScratch, newton: NewtonScratch,
):  # fmt: skip
    """Add the anchor of joint j's rotation G to the label's L: weight |G - L|^2 / 2."""
    weight = rules.anchor_pose
    if j == 0:
        weight = rules.anchor_root
    g = _joint_rotation(s, j, x, tables, body, scratch)
    total = V()
    for i in range(9):
        off = g[i] - scratch.label_joints[s, j, i]
        total += m(off, off)
    scratch.costs[s, wp.static(POINTS) + j] = (0.5 * weight) * total
    for i in range(body.first_dof[j], body.first_dof[j + 1]):
        row = wp.static(ANGLES) + i
        if row < n:
            slope = V()
            for r in range(3):
                one = (r + 1) % 3
                two = (r + 2) % 3
                for c in range(3):
                    across = m(g[3 * one + c], scratch.label_joints[s, j, 3 * two + c])
                    across -= m(g[3 * two + c], scratch.label_joints[s, j, 3 * one + c])
                    slope -= m(scratch.turns[s, 3 * i + r], across)
            newton.gradient[h, row] = newton.gradient[h, row] + weight * slope
            for o in range(i, body.first_dof[j + 1]):
                both = V()
                for r in range(3):
                    both += m(scratch.turns[s, 3 * i + r], scratch.turns[s, 3 * o + r])
                column = wp.static(ANGLES) + o
                newton.hessian[h, row, column] = newton.hessian[h, row, column] + (2.0 * weight) * both


@wp.func
def _angle_terms(
    s: int, h: int, i: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, newton: NewtonScratch
) -> V:
    """Add the limits of DoF i; returns their cost."""
    v = wp.static(ANGLES) + i
    low = tables.limits[i, 0]
    high = tables.limits[i, 1]
    excess = limit_excess(x[s, v], low, high)
    total = rules.limits * m(excess, excess)
    slope = (2.0 * rules.limits) * excess
    curvature = (2.0 * rules.limits) * exceeds_limit(excess)
    if rules.angles > 0.0 and high < 1.0e6:
        below = exponential(2.0 * (V(low) - x[s, v]))
        above = exponential(2.0 * (x[s, v] - V(high)))
        total += rules.angles * (below + above)
        slope += (2.0 * rules.angles) * (above - below)
        curvature += (4.0 * rules.angles) * (above + below)
    if v < n:
        newton.gradient[h, v] = newton.gradient[h, v] + slope
        newton.hessian[h, v, v] = newton.hessian[h, v, v] + curvature
    return total


@wp.func
def _held_terms(
    s: int, h: int, v: int, n: int, x: A2, rules: RefineRules, scratch: RefineScratch, newton: NewtonScratch
) -> V:
    """Add what holds variable v, of the translation or a beta, to the label, to 0 or to the depth; returns its cost."""
    weight = rules.anchor_move
    if v >= wp.static(BETAS):
        weight = rules.anchor_betas
    away = x[s, v] - scratch.label[s, v]
    total = weight * m(away, away)
    slope = (2.0 * weight) * away
    curvature = 2.0 * weight
    if v >= wp.static(BETAS):
        total += rules.shape * m(x[s, v], x[s, v])
        slope += (2.0 * rules.shape) * x[s, v]
        curvature += 2.0 * rules.shape
    if v == 2:
        away = x[s, v] - scratch.depth[s]
        total += rules.depth * m(away, away)
        slope += (2.0 * rules.depth) * away
        curvature += 2.0 * rules.depth
    if v < n:
        newton.gradient[h, v] = newton.gradient[h, v] + slope
        newton.hessian[h, v, v] = newton.hessian[h, v, v] + V(curvature)
    return total


@wp.func
def _spine_terms(
    s: int, h: int, k: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, newton: NewtonScratch
) -> V:
    """Add linear form k; returns its cost."""
    first = tables.form_first[k]
    last = tables.form_first[k + 1]
    form = V()
    for a in range(first, last):
        form += tables.form_factor[a] * x[s, wp.static(ANGLES) + tables.form_dof[a]]
    for a in range(first, last):
        i = wp.static(ANGLES) + tables.form_dof[a]
        if i < n:
            factor = 2.0 * rules.spine * tables.form_factor[a]
            newton.gradient[h, i] = newton.gradient[h, i] + factor * form
            for b in range(a, last):
                j = wp.static(ANGLES) + tables.form_dof[b]
                newton.hessian[h, i, j] = newton.hessian[h, i, j] + V(factor * tables.form_factor[b])
    return rules.spine * m(form, form)


@wp.func
def evaluate_refinement(
    s: int, t: int, h: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, body: BodyTables,
    joints: JointFrames, twists: BetaTwists, keypoints: KeypointScratch, scratch: RefineScratch,
    newton: NewtonScratch,
) -> V:  # fmt: skip
    """The value at x (S, 59); gradient and matrix of the first n variables into buffer h of newton."""
    for i in range(t, 46, wp.block_dim()):
        scratch.angles[s, i] = x[s, wp.static(ANGLES) + i]
    for i in range(t, wp.static(K), wp.block_dim()):
        scratch.betas[s, i] = x[s, wp.static(BETAS) + i]
    for i in range(t, 3, wp.block_dim()):
        joints.trans[s, i] = V()
    sync()
    shape_joints(s, t, scratch.betas, body, joints)
    pose(s, t, scratch.angles, body, joints)
    place_keypoints(s, t, scratch.betas, tables, body, joints, keypoints)
    shape_speeds(s, t, body, joints, twists)
    shape_twists(s, t, body, joints, twists)
    differentiate_keypoints(s, t, tables, body, joints, twists, keypoints)
    for k in range(t, wp.static(POINTS), wp.block_dim()):
        _point_terms(s, k, x, rules, tables, keypoints.points, scratch)
    sync()
    for c in range(t, tables.column_dof.shape[0], wp.block_dim()):
        _scale_column(s, c, rules, tables, keypoints.columns, scratch)
    sync()
    for i in range(t, n, wp.block_dim()):
        if i < wp.static(ANGLES):
            _moving_row(s, h, i, n, rules, tables, keypoints.columns, scratch, newton)
        else:
            _turning_row(s, h, i - wp.static(ANGLES), n, tables, keypoints.columns, scratch, newton)
    sync()
    for j in range(t, 24, wp.block_dim()):
        _joint_terms(s, h, j, n, x, rules, tables, body, scratch, newton)
    sync()
    return _small_terms(s, t, h, n, x, rules, tables, scratch, newton)


@wp.func
def _small_terms(
    s: int, t: int, h: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, scratch: RefineScratch,
    newton: NewtonScratch,
) -> V:  # fmt: skip
    """Add the terms of single variables and forms, by one thread; returns the sum of all costs, in each thread."""
    if t == 0:
        total = V()
        for k in range(wp.static(POINTS + 24)):
            total += scratch.costs[s, k]
        for i in range(46):
            total += _angle_terms(s, h, i, n, x, rules, tables, newton)
        for k in range(tables.form_first.shape[0] - 1):
            total += _spine_terms(s, h, k, n, x, rules, tables, newton)
        for v in range(3):
            total += _held_terms(s, h, v, n, x, rules, scratch, newton)
        for v in range(wp.static(BETAS), wp.static(VARIABLES)):
            total += _held_terms(s, h, v, n, x, rules, scratch, newton)
        scratch.costs[s, 0] = total
    sync()
    return scratch.costs[s, 0]
