"""Hip bones, sacrum and coccyx, procedural."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.solids import (
    Body,
    Solid,
    ball,
    grid_faces,
    mirrored,
    smooth_path,
    tube,
    turned_into,
    vec,
)


def pelvis_bones(body: Body) -> list[Solid]:
    """Hip bones, sacrum and coccyx."""
    k, hip = body.size, body.skel["femur_l"]
    back = body.depth(float(hip[1]) + 0.06 * k)[0]
    sacrum_z = back + 0.042 * k
    top = vec(0, float(hip[1]) + 0.072 * k, sacrum_z + 0.016 * k)
    sacrum = tube(
        "pelvis",
        [
            top,
            top + k * vec(0, -0.025, -0.012),
            top + k * vec(0, -0.055, -0.020),
            top + k * vec(0, -0.085, -0.014),
            top + k * vec(0, -0.108, 0.004),
        ],
        [
            (a * k, b * k)
            for a, b in ((0.046, 0.017), (0.044, 0.014), (0.030, 0.010), (0.016, 0.007), (0.006, 0.004))
        ],
        22,
        20,
    )
    joint = top + k * vec(0.036, -0.010, -0.006)  # where ilium and sacrum meet
    front = vec(float(hip[0]) + 0.024 * k, float(hip[1]) + 0.068 * k, float(hip[2]) + 0.042 * k)
    crest_y = float(hip[1]) + 0.118 * k
    # The wing: sections from the crest down to the socket; each spans from the rear (sacrum) to the front
    # spine.
    rear = np.array(
        [
            joint + k * vec(0.004, 0.048, -0.004),
            joint + k * vec(0.0, 0.022, -0.012),
            joint + k * vec(0.004, 0.0, -0.010),
            hip + k * vec(-0.004, 0.028, -0.024),
            hip + k * vec(-0.004, 0.006, -0.022),
        ]
    )
    fore = np.array(
        [
            [front[0] + 0.006 * k, crest_y - 0.006 * k, front[2] - 0.028 * k],
            front + k * vec(0.004, 0.012, -0.004),
            front,
            hip + k * vec(-0.004, 0.036, 0.026),
            hip + k * vec(-0.004, 0.008, 0.022),
        ]
    )
    rear, fore = smooth_path(rear, 14), smooth_path(fore, 14)
    wing = _plate(
        "pelvis", rear, fore, bulge=vec(0.020 * k, 0.014 * k, 0), thick=np.linspace(0.0045, 0.012, 14) * k
    )
    socket = _ring(
        "pelvis", hip + k * vec(-0.004, 0, 0.0), 0.029 * k, 0.0075 * k, tilt=vec(0.85, -0.35, 0.40)
    )
    left = [wing, socket, *_branches(body)]
    return [sacrum, *left, *(mirrored(s) for s in left)]


def _branches(body: Body) -> list[Solid]:
    """Pubis and ischium of the left side."""
    k, hip = body.size, body.skel["femur_l"]
    symphysis = vec(0.006 * k, float(hip[1]) - 0.018 * k, 0)
    symphysis[2] = min(body.depth(float(symphysis[1]))[1] - 0.026 * k, float(hip[2]) + 0.062 * k)
    seat = vec(0.62 * float(hip[0]), float(hip[1]) - 0.074 * k, float(hip[2]) - 0.022 * k)
    return [
        tube(
            "pelvis",
            [
                hip + k * vec(-0.018, 0.006, 0.018),
                0.5 * (hip + symphysis) + k * vec(0, 0.012, 0.010),
                symphysis,
            ],
            [0.013 * k, 0.0085 * k, 0.010 * k],
            12,
            14,
            (0, 1, 0),
        ),
        tube(
            "pelvis",
            [hip + k * vec(-0.016, -0.014, -0.012), hip + k * vec(-0.024, -0.045, -0.024), seat],
            [0.016 * k, 0.013 * k, 0.016 * k],
            12,
            12,
        ),
        tube(
            "pelvis",
            [
                seat,
                0.5 * (seat + symphysis) + k * vec(0.0, -0.012, 0.0),
                symphysis + k * vec(0.002, -0.014, -0.004),
            ],
            [0.012 * k, 0.007 * k, 0.0085 * k],
            12,
            12,
        ),
        ball("pelvis", symphysis + k * vec(0, -0.008, 0), (0.007 * k, 0.018 * k, 0.010 * k), 12, 8),
    ]


def _plate(bone: str, start: np.ndarray, end: np.ndarray, bulge: np.ndarray, thick: np.ndarray) -> Solid:
    """A thick curved plate lofted over sections that run from start (n,3) to end (n,3)."""
    u = np.linspace(0, 1, 11)[None, :, None]
    middle = (
        start[:, None] * (1 - u)
        + end[:, None] * u
        + 4 * u * (1 - u) * bulge * np.linspace(1, 0.1, len(start))[:, None, None]
    )
    normal = np.cross(np.gradient(middle, axis=0), np.gradient(middle, axis=1))
    normal /= np.linalg.norm(normal, axis=2, keepdims=True)
    edge = np.sqrt(np.clip(1 - (2 * u - 1) ** 4, 0.05, 1))
    offset = 0.5 * thick[:, None, None] * normal * edge
    rows = np.concatenate([middle + offset, (middle - offset)[:, ::-1]], 1)
    vertices = np.concatenate([rows.reshape(-1, 3), [rows[0].mean(0)], [rows[-1].mean(0)]])
    return Solid(vertices, turned_into(vertices, grid_faces(len(start), rows.shape[1])), bone)


def _ring(bone: str, centre: np.ndarray, radius: float, thick: float, tilt: np.ndarray) -> Solid:
    """A torus around an axis."""
    axis = tilt / np.linalg.norm(tilt)
    side = np.cross(axis, [0.0, 1.0, 0.0])
    side /= np.linalg.norm(side)
    other = np.cross(axis, side)
    around, across = 24, 8
    a = np.linspace(0, 2 * np.pi, around, endpoint=False)[:, None, None]
    b = np.linspace(0, 2 * np.pi, across, endpoint=False)[None, :, None]
    out = np.cos(a) * side + np.sin(a) * other
    vertices = (centre + (radius + thick * np.cos(b)) * out + thick * np.sin(b) * axis).reshape(-1, 3)
    i, j = np.meshgrid(np.arange(around), np.arange(across), indexing="ij")
    p, q = i * across + j, (i + 1) % around * across + j
    r, s = (i + 1) % around * across + (j + 1) % across, i * across + (j + 1) % across
    faces = np.concatenate([np.stack([p, q, r], -1).reshape(-1, 3), np.stack([p, r, s], -1).reshape(-1, 3)])
    return Solid(vertices, turned_into(vertices, faces), bone)
