"""Bones of the left shoulder and arm, procedural, in the T-posed world (palms down: thumb side forward)."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.solids import Body, Solid, Weigher, ball, long_bone, smooth_path, tube, vec


def _acromion(body: Body) -> np.ndarray:
    return body.skel["humerus_l"] + body.size * vec(0.006, 0.036, -0.004)


def clavicle(body: Body, weigh_clavicle: Weigher) -> Solid:
    """From the sternum to the acromion: scaled with the scapula, moved with it and the thorax.

    Scaled with the thorax its outer end would follow the length of the lumbar spine, not the width of the shoulders.
    """
    k = body.size
    acromion = _acromion(body)
    notch = body.at["l-clavicle"] * [0, 1, 0] + k * vec(0.020, 0.010, 0)
    notch[2] = body.depth(float(notch[1]))[1] - 0.020 * k
    span = acromion - notch
    return tube(
        "scapula_l",
        [
            notch,
            notch + 0.3 * span + k * vec(0, 0, 0.012),
            notch + 0.6 * span + k * vec(0, 0, 0.004),
            notch + 0.85 * span + k * vec(0, 0, -0.006),
            acromion + k * vec(-0.012, 0, 0.008),
        ],
        [r * k for r in (0.011, 0.0075, 0.0065, 0.0075, 0.0085)],
        12,
        26,
        (0, 1, 0),
        weigh_clavicle,
    )


def scapula(body: Body) -> list[Solid]:
    """Blade, spine, coracoid and socket of the shoulder blade."""
    k = body.size
    joint, shoulder, acromion = body.skel["scapula_l"], body.skel["humerus_l"], _acromion(body)
    # The blade: a thin plate, lofted from the upper angle down to the lower one.
    glenoid = shoulder + k * vec(-0.026, -0.002, -0.006)
    back = min(body.depth(float(joint[1]) - 0.05 * k)[0], body.depth(float(joint[1]))[0])
    medial, blade_z = 0.062 * k, back + 0.026 * k
    top, bottom = float(joint[1]) + 0.022 * k, float(joint[1]) - 0.125 * k
    s = np.linspace(0, 1, 9)
    inner = np.stack(
        [medial + 0.012 * k * s**2, top + (bottom - top) * s, np.full(9, blade_z) + 0.004 * k * s], 1
    )
    reach = np.interp(s, [0, 0.12, 0.25, 0.4, 0.7, 1.0], [0.35, 0.75, 1.0, 0.80, 0.38, 0.08])[:, None]
    outer = inner + reach * np.array([glenoid[0] - medial - 0.006 * k, 0, glenoid[2] - blade_z])
    wide = np.array([glenoid[0] - medial, 0, glenoid[2] - blade_z])
    half = np.linalg.norm(outer - inner, axis=1) / 2
    blade = tube(
        "scapula_l", 0.5 * (inner + outer), np.stack([half, np.full(9, 0.0035 * k)], 1), 24, 24, wide
    )
    ridge_start = inner[2] + k * vec(0.004, 0, -0.006)
    ridge = tube(
        "scapula_l",
        smooth_path(
            [ridge_start, ridge_start + 0.55 * (acromion - ridge_start) + k * vec(0, 0, -0.010), acromion], 6
        ),
        [
            (0.0035 * k, 0.006 * k),
            (0.004 * k, 0.008 * k),
            (0.0045 * k, 0.010 * k),
            (0.005 * k, 0.010 * k),
            (0.005 * k, 0.011 * k),
            (0.005 * k, 0.012 * k),
        ],
        12,
        18,
        (0, 1, 0),
    )
    coracoid = tube(
        "scapula_l",
        [
            glenoid + k * vec(-0.012, 0.016, 0.004),
            glenoid + k * vec(-0.012, 0.022, 0.016),
            glenoid + k * vec(0.002, 0.017, 0.027),
        ],
        [0.008 * k, 0.007 * k, 0.006 * k],
        10,
        9,
    )
    socket = ball("scapula_l", glenoid, (0.008 * k, 0.018 * k, 0.013 * k), 14, 9)
    neck = tube(
        "scapula_l",
        [glenoid, 0.5 * glenoid + 0.5 * outer[2], outer[2] - 0.3 * (outer[2] - inner[2])],
        [(0.013 * k, 0.010 * k), (0.012 * k, 0.007 * k), (0.012 * k, 0.004 * k)],
        12,
        8,
        (0, 1, 0),
    )
    return [blade, ridge, coracoid, socket, neck]


def arm_bones(body: Body) -> list[Solid]:
    """Humerus, ulna, radius and the bones of the hand."""
    k = body.size
    shoulder, elbow, wrist = body.skel["humerus_l"], body.skel["ulna_l"], body.skel["hand_l"]
    head = shoulder + k * vec(0.004, 0.0, 0.0)
    humerus = [
        ball("humerus_l", head, (0.022 * k, 0.022 * k, 0.022 * k), 18, 12),
        ball("humerus_l", head + k * vec(0.020, 0.010, 0.006), (0.015 * k, 0.015 * k, 0.016 * k)),
        tube(
            "humerus_l",
            [
                head + k * vec(0.008, 0, 0),
                head + k * vec(0.03, 0, 0),
                *np.linspace(head, elbow, 7)[2:6],
                elbow - k * vec(0.022, 0, 0),
            ],
            [
                (c * k, b * k)
                for c, b in (
                    (0.018, 0.018),
                    (0.016, 0.016),
                    (0.012, 0.012),
                    (0.0105, 0.0105),
                    (0.0105, 0.0105),
                    (0.012, 0.0105),
                    (0.022, 0.009),
                )
            ],
            18,
            30,
            (0, 1, 0),
        ),
        # Capitulum (lateral, up) and trochlea (medial, down) make the hinge of the elbow; its axis is
        # vertical here.
        tube(
            "humerus_l",
            [
                elbow + k * vec(-0.006, y, z)
                for y, z in ((0.026, 0.0), (0.014, 0.002), (0.0, -0.001), (-0.012, 0.002), (-0.028, -0.001))
            ],
            [r * k for r in (0.006, 0.0115, 0.009, 0.012, 0.006)],
            14,
            15,
        ),
    ]
    return humerus + _forearm(elbow, wrist, k) + _hand(body)


def _forearm(elbow: np.ndarray, wrist: np.ndarray, k: float) -> list[Solid]:
    def along(s: float, y: float, z: float) -> np.ndarray:
        return elbow + s * (wrist - elbow) + k * vec(0, y, z)

    ulna = [
        tube(
            "ulna_l",
            [
                along(-0.03, -0.004, -0.019),
                along(0.03, -0.006, -0.014),
                along(0.12, -0.006, -0.008),
                along(0.4, -0.006, -0.012),
                along(0.75, -0.003, -0.014),
                along(0.93, 0.0, -0.016),
                along(0.97, 0.0, -0.017),
            ],
            [r * k for r in (0.011, 0.0125, 0.010, 0.0075, 0.006, 0.0065, 0.0075)],
            14,
            28,
        ),
        ball("ulna_l", along(0.99, 0.002, -0.020), (0.006 * k, 0.004 * k, 0.004 * k), 10, 6),
    ]
    radius = [
        tube(
            "radius_l",
            [
                along(0.055, 0.013, 0.004),
                along(0.08, 0.013, 0.004),
                along(0.13, 0.010, 0.003),
                along(0.4, 0.006, 0.010),
                along(0.7, 0.002, 0.012),
                along(0.9, 0.001, 0.009),
                along(0.965, 0.001, 0.008),
            ],
            [
                (a * k, b * k)
                for a, b in (
                    (0.0105, 0.0105),
                    (0.0105, 0.0105),
                    (0.0075, 0.0075),
                    (0.0075, 0.0075),
                    (0.008, 0.0075),
                    (0.012, 0.009),
                    (0.016, 0.010),
                )
            ],
            14,
            28,
            (0, 0, 1),
        )
    ]
    return ulna + radius


def _hand(body: Body) -> list[Solid]:
    k, at = body.size, body.at
    wrist = body.skel["hand_l"]
    knuckles = {f: at[f"l-finger-{f}-1"] for f in range(2, 6)}
    solids = []
    # Two rows of four carpals, thumb side to little finger, spread along the line of the knuckles.
    for row, step in enumerate((0.16, 0.30)):
        for c in range(4):
            knuckle = knuckles[2] + (knuckles[5] - knuckles[2]) * (c / 3)
            centre = (
                wrist
                + step * (knuckle - wrist)
                + k * vec(0.0, 0.001, (0.010 - 0.0067 * c) * (0.9 - 0.25 * row))
            )
            a, b, h = (0.0082, 0.0074, 0.0072) if (row + c) % 2 else (0.0076, 0.0080, 0.0078)
            solids.append(ball("hand_l", centre, (k * a, k * b, k * h), 10, 7))
    for f in range(1, 6):
        joints = [at[f"l-finger-{f}-{n}"] for n in range(1, 5)]
        if f > 1:
            base = wrist + 0.38 * (joints[0] - wrist)
            solids.append(long_bone("hand_l", base, joints[0], 0.0062 * k, 10, 10))
        thick = {1: 0.0075, 2: 0.0056, 3: 0.0058, 4: 0.0054, 5: 0.0047}[f] * k
        for n in range(3):
            end = joints[n + 1] if n < 2 else joints[n] + 0.85 * (joints[n + 1] - joints[n])
            solids.append(long_bone("hand_l", joints[n], end, thick * (1.0 - 0.16 * n), 10, 9))
    return solids
