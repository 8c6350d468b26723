"""The start of a fit to a bare mesh: body parts aligned to it one by one, and the mesh in the frame of its pelvis.

A part is aligned by the rotation R that minimises sum w |y - c_y - R (x - c_x)|^2: x at rest, y on the mesh, w weights
that sum to 1, c weighted means. With M = sum w (x - c_x) (y - c_y)^T the unit quaternion of R is the eigenvector of the
largest eigenvalue of a symmetric 4 x 4 matrix N of M's entries, with trace 0 (Horn 1987). Repeated squaring turns
N + c I, whose eigenvalues are not negative, into the projection onto that eigenvector.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
from typing import Any

import warp as wp

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.fitting.backends.body_tables import BodyTables
from skelfit.fitting.backends.retraction_tables import BallTables
from skelfit.fitting.start.angle_tables import AngleTables
from skelfit.fitting.start.mesh_parts import BodyParts

from .angles import write_angles
from .joint_frames import JointFrames
from .lanes import A2, A3, F2, F3, I2, L, V, choose, exceeds, gather, m, scatter, square_root, sync
from .rest_joints import shape_joints
from .rotations import Matrix, Quaternion, compose, matrix_of, normalized, quaternion_at

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

Symmetric: Any = wp.types.matrix(shape=(10, L), dtype=float)  # 4 x 4, the upper triangle row by row
# If two eigenvalues differ by 1 % of their sum, the share of the smaller one is then below the digits of a float.
_SQUARINGS = 12
_TINY = 1.0e-30  # m^2; what is smaller has no direction


@wp.struct
class AlignmentScratch:
    """The alignment of a group, for each of S slots."""

    betas: A2  # (S, 10)
    parts: A3  # (S, P, 4) quaternions of parts
    rotations: A3  # (S, 24, 4) quaternions of SMPL's joints, relative to their parents
    centres: A3  # (S, 2, 3) m, the first part's mean at rest and on the mesh
    q: A2  # (S, 46) rad


def make_alignment_scratch(slots: int, parts: int, device: str) -> AlignmentScratch:
    """Scratch for so many groups at a time."""
    scratch = AlignmentScratch()
    for name, shape in (
        ("betas", (10,)),
        ("parts", (parts, 4)),
        ("rotations", (NUM_JOINTS, 4)),
        ("centres", (2, 3)),
        ("q", (NUM_DOFS,)),
    ):
        setattr(scratch, name, wp.zeros((slots, *shape), dtype=V, device=device))
    return scratch


@wp.kernel
def align_parts(
    mesh: F3, betas: F2, rows: I2, parts: BodyParts, angles: AngleTables, body: BodyTables, balls: BallTables,
    joints: JointFrames, scratch: AlignmentScratch, target: A3, q: F2, motion: F2,
):  # fmt: skip
    """The start of people of rows (G, L), from meshes (B, V, 3) m and SKEL's betas (B, 10).

    Writes angles q (B, 46), 0 for the root, and the motion (B, 15) of the first part: R row by row, its mean c_x at
    rest and c_y on the mesh, m. target (G, V, 3) gets the mesh before that motion, R^T (y - c_y) + c_x. balls: of all
    DoFs.
    """
    g, t = wp.tid()
    s = g % scratch.q.shape[0]
    for i in range(t, scratch.betas.shape[1], wp.block_dim()):
        scratch.betas[s, i] = gather(betas, rows, g, i)
    sync()
    shape_joints(s, t, scratch.betas, body, joints)
    for p in range(t, parts.before.shape[0], wp.block_dim()):
        _align_part(s, g, p, mesh, rows, parts, scratch)
    sync()
    _write_rotations(s, t, parts, scratch)
    sync()
    write_angles(s, t, scratch.rotations, angles, body, balls, joints, scratch.q)
    r = matrix_of(quaternion_at(scratch.parts, s, 0))
    for v in range(t, mesh.shape[1], wp.block_dim()):
        x = _mesh_coordinate(mesh, rows, g, v, 0) - scratch.centres[s, 1, 0]
        y = _mesh_coordinate(mesh, rows, g, v, 1) - scratch.centres[s, 1, 1]
        z = _mesh_coordinate(mesh, rows, g, v, 2) - scratch.centres[s, 1, 2]
        for i in range(3):
            target[g, v, i] = m(r[i], x) + m(r[3 + i], y) + m(r[6 + i], z) + scratch.centres[s, 0, i]
    sync()
    for i in range(t, wp.static(NUM_DOFS), wp.block_dim()):
        scatter(q, rows, g, i, scratch.q[s, i])
    for i in range(t, 15, wp.block_dim()):
        if i < 9:
            scatter(motion, rows, g, i, r[i])
        else:
            scatter(motion, rows, g, i, scratch.centres[s, (i - 9) // 3, i % 3])


@wp.func_native(f"""
    wp::vec_t<{L}, float> r;
    const int* person = wp::address(rows, g, 0);
    const char* first = (const char*)wp::address(mesh, 0, v, i);
    for (int k = 0; k < {L}; ++k) r[k] = *(const float*)(first + (size_t)person[k] * mesh.strides[0]);
    return r;
