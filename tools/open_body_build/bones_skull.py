"""The skull, procedural: cranium with eye sockets, cheek bones, jaw and teeth."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.solids import Body, Solid, ball, mirrored, tube, vec


def skull(body: Body) -> list[Solid]:
    """Cranium with eye sockets, nose and cheek bones, the jaw and two rows of teeth."""
    k = body.size
    eye, skin = body.at["l-eye"], body.skin[body.head > 0.9]
    upper = skin[skin[:, 1] > eye[1] + 0.035 * k]
    top = float(upper[:, 1].max()) - 0.010 * k
    wide = float(np.abs(upper[:, 0]).max()) - 0.010 * k
    rear, front = float(upper[:, 2].min()) + 0.010 * k, float(upper[:, 2].max()) - 0.010 * k
    base = float(eye[1]) - 0.046 * k
    centre = vec(0, 0.5 * (top + base), 0.5 * (rear + front))
    cranium = ball("head", centre, (wide, 0.5 * (top - base), 0.5 * (front - rear)), 64, 44)
    p = cranium.vertices.copy()
    low = np.clip((centre[1] - p[:, 1]) / (centre[1] - base), 0, 1)
    ahead = np.clip((p[:, 2] - centre[2]) / (0.5 * (front - rear)), -1, 1)
    p[:, 0] *= 1 - 0.16 * low**2 * (1 + ahead)
    p[:, 1] += 0.010 * k * low * np.clip(-ahead, 0, 1)
    p[:, 2] += 0.012 * k * low * np.clip(ahead, 0, 1) * np.clip(1.4 - 1.4 * low, 0, 1)
    for side in (1, -1):
        hole = vec(side * 0.033 * k, float(eye[1]) + 0.001 * k, front)
        d = np.linalg.norm((p - hole) / [0.020 * k, 0.017 * k, 0.05 * k], axis=1)
        p[:, 2] -= 0.030 * k * np.clip(1 - d**2, 0, 1) ** 0.8 * (p[:, 2] > centre[2])
        brow = np.linalg.norm((p - hole - [0, 0.021 * k, 0]) / [0.026 * k, 0.008 * k, 0.05 * k], axis=1)
        p[:, 2] += 0.004 * k * np.exp(-(brow**2)) * (p[:, 2] > centre[2])
    cranium = Solid(p, cranium.faces, "head")
    return [cranium, *_face(body, eye, front, wide)]


def _face(body: Body, eye: np.ndarray, front: float, wide: float) -> list[Solid]:
    k = body.size
    y, z = float(eye[1]), front
    teeth_y = y - 0.068 * k
    mouth = body.depth(teeth_y)[1] - 0.022 * k
    ear_z = float(body.at["head"][2]) + 0.006 * k
    cheek = [
        vec(0.018 * k, y - 0.026 * k, z - 0.010 * k),
        vec(0.040 * k, y - 0.024 * k, z - 0.018 * k),
        vec(wide * 0.86, y - 0.018 * k, z - 0.050 * k),
        vec(wide * 0.88, y - 0.014 * k, ear_z + 0.012 * k),
    ]
    orbit = [
        vec(0.012 * k, y + 0.012 * k, z - 0.006 * k),
        vec(0.014 * k, y - 0.014 * k, z - 0.009 * k),
        vec(0.033 * k, y - 0.021 * k, z - 0.014 * k),
        vec(0.051 * k, y - 0.006 * k, z - 0.024 * k),
        vec(0.052 * k, y + 0.016 * k, z - 0.022 * k),
    ]
    maxilla = [
        vec(0.014 * k, y - 0.028 * k, z - 0.010 * k),
        vec(0.017 * k, y - 0.044 * k, mouth - 0.006 * k),
        vec(0.020 * k, teeth_y + 0.010 * k, mouth - 0.010 * k),
    ]
    left = [
        ball("head", vec(0.016 * k, y - 0.036 * k, z - 0.036 * k), (0.024 * k, 0.026 * k, 0.026 * k), 14, 10),
        tube("head", cheek, [0.009 * k, 0.010 * k, 0.0055 * k, 0.004 * k], 12, 20, (0, 1, 0)),
        tube("head", orbit, [r * k for r in (0.005, 0.005, 0.006, 0.006, 0.005)], 10, 22, (0, 0, 1)),
        tube(
            "head", maxilla, [(0.010 * k, 0.009 * k), (0.012 * k, 0.010 * k), (0.014 * k, 0.012 * k)], 14, 12
        ),
        tube(
            "head",
            [
                vec(0.0035 * k, y + 0.010 * k, z - 0.005 * k),
                vec(0.0045 * k, y - 0.006 * k, z),
                vec(0.0055 * k, y - 0.016 * k, z + 0.003 * k),
            ],
            [0.004 * k, 0.004 * k, 0.003 * k],
            10,
            8,
        ),
    ]
    left += _jaw(body, y, teeth_y, mouth, ear_z)
    return [*left, *(mirrored(s) for s in left)]


def _jaw(body: Body, y: float, teeth_y: float, mouth: float, ear_z: float) -> list[Solid]:
    """Left half of the jaw, and two rows of teeth."""
    k = body.size
    chin = body.depth(teeth_y - 0.038 * k)[1] - 0.013 * k
    angle = vec(0.046 * k, teeth_y - 0.018 * k, ear_z + 0.008 * k)
    half_jaw = [
        vec(0.053 * k, y - 0.022 * k, ear_z),
        vec(0.051 * k, y - 0.050 * k, ear_z + 0.002 * k),
        angle,
        vec(0.036 * k, teeth_y - 0.032 * k, 0.45 * ear_z + 0.55 * chin),
        vec(0.016 * k, teeth_y - 0.038 * k, chin - 0.006 * k),
        vec(0.0, teeth_y - 0.037 * k, chin),
    ]
    flat = [
        (0.005 * k, 0.008 * k),
        (0.005 * k, 0.013 * k),
        (0.0055 * k, 0.015 * k),
        (0.006 * k, 0.012 * k),
        (0.0065 * k, 0.012 * k),
        (0.007 * k, 0.013 * k),
    ]
    jaw = tube("head", half_jaw, flat, 14, 26, (0.8, 0.0, 0.6))
    rows = [jaw]
    for level, lift in ((teeth_y, 0.004), (teeth_y - 0.011 * k, -0.004)):
        for t in range(7):
            a = (t + 0.5) / 7 * 0.62 * np.pi
            c = vec(0.025 * k * np.sin(a), level + lift * k * 0.2, mouth - 0.026 * k * (1 - np.cos(a)))
            rows.append(ball("head", c, (0.0034 * k, 0.0055 * k, 0.0034 * k), 8, 5))
    return rows
