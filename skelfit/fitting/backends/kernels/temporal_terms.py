"""The ties between the frames of a sequence: a cost on deviations from the label's own motion.

A joint's rotation R(q) deviates from R(s), the label's in closed form, by D = R(s)^T R(q). Of two consecutive frames f
and g, each joint adds

    w |D_g - D_f|^2 / 2,   w = weight / dt^2   (m^2 / rad^2),

which for small angles is w times the squared angle between the deviations. A motion of the label costs nothing, however
fast. With u_i = R(s)^T a_i, and a_i the axis of variable i as moved by the joint's later ones, dD / dx_i is [u_i]x D.
With M = D_g D_f^T, the gradient along a variable of f is

    -w (u_x (M_21 - M_12) + u_y (M_02 - M_20) + u_z (M_10 - M_01)),

and along a variable of g the same of M^T. The Gauss-Newton matrix is 2 w u_i . u_j within a frame and
-w ((u_i . v_j) tr M - u_i^T M v_j), for u of f and v of g, across.
"""

# Warp reads annotations when it compiles, so that they cannot be postponed in the files of kernels.
from typing import Any

import warp as wp

from skelfit.fitting.terms.temporal_smoothness import TiedJoints

from .cyclic_reduction import ChainSystem, entry, write_entry
from .lanes import F1, F2, F3, I2, L, V, gather, m, scatter, sync
from .rotations import Matrix, rotation_about, times, transposed

wp.set_module_options({"enable_backward": False, "max_unroll": 1})

_FLOOR = 1e-8  # of the damping, as a share of the largest curvature
_TINY = 1.1754943508222875e-38


@wp.struct
class SequenceTerms:
    """The ties and equations of N frames with n variables."""

    start: F2  # (N, 46) rad, s
    weight: F2  # (N, 2) m^2 / rad^2, of the ties to the frame before and to the frame after
    damping: F1  # (N,) share of the matrix's diagonal
    deviation: F3  # (N, K, 9) D, row by row
    turns: F3  # (N, n, 3) u
    parts: F3  # (N, K, 2) m^2, of the ties to the frame before and to the frame after
    value: F2  # (N, 3) m^2: the frame alone, its tie to the frame before, its tie to the frame after
    gradient: F2  # (N, n)
    added: F2  # (N, n) what damping adds to the diagonal
    predicted: F1  # (N,) m^2, a frame's part of the predicted decrease


def make_sequence_terms(frames: int, n: int, joints: int, device: str) -> Any:
    """Scratch for so many frames."""
    sequences = SequenceTerms()
    shapes: Any = {
        "start": (46,), "weight": (2,), "damping": (), "deviation": (joints, 9), "turns": (n, 3), "parts": (joints,
        2), "value": (3,), "gradient": (n,), "added": (n,), "predicted": (),
    }  # fmt: skip
    for name, shape in shapes.items():
        setattr(sequences, name, wp.zeros((frames, *shape), dtype=float, device=device))
    return sequences


@wp.func
def _joint(first: int, stop: int, g: int, frames: I2, q: F2, tied: TiedJoints) -> Matrix:
    """The rotation of a joint with variables first .. stop; q (N, 46)."""
    r = rotation_about(
        tied.axes[first, 0], tied.axes[first, 1], tied.axes[first, 2], gather(q, frames, g, tied.dofs[first])
    )
    for i in range(first + 1, stop):
        a = gather(q, frames, g, tied.dofs[i])
        r = times(rotation_about(tied.axes[i, 0], tied.axes[i, 1], tied.axes[i, 2], a), r)
    return r


@wp.func
def _matrix(x: F3, frames: I2, g: int, k: int) -> Matrix:
    r = Matrix()
    for i in range(9):
        r[i] = entry(x, frames, g, k, i)
    return r


@wp.kernel
def compute_deviations(frames: I2, q: F2, tied: TiedJoints, sequences: SequenceTerms):
    """D and u of frames (G, L)."""
    g, t = wp.tid()
    for k in range(t, tied.first.shape[0] - 1, wp.block_dim()):
        first = tied.first[k]
        stop = tied.first[k + 1]
        back = transposed(_joint(first, stop, g, frames, sequences.start, tied))
        d = times(back, _joint(first, stop, g, frames, q, tied))
        for i in range(9):
            write_entry(sequences.deviation, frames, g, k, i, d[i])
        for n in range(first, stop):
            i = first + stop - 1 - n  # the last one first: no other variable moves its axis
            x = tied.axes[i, 0]
            y = tied.axes[i, 1]
            z = tied.axes[i, 2]
            for r in range(3):
                write_entry(
                    sequences.turns, frames, g, i, r, back[3 * r] * x + back[3 * r + 1] * y + back[3 * r + 2] *
                    z,
                )  # fmt: skip
            back = times(back, rotation_about(x, y, z, gather(q, frames, g, tied.dofs[i])))


@wp.func
def _across(u: Matrix, i: int, v: Matrix, j: int, n: Matrix) -> V:
    """(u_i . v_j) tr M - u_i^T M v_j, n = M."""
    trace = n[0] + n[4] + n[8]
    e = V()
    for r in range(3):
        a = m(u[3 * i + r], trace)
        for c in range(3):
            a -= m(u[3 * i + c], n[3 * c + r])
        e += m(a, v[3 * j + r])
    return e