""")
def _mesh_coordinate(mesh: F3, rows: I2, g: int, v: int, i: int) -> V:
    """A coordinate of vertex v of each lane's mesh, m. In C++ for speed: a fit reads every vertex by it."""


@wp.func
def _rest_coordinate(s: int, n: int, i: int, parts: BodyParts, scratch: AlignmentScratch) -> V:
    """A coordinate of row n of the parts' vertices at rest, m."""
    moved = V()
    for k in range(scratch.betas.shape[1]):
        moved += scratch.betas[s, k] * parts.speeds[n, i, k]
    return V(parts.rest[n, i]) + moved


@wp.func
def _align_part(s: int, g: int, p: int, mesh: F3, rows: I2, parts: BodyParts, scratch: AlignmentScratch):
    """The quaternion of part p, and of the first part the means."""
    first = parts.first[p]
    last = parts.first[p + 1]
    # Relative to the part's first vertex, so that no digits are lost far from the origin.
    v = parts.vertices[first]
    x0 = _rest_coordinate(s, first, 0, parts, scratch)
    x1 = _rest_coordinate(s, first, 1, parts, scratch)
    x2 = _rest_coordinate(s, first, 2, parts, scratch)
    y0 = _mesh_coordinate(mesh, rows, g, v, 0)
    y1 = _mesh_coordinate(mesh, rows, g, v, 1)
    y2 = _mesh_coordinate(mesh, rows, g, v, 2)
    a0 = V()
    a1 = V()
    a2 = V()
    b0 = V()
    b1 = V()
    b2 = V()
    m00 = V()
    m01 = V()
    m02 = V()
    m10 = V()
    m11 = V()
    m12 = V()
    m20 = V()
    m21 = V()
    m22 = V()
    for n in range(first, last):
        w = parts.weights[n]
        v = parts.vertices[n]
        dx0 = w * (_rest_coordinate(s, n, 0, parts, scratch) - x0)
        dx1 = w * (_rest_coordinate(s, n, 1, parts, scratch) - x1)
        dx2 = w * (_rest_coordinate(s, n, 2, parts, scratch) - x2)
        dy0 = _mesh_coordinate(mesh, rows, g, v, 0) - y0
        dy1 = _mesh_coordinate(mesh, rows, g, v, 1) - y1
        dy2 = _mesh_coordinate(mesh, rows, g, v, 2) - y2
        a0 += dx0
        a1 += dx1
        a2 += dx2
        b0 += w * dy0
        b1 += w * dy1
        b2 += w * dy2
        m00 += m(dx0, dy0)
        m01 += m(dx0, dy1)
        m02 += m(dx0, dy2)
        m10 += m(dx1, dy0)
        m11 += m(dx1, dy1)
        m12 += m(dx1, dy2)
        m20 += m(dx2, dy0)
        m21 += m(dx2, dy1)
        m22 += m(dx2, dy2)
    if p == 0:
        scratch.centres[s, 0, 0] = x0 + a0
        scratch.centres[s, 0, 1] = x1 + a1
        scratch.centres[s, 0, 2] = x2 + a2
        scratch.centres[s, 1, 0] = y0 + b0
        scratch.centres[s, 1, 1] = y1 + b1
        scratch.centres[s, 1, 2] = y2 + b2
    c = Matrix()
    c[0] = m00 - m(a0, b0)
    c[1] = m01 - m(a0, b1)
    c[2] = m02 - m(a0, b2)
    c[3] = m10 - m(a1, b0)
    c[4] = m11 - m(a1, b1)
    c[5] = m12 - m(a1, b2)
    c[6] = m20 - m(a2, b0)
    c[7] = m21 - m(a2, b1)
    c[8] = m22 - m(a2, b2)
    rotation = nearest_rotation(c)
    for i in range(4):
        scratch.parts[s, p, i] = rotation[i]


