"""Where a person's joints stand and what each DoF moves, on a CPU: `kinematics` for one person, compiled."""

from __future__ import annotations

from math import pi

import numpy as np

from skelfit.body.dofs import NUM_JOINTS
from skelfit.body.kinematics import ABDUCTION, ELEVATION, SCAPULAE, SPINE, SPINE_BEND, SPINE_EXT
from skelfit.fit.compiled import Array, compiled


@compiled
def pose(
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
        add_slide(j, q, spine, width, height, shift)
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
            _add_slide_slopes(j, q, spine, width, height, up, v)


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
def _curve_bends(angle: float) -> tuple[float, float]:
    """Second derivatives of `_curve`'s displacements."""
    if abs(angle) < 0.1:
        a2 = angle * angle
        return angle * (-1 / 4 + a2 / 36 - a2 * a2 / 960), -1 / 3 + a2 / 10 - a2 * a2 / 168
    _, _, side, up = _curve(angle)
    return (np.cos(angle) - 2 * side) / angle, (-np.sin(angle) - 2 * up) / angle


@compiled
def add_slide(j: int, q: Array, spine: Array, width: float, height: float, shift: Array) -> None:
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
def _add_slide_slopes(
    j: int, q: Array, spine: Array, width: float, height: float, up: Array, v: Array
) -> None:
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
def slide_bends(
    q: Array, spine: Array, width: float, height: float, parents: Array, rot: Array, found: Array
) -> None:
    """Fills found (12, 3): `kinematics.slide_bends`, in the world."""
    for k in range(3):
        up = rot[parents[SPINE[k]]]
        side_b, up_b = _curve_bends(np.float64(q[SPINE_BEND[k]]))
        side_e, up_e = _curve_bends(np.float64(q[SPINE_EXT[k]]))
        for r in range(3):
            found[k, r] = spine[k] * (up[r, 1] * up_b - up[r, 0] * side_b)
            found[3 + k, r] = spine[k] * (up[r, 1] * up_e - up[r, 2] * side_e)
    for k in range(2):
        up, sign = rot[parents[SCAPULAE[k]]], 1.0 - 2.0 * k
        a, e = sign * q[ABDUCTION[k]], sign * q[ELEVATION[k]] - pi / 4
        x, z = sign * width / 4 * np.cos(e) * np.cos(a), -width / 4 * np.sin(a)
        y, both = height / 2 * np.sin(e), -sign * width / 4 * np.sin(e) * np.sin(a)
        for r in range(3):
            found[6 + k, r] = up[r, 0] * x + up[r, 2] * z
            found[8 + k, r] = up[r, 0] * x + up[r, 1] * y
            found[10 + k, r] = up[r, 0] * both