@wp.func
def _along(u: Matrix, i: int, n: Matrix) -> V:
    """u_x (M_21 - M_12) + u_y (M_02 - M_20) + u_z (M_10 - M_01), n = M."""
    return m(u[3 * i], n[7] - n[5]) + m(u[3 * i + 1], n[2] - n[6]) + m(u[3 * i + 2], n[3] - n[1])


@wp.func
def _turns_of(k: int, g: int, frames: I2, tied: TiedJoints, sequences: SequenceTerms) -> Matrix:
    """u of a joint's variables, one after the other."""
    u = Matrix()
    for i in range(tied.first[k], tied.first[k + 1]):
        for r in range(3):
            u[3 * (i - tied.first[k]) + r] = entry(sequences.turns, frames, g, i, r)
    return u


@wp.func
def _tie_joint(
    k: int, g: int, frames: I2, before: I2, after: I2, before_weight: V, after_weight: V, tied: TiedJoints,
    sequences: SequenceTerms, system: ChainSystem
):  # fmt: skip
    """Add joint k to gradient and matrices, and to the values of the ties."""
    d = _matrix(sequences.deviation, frames, g, k)
    before_deviation = _matrix(sequences.deviation, before, g, k)
    after_deviation = _matrix(sequences.deviation, after, g, k)
    u = _turns_of(k, g, frames, tied, sequences)
    v = _turns_of(k, g, after, tied, sequences)
    back = transposed(d)
    from_before = times(before_deviation, back)
    to_after = times(after_deviation, back)
    first = tied.first[k]
    count = tied.first[k + 1] - first
    for i in range(count):
        e = m(before_weight, _along(u, i, from_before)) + m(after_weight, _along(u, i, to_after))
        scatter(
            sequences.gradient, frames, g, first + i, gather(sequences.gradient, frames, g, first + i) - e
        )
        for j in range(i, count):
            dot = m(u[3 * i], u[3 * j]) + m(u[3 * i + 1], u[3 * j + 1]) + m(u[3 * i + 2], u[3 * j + 2])
            e = entry(system.matrix, frames, g, first + i, first + j) + 2.0 * m(
                before_weight + after_weight, dot
            )
            write_entry(system.matrix, frames, g, first + i, first + j, e)
        for j in range(count):
            write_entry(
                system.coupling,
                frames,
                g,
                first + i,
                first + j,
                -m(after_weight, _across(u, i, v, j, to_after)),
            )
    write_entry(
        sequences.parts, frames, g, k, 0, 0.5 * m(before_weight, _squared_difference(before_deviation, d))
    )
    write_entry(
        sequences.parts, frames, g, k, 1, 0.5 * m(after_weight, _squared_difference(after_deviation, d))
    )


@wp.func
def _squared_difference(a: Matrix, b: Matrix) -> V:
    """The sum of squares of the difference."""
    total = V()
    for i in range(9):
        difference = a[i] - b[i]
        total += m(difference, difference)
    return total


@wp.kernel
def tie(frames: I2, before: I2, after: I2, tied: TiedJoints, sequences: SequenceTerms, system: ChainSystem):
    """Add the ties to the equations of frames (G, L); before, after (G, L): their neighbours, -1: none."""
    g, t = wp.tid()
    n = system.right.shape[1]
    for i in range(t, n, wp.block_dim()):
        for j in range(n):
            write_entry(system.coupling, frames, g, i, j, V())
    sync()
    before_weight = gather(sequences.weight, frames, g, 0)
    after_weight = gather(sequences.weight, frames, g, 1)
    for k in range(t, tied.first.shape[0] - 1, wp.block_dim()):
        _tie_joint(k, g, frames, before, after, before_weight, after_weight, tied, sequences, system)
    sync()
    for c in range(t, 2, wp.block_dim()):
        total = V()
        for k in range(tied.first.shape[0] - 1):
            total += entry(sequences.parts, frames, g, k, c)
        scatter(sequences.value, frames, g, 1 + c, total)


@wp.kernel
def damp(frames: I2, sequences: SequenceTerms, system: ChainSystem):
    """Damp the matrices of frames (G, L), and set the right sides."""
    g, t = wp.tid()
    n = system.right.shape[1]
    largest = V()
    for i in range(n):
        largest = wp.max(largest, entry(system.matrix, frames, g, i, i))
    damping = V()
    for k in range(wp.static(L)):
        damping[k] = sequences.damping[frames[g, k]]
    sync()
    for i in range(t, n, wp.block_dim()):
        diagonal = entry(system.matrix, frames, g, i, i)
        added = m(damping, diagonal) + largest * wp.static(_FLOOR) + V(wp.static(_TINY))
        scatter(sequences.added, frames, g, i, added)
        write_entry(system.matrix, frames, g, i, i, diagonal + added)
        scatter(system.right, frames, g, i, -gather(sequences.gradient, frames, g, i))


@wp.func
def write_promise(g: int, frames: I2, sequences: SequenceTerms, system: ChainSystem):
    """Write each frame's part of the decrease that the solution d of frames (G, L) promises.

    The decrease is -g . d - d . H d / 2. As (H + C) d = -g with the damping C, it equals (d . C d - g . d) / 2.
    """
    total = V()
    for i in range(system.right.shape[1]):
        d = gather(system.x, frames, g, i)
        change = m(gather(sequences.added, frames, g, i), d) - gather(sequences.gradient, frames, g, i)
        total += m(d, change)
    for k in range(wp.static(L)):
        sequences.predicted[frames[g, k]] = 0.5 * total[k]