@wp.func
def nearest_rotation(c: Matrix) -> Quaternion:
    """The rotation R with the largest trace of R c: it aligns x to y, c = sum w x y^T; the identity for c = 0."""
    a = Symmetric()
    # In the order of the quaternion, (x, y, z, w).
    a[0] = c[0] - c[4] - c[8]
    a[1] = c[1] + c[3]
    a[2] = c[2] + c[6]
    a[3] = c[5] - c[7]
    a[4] = c[4] - c[0] - c[8]
    a[5] = c[5] + c[7]
    a[6] = c[6] - c[2]
    a[7] = c[8] - c[0] - c[4]
    a[8] = c[1] - c[3]
    a[9] = c[0] + c[4] + c[8]
    square = V()
    for i in range(9):
        square += m(c[i], c[i])
    # Eigenvalues of a have a mean of 0 and squares that sum to 4 |c|^2: none is below -sqrt(3) |c|.
    up = wp.static(3.0**0.5) * square_root(square)
    a[0] = a[0] + up
    a[4] = a[4] + up
    a[7] = a[7] + up
    a[9] = a[9] + up + V(wp.static(_TINY))
    for _k in range(wp.static(_SQUARINGS)):
        a = _squared(a)
    # Each column is a multiple of the eigenvector; take the longest.
    q = _column(a[0], a[1], a[2], a[3])
    best = a[0]
    q = _longer(q, best, _column(a[1], a[4], a[5], a[6]), a[4])
    best = wp.max(best, a[4])
    q = _longer(q, best, _column(a[2], a[5], a[7], a[8]), a[7])
    best = wp.max(best, a[7])
    q = _longer(q, best, _column(a[3], a[6], a[8], a[9]), a[9])
    return normalized(q)


@wp.func
def _squared(a: Symmetric) -> Symmetric:
    """a^2 over the square of a's trace."""
    over = wp.cw_div(V(1.0), a[0] + a[4] + a[7] + a[9])
    b = Symmetric()
    for i in range(10):
        b[i] = m(over, a[i])
    r = Symmetric()
    r[0] = m(b[0], b[0]) + m(b[1], b[1]) + m(b[2], b[2]) + m(b[3], b[3])
    r[1] = m(b[0], b[1]) + m(b[1], b[4]) + m(b[2], b[5]) + m(b[3], b[6])
    r[2] = m(b[0], b[2]) + m(b[1], b[5]) + m(b[2], b[7]) + m(b[3], b[8])
    r[3] = m(b[0], b[3]) + m(b[1], b[6]) + m(b[2], b[8]) + m(b[3], b[9])
    r[4] = m(b[1], b[1]) + m(b[4], b[4]) + m(b[5], b[5]) + m(b[6], b[6])
    r[5] = m(b[1], b[2]) + m(b[4], b[5]) + m(b[5], b[7]) + m(b[6], b[8])
    r[6] = m(b[1], b[3]) + m(b[4], b[6]) + m(b[5], b[8]) + m(b[6], b[9])
    r[7] = m(b[2], b[2]) + m(b[5], b[5]) + m(b[7], b[7]) + m(b[8], b[8])
    r[8] = m(b[2], b[3]) + m(b[5], b[6]) + m(b[7], b[8]) + m(b[8], b[9])
    r[9] = m(b[3], b[3]) + m(b[6], b[6]) + m(b[8], b[8]) + m(b[9], b[9])
    return r


@wp.func
def _column(x: V, y: V, z: V, w: V) -> Quaternion:
    q = Quaternion()
    q[0] = x
    q[1] = y
    q[2] = z
    q[3] = w
    return q


@wp.func
def _longer(p: Quaternion, a: V, q: Quaternion, b: V) -> Quaternion:
    """q where b > a, else p."""
    other = exceeds(b, a)
    r = Quaternion()
    for i in range(4):
        r[i] = choose(other, q[i], p[i])
    return r


@wp.func
def _write_rotations(s: int, t: int, parts: BodyParts, scratch: AlignmentScratch):
    """SMPL's local rotations: that of each part relative to the part above; the identity for joints without a part."""
    for j in range(t, wp.static(NUM_JOINTS), wp.block_dim()):
        rotation = Quaternion()
        rotation[3] = V(1.0)
        p = parts.part[j]
        if p >= 0:
            back = quaternion_at(scratch.parts, s, parts.before[p])
            for i in range(3):
                back[i] = -back[i]
            rotation = compose(back, quaternion_at(scratch.parts, s, p))
        for i in range(4):
            scratch.rotations[s, j, i] = rotation[i]
