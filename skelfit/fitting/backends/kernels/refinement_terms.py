"""The objective of a refinement for a group of people: `tools.studies.naive_refinement` in lanes.

Variables are the translation (3), the angles (46), the betas (10), and of some people the log p of the focal length
over the camera's. It is a dolly zoom: a person at depth z of the variables stands at e^p z. That leaves the size in the
image, so p moves keypoints by their perspective alone. A phase that moves the camera alone has the first six.

A keypoint's terms are a force f = dE/dx and a symmetric matrix A of its position x, so with columns J the gradient
is the sum of J^T f, and Gauss-Newton's matrix that of J^T A J. The weights of Geman-McClure are those at x.
"""

import warp as wp

from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.keypoint_tables import KeypointTables

from .betas_twists import BetaTwists, shape_speeds, shape_twists
from .damped_step import NewtonScratch
from .joint_chain import pose
from .joint_frames import JointFrames
from .keypoint_columns import KeypointScratch, differentiate_keypoints, place_keypoints
from .lanes import A2, A3, V, choose, exceeds, m, sync
from .refinement_priors import exponential, joint_terms, small_terms
from .refinement_state import ANGLES, BETAS, FOCAL, POINTS, VARIABLES, K, RefineRules, RefineScratch
from .rest_joints import shape_joints
from .rotations import Matrix

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


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
    zoom = scratch.focal[s, 2]
    away = m(zoom, x[s, 2])
    pz = points[s, k, 2] + away
    behind = exceeds(V(rules.nearest), pz)
    over = wp.cw_div(V(1.0), choose(behind, V(1.0), pz))
    square = V()
    near = m(points[s, k, 2], over)
    slope = V()
    bend = V()
    zooms = Matrix()  # of each image coordinate, by the log focal length; then with x, y, z
    rows = Matrix()  # of each image coordinate: its offset, then d/dx, d/dy, d/dz
    for r in range(2):
        u = m(scratch.camera[s, 3 * r], px) + m(scratch.camera[s, 3 * r + 1], py)
        u = m(m(zoom, u), over)
        off = u + scratch.camera[s, 3 * r + 2] - scratch.given[s, k, r]
        square += m(off, off)
        rows[4 * r] = off
        rows[4 * r + 1] = m(m(zoom, scratch.camera[s, 3 * r]), over)
        rows[4 * r + 2] = m(m(zoom, scratch.camera[s, 3 * r + 1]), over)
        rows[4 * r + 3] = -m(u, over)
        zooms[r] = m(u, near)
        slope += m(off, zooms[r])
        bend += m(zooms[r], zooms[r])
    share = wp.cw_div(V(rules.sigma2), V(rules.sigma2) + square)
    cost = choose(behind, V(rules.sigma2), m(share, square))
    held = 2.0 * choose(behind, V(0.0), m(weight, m(share, share)))
    total = m(weight, cost)
    scratch.zooms[s, k, 3] = m(held, bend)
    scratch.zooms[s, k, 4] = m(held, slope)
    at = int(0)
    for a in range(3):
        force = m(held, m(rows[0], rows[1 + a]) + m(rows[4], rows[5 + a]))
        scratch.forces[s, k, 3 + a] = force
        scratch.zooms[s, k, a] = m(held, m(zooms[0], rows[1 + a]) + m(zooms[1], rows[5 + a]))
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
        if n > wp.static(FOCAL):
            newton.hessian[h, r, wp.static(FOCAL)] = (
                newton.hessian[h, r, wp.static(FOCAL)] + scratch.zooms[s, k, r]
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
        if n > wp.static(FOCAL):
            newton.hessian[h, row, wp.static(FOCAL)] = newton.hessian[h, row, wp.static(FOCAL)] + (
                m(x, scratch.zooms[s, k, 0]) + m(y, scratch.zooms[s, k, 1]) + m(z, scratch.zooms[s, k, 2])
            )
    newton.gradient[h, row] = force


@wp.func
def _focal_row(s: int, h: int, rules: RefineRules, scratch: RefineScratch, newton: NewtonScratch):
    """The last row, of the log focal length."""
    force = (2.0 * rules.focal) * scratch.focal[s, 1]
    curvature = V(2.0 * rules.focal)
    for k in range(wp.static(POINTS)):
        curvature += scratch.zooms[s, k, 3]
        force += scratch.zooms[s, k, 4]
    newton.gradient[h, wp.static(FOCAL)] = force
    newton.hessian[h, wp.static(FOCAL), wp.static(FOCAL)] = curvature


@wp.func
def _zoom_depth(s: int, h: int, n: int, scratch: RefineScratch, newton: NewtonScratch):
    """From the depth of a person to that of the variables, which is as many times smaller as the focal length grew."""
    zoom = scratch.focal[s, 2]
    newton.gradient[h, 2] = m(zoom, newton.gradient[h, 2])
    newton.hessian[h, 2, 2] = m(zoom, newton.hessian[h, 2, 2])
    for i in range(2):
        newton.hessian[h, i, 2] = m(zoom, newton.hessian[h, i, 2])
    for j in range(2, n):
        newton.hessian[h, 2, j] = m(zoom, newton.hessian[h, 2, j])


@wp.func
def evaluate_refinement(
    s: int, t: int, h: int, n: int, x: A2, rules: RefineRules, tables: KeypointTables, body: BodyTables,
    joints: JointFrames, twists: BetaTwists, keypoints: KeypointScratch, scratch: RefineScratch,
    newton: NewtonScratch,
) -> V:  # fmt: skip
    """The value at x (S, 59) and the trial's focal lengths; gradient and matrix of the first n variables into buffer h
    of newton."""
    for i in range(t, 46, wp.block_dim()):
        scratch.angles[s, i] = x[s, wp.static(ANGLES) + i]
    for i in range(t, wp.static(K), wp.block_dim()):
        scratch.betas[s, i] = x[s, wp.static(BETAS) + i]
    for i in range(t, 3, wp.block_dim()):
        joints.trans[s, i] = V()
    if t == 0:
        scratch.focal[s, 2] = exponential(scratch.focal[s, 1])
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
        if i == wp.static(FOCAL):
            _focal_row(s, h, rules, scratch, newton)
        elif i < wp.static(ANGLES):
            _moving_row(s, h, i, n, rules, tables, keypoints.columns, scratch, newton)
        else:
            _turning_row(s, h, i - wp.static(ANGLES), n, tables, keypoints.columns, scratch, newton)
    sync()
    if t == 0:
        _zoom_depth(s, h, n, scratch, newton)
    sync()
    for j in range(t, 24, wp.block_dim()):
        joint_terms(s, h, j, n, x, rules, tables, body, scratch, newton)
    sync()
    value = small_terms(s, t, h, n, x, rules, tables, scratch, newton)
    return value + rules.focal * m(scratch.focal[s, 1], scratch.focal[s, 1])
