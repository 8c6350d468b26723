"""Spine and rib cage, procedural, fitted to the depth and width of the skin."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike

from tools.open_body_build.skel_rig import NAMES
from tools.open_body_build.smpl_rig import rise
from tools.open_body_build.solids import Body, Solid, Weigher, mirrored, tube, vec


def fixed(shares: dict[str, float]) -> Weigher:
    """The same shares of SKEL joints for every vertex of a solid."""
    row = np.zeros(24)
    for name, share in shares.items():
        row[NAMES.index(name)] = share
    return lambda p: np.tile(row, (len(p), 1))


def spine_shares(body: Body, y: float) -> dict[str, float]:
    """How a vertebra at height y is shared: pelvis, lumbar, thorax, head."""
    h = np.array(y)
    low = float(rise(h, body.skel["lumbar_body"][1], 0.085))
    high = float(rise(h, body.skel["thorax"][1] + 0.01, 0.085))
    top = float(rise(h, body.skel["head"][1], 0.06))
    shares = {
        "pelvis": 1 - low,
        "lumbar_body": low * (1 - high),
        "thorax": low * high * (1 - top),
        "head": low * high * top,
    }
    return {k: v for k, v in shares.items() if v > 1e-3}


def spine_heights(body: Body) -> np.ndarray:
    """Heights of the centres of C1..C7, T1..T12, L1..L5, from above."""
    top = body.skel["head"][1] + 0.055 * body.size
    bottom = body.skel["femur_l"][1] + 0.085 * body.size
    tall = np.array([0.62] * 7 + list(np.linspace(0.78, 1.15, 12)) + [1.3, 1.35, 1.4, 1.4, 1.4])
    edge = np.concatenate([[0.0], np.cumsum(tall)]) / tall.sum()
    middle = 0.5 * (edge[1:] + edge[:-1])
    return top + (bottom - top) * middle


def spine_centre(body: Body, y: float) -> np.ndarray:
    """Centre of the vertebral bodies at a height: a set distance before the skin of the back."""
    ys = np.linspace(y - 0.03 * body.size, y + 0.03 * body.size, 5)
    back = float(np.mean([body.depth(float(h))[0] for h in ys]))
    waist, neck = body.skel["lumbar_body"][1], body.skel["head"][1] - 0.06 * body.size
    before = np.interp(
        y, [waist - 0.10, waist, waist + 0.15, neck, neck + 0.1], [0.068, 0.060, 0.054, 0.052, 0.056]
    )
    return np.array([0.0, y, back + float(before) * body.size])


def _bone(i: int) -> str:
    return "head" if i < 7 else "lumbar_body" if i >= 19 else "thorax"


def spine_bones(body: Body) -> list[Solid]:
    """24 vertebrae with their processes, and the discs between them."""
    k, solids = body.size, []
    heights = spine_heights(body)
    centres = np.stack([spine_centre(body, float(y)) for y in heights])
    centres[1:-1, 2] = (centres[:-2, 2] + 2 * centres[1:-1, 2] + centres[2:, 2]) / 4
    pitch = np.abs(np.gradient(heights))
    for i, (c, step) in enumerate(zip(centres, pitch, strict=True)):
        wide = k * (0.0125 if i < 7 else float(np.interp(i, [7, 18, 23], [0.0145, 0.019, 0.025])))
        solids += _vertebra(body, i, c, float(step), wide)
        if i + 1 < len(centres):
            below = 0.5 * (c + centres[i + 1])
            gap = 0.13 * step
            solids.append(
                tube(
                    _bone(i),
                    [below + vec(0, gap, 0), below, below - vec(0, gap, 0)],
                    [(0.9 * wide, 0.7 * wide)] * 3,
                    14,
                    3,
                    weights=fixed(spine_shares(body, float(below[1]))),
                )
            )
    return solids


def _vertebra(body: Body, i: int, c: np.ndarray, step: float, wide: float) -> list[Solid]:
    """Body, spinous process, transverse processes and arch of vertebra i (from above), `step` m tall."""
    k, cervical, lumbar = body.size, i < 7, i >= 19
    deep = 0.78 * wide
    weights = fixed(spine_shares(body, float(c[1])))

    def part(
        points: Sequence[tuple[float, float, float]], radii: ArrayLike, around: int, rings: int
    ) -> Solid:
        wide_axis = (1, 0, 0) if points[0][0] == 0 else (0, 1, 0)
        return tube(_bone(i), c + np.array(points), radii, around, rings, wide_axis, weights)

    half = 0.36 * step
    size = [(wide * s, deep * s) for s in (1.0, 0.93, 0.88, 0.93, 1.0)]
    solids = [part([(0, half * s, 0) for s in (1, 0.5, 0, -0.5, -1)], size, 16, 7)]
    drop = k * (-0.006 if cervical else -0.004 if lumbar else -0.018)
    tip, arch = k * (0.036 if lumbar else 0.030), -deep - 0.008 * k
    spinous = [(0, 0, arch), (0, 0.4 * drop, arch - 0.5 * tip + 0.006 * k), (0, drop, arch - tip + 0.010 * k)]
    flat = k * np.array([(0.0035, 0.008), (0.003, 0.006), (0.0035, 0.007 if lumbar else 0.0045)])
    solids.append(part(spinous, flat, 8, 7))
    reach = k * (0.024 if cervical else 0.038 if lumbar else 0.030)
    back = -deep - k * (0.004 if lumbar else 0.010)
    side = [(0.6 * wide, 0, -0.7 * deep), (0.75 * wide, 0, -deep - 0.004 * k), (reach, 0.002 * k, back)]
    arc = [(0.7 * wide, 0, -deep - 0.003 * k), (0.4 * wide, 0, -deep - 0.011 * k), (0, 0, -deep - 0.013 * k)]
    for points, radii, rings in ((side, (0.0065, 0.005, 0.0035), 6), (arc, (0.0045, 0.004, 0.005), 5)):
        left = part(points, k * np.array(radii), 8, rings)
        solids += [left, mirrored(left)]
    return solids


def rib_cage(body: Body) -> list[Solid]:
    """Twelve pairs of ribs with their cartilage, and the sternum."""
    k = body.size
    heights = spine_heights(body)[7:19]
    notch_y = float(body.at["l-clavicle"][1]) - 0.002 * k
    xiphoid_y = float(heights[8]) - 0.012 * k
    line = np.linspace(notch_y, xiphoid_y, 6)
    sternum = np.array([[0, y, body.depth(float(y))[1] - 0.021 * k] for y in line])
    sternum[:, 2] = np.poly1d(np.polyfit(line, sternum[:, 2], 2))(line)
    solids = [
        tube(
            "thorax",
            sternum,
            [(a * k, 0.0055 * k) for a in (0.026, 0.019, 0.016, 0.019, 0.018, 0.006)],
            18,
            24,
            weights=fixed({"thorax": 1.0}),
        )
    ]
    # In the T-pose the muscles between arm and trunk make the skin far wider than the cage of the ribs.
    widest = min(0.133 * k, min(body.half_width(float(y)) for y in heights[6:10]) - 0.016 * k)
    share = np.array([0.46, 0.64, 0.77, 0.86, 0.92, 0.96, 0.99, 1.0, 1.0, 0.98, 0.93, 0.84])
    fall = np.array([0.035, 0.05, 0.062, 0.074, 0.086, 0.098, 0.108, 0.112, 0.112, 0.108, 0.07, 0.05]) * k
    reach = [0.86] * 7 + [0.80, 0.75, 0.70, 0.55, 0.42]
    arch: list[np.ndarray] = []
    for i, y in enumerate(heights):
        c = spine_centre(body, float(y))
        width = (
            min(widest, max(body.half_width(float(y) - 0.5 * float(fall[i])) - 0.016 * k, 0.06)) * share[i]
        )
        front = float(np.interp(y - fall[i], line[::-1], sternum[::-1, 2]))
        rear = c[2] - 0.030 * k
        turn = np.linspace(0.10, reach[i], 12) * np.pi
        x = width * np.sin(turn) ** 0.85
        z = 0.5 * (front + rear) - 0.5 * (front - rear) * np.cos(turn)
        path = np.stack([x, y + 0.004 * k - fall[i] * (1 - np.cos(turn)) / 2, z], 1)
        path = np.concatenate([[c + k * vec(0.018, 0.002, -0.012)], path])
        if i < 7:
            goal = np.array([0.017 * k, max(float(path[-1, 1]) + 0.012 * k * (i - 1) * 0.5, xiphoid_y), 0])
            goal[1] = notch_y - (notch_y - xiphoid_y) * (0.10 + 0.135 * i)
            goal[2] = float(np.interp(goal[1], line[::-1], sternum[::-1, 2]))
            path = np.concatenate([path, [0.5 * (path[-1] + goal) + k * vec(0.004, -0.004, 0.002)], [goal]])
        elif i < 10:
            path = np.concatenate(
                [path, [0.45 * path[-1] + 0.55 * arch[-1] + k * vec(0.004, -0.010, 0)], [arch[-1]]]
            )
        arch.append(path[-2])
        down = {"thorax": 1.0} if i < 9 else {"thorax": 0.85, "lumbar_body": 0.15}
        flat = [(0.0068 * k, 0.0038 * k)] * len(path)
        rib = tube("thorax", path, flat, 10, 34 if i < 10 else 22, (0, 1, 0), fixed(down))
        solids += [rib, mirrored(rib)]
    return solids
