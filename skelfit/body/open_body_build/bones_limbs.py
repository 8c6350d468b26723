"""Bones of the left arm and leg, procedural, in the T-posed world (palms down: thumb side forward)."""

from __future__ import annotations

import numpy as np

from skelfit.body.open_body_build.solids import Body, Solid, Weigher, ball, long_bone, smooth_path, tube


def _v(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z])


def arm_bones(body: Body) -> list[Solid]:
    """Humerus, ulna, radius and the bones of the hand."""
    k = body.size
    shoulder, elbow, wrist = body.skel["humerus_l"], body.skel["ulna_l"], body.skel["hand_l"]
    head = shoulder + k * _v(0.004, 0.0, 0.0)
    humerus = [
        ball("humerus_l", head, (0.022 * k, 0.022 * k, 0.022 * k), 18, 12),
        ball("humerus_l", head + k * _v(0.020, 0.010, 0.006), (0.015 * k, 0.015 * k, 0.016 * k)),
        tube(
            "humerus_l",
            [head + k * _v(0.008, 0, 0), head + k * _v(0.03, 0, 0), *np.linspace(head, elbow, 7)[2:6], elbow - k * _v(0.022, 0, 0)],
            [(c * k, b * k) for c, b in ((0.018, 0.018), (0.016, 0.016), (0.012, 0.012), (0.0105, 0.0105), (0.0105, 0.0105), (0.012, 0.0105), (0.022, 0.009))],
            18,
            30,
            (0, 1, 0),
        ),
        # Capitulum (lateral, up) and trochlea (medial, down) make the hinge of the elbow; its axis is vertical here.
        tube(
            "humerus_l",
            [elbow + k * _v(-0.006, y, z) for y, z in ((0.026, 0.0), (0.014, 0.002), (0.0, -0.001), (-0.012, 0.002), (-0.028, -0.001))],
            [r * k for r in (0.006, 0.0115, 0.009, 0.012, 0.006)],
            14,
            15,
        ),
    ]
    return humerus + _forearm(elbow, wrist, k) + _hand(body)


def _forearm(elbow: np.ndarray, wrist: np.ndarray, k: float) -> list[Solid]:
    def along(s: float, y: float, z: float) -> np.ndarray:
        return elbow + s * (wrist - elbow) + k * _v(0, y, z)

    ulna = [
        tube(
            "ulna_l",
            [along(-0.03, -0.004, -0.019), along(0.03, -0.006, -0.014), along(0.12, -0.006, -0.008), along(0.4, -0.006, -0.012), along(0.75, -0.003, -0.014), along(0.93, 0.0, -0.016), along(0.97, 0.0, -0.017)],
            [r * k for r in (0.011, 0.0125, 0.010, 0.0075, 0.006, 0.0065, 0.0075)],
            14,
            28,
        ),
        ball("ulna_l", along(0.99, 0.002, -0.020), (0.006 * k, 0.004 * k, 0.004 * k), 10, 6),
    ]
    radius = [
        tube(
            "radius_l",
            [along(0.055, 0.013, 0.004), along(0.08, 0.013, 0.004), along(0.13, 0.010, 0.003), along(0.4, 0.006, 0.010), along(0.7, 0.002, 0.012), along(0.9, 0.001, 0.009), along(0.965, 0.001, 0.008)],
            [(a * k, b * k) for a, b in ((0.0105, 0.0105), (0.0105, 0.0105), (0.0075, 0.0075), (0.0075, 0.0075), (0.008, 0.0075), (0.012, 0.009), (0.016, 0.010))],
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
            centre = wrist + step * (knuckle - wrist) + k * _v(0.0, 0.001, (0.010 - 0.0067 * c) * (0.9 - 0.25 * row))
            size = (0.0082, 0.0074, 0.0072) if (row + c) % 2 else (0.0076, 0.0080, 0.0078)
            solids.append(ball("hand_l", centre, tuple(k * s for s in size), 10, 7))  # type: ignore[arg-type]
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


def leg_bones(body: Body) -> list[Solid]:
    """Femur, patella, tibia, fibula and the bones of the foot."""
    k = body.size
    hip, knee, ankle = body.skel["femur_l"], body.skel["tibia_l"], body.skel["talus_l"]
    trochanter = hip + k * _v(0.042, -0.030, -0.008)
    femur = [
        ball("femur_l", hip, (0.0235 * k, 0.0235 * k, 0.0235 * k), 20, 14),
        tube("femur_l", [hip, hip + 0.5 * (trochanter - hip), trochanter], [0.017 * k, 0.0145 * k, 0.018 * k], 14, 10, (0, 0, 1)),
        ball("femur_l", trochanter + k * _v(0.006, 0.012, -0.004), (0.015 * k, 0.022 * k, 0.018 * k)),
    ]
    shaft = np.linspace(trochanter + k * _v(-0.004, 0.002, 0), knee + k * _v(0, 0.035, 0), 6)
    shaft[1:5, 2] += k * np.array([0.008, 0.013, 0.012, 0.006])  # the bow of the femur
    femur += [
        tube("femur_l", shaft, [(a * k, b * k) for a, b in ((0.020, 0.018), (0.0155, 0.0155), (0.0135, 0.014), (0.014, 0.014), (0.018, 0.016), (0.034, 0.020))], 20, 34),
        *(ball("femur_l", knee + k * _v(x, 0.004, -0.004), (0.0175 * k, 0.023 * k, 0.029 * k), 16, 11) for x in (-0.021, 0.021)),
        tube("femur_l", knee + k * np.array([(-0.02, 0.016, 0.012), (0.0, 0.014, 0.010), (0.02, 0.016, 0.013)]), [0.015 * k, 0.013 * k, 0.015 * k], 12, 9, (0, 0, 1)),
        ball("femur_l", knee + k * _v(0.0, 0.016, 0.041), (0.019 * k, 0.020 * k, 0.009 * k), 14, 9),  # patella
    ]
    return femur + _shank(knee, ankle, k) + _foot(body)


def _shank(knee: np.ndarray, ankle: np.ndarray, k: float) -> list[Solid]:
    top, low = knee + k * _v(0, -0.026, 0), ankle + k * _v(-0.002, 0.018, 0)
    shaft = np.linspace(top, low, 7)
    shaft[1:4, 2] += k * np.array([0.010, 0.009, 0.004])
    tibia = tube("tibia_l", shaft, [(a * k, b * k) for a, b in ((0.037, 0.025), (0.024, 0.021), (0.0145, 0.0155), (0.0125, 0.0135), (0.012, 0.0125), (0.0145, 0.0135), (0.021, 0.017))], 20, 34)
    fibula_path = np.linspace(top + k * _v(0.034, -0.014, -0.016), ankle + k * _v(0.024, -0.010, -0.008), 6)
    return [
        tibia,
        ball("tibia_l", top + k * _v(0, -0.026, 0.020), (0.011 * k, 0.014 * k, 0.010 * k), 12, 8),  # tuberosity
        tube("tibia_l", [ankle + k * _v(-0.021, 0.016, 0.002), ankle + k * _v(-0.023, -0.008, 0.003)], [0.011 * k, 0.007 * k], 12, 8, (0, 0, 1)),
        tube("tibia_l", fibula_path, [r * k for r in (0.0105, 0.0070, 0.0060, 0.0060, 0.0065, 0.0095)], 12, 28),
    ]


def _foot(body: Body) -> list[Solid]:
    k, at = body.size, body.at
    ankle, heel, ball_of_foot = body.skel["talus_l"], body.skel["calcn_l"], body.skel["toes_l"]
    forward = ball_of_foot - ankle
    toes = {t: at[f"l-toe-{t}-1"] for t in range(1, 6)}
    solids = [
        ball("talus_l", ankle + k * _v(0, -0.002, 0.002), (0.019 * k, 0.014 * k, 0.021 * k), 16, 10),
        ball("talus_l", ankle + 0.22 * forward + k * _v(-0.006, 0.004, 0), (0.014 * k, 0.012 * k, 0.014 * k), 14, 9),
        tube(
            "calcn_l",
            [heel + k * _v(0, -0.010, -0.014), heel + k * _v(0, -0.006, 0.002), heel + k * _v(0.002, 0.000, 0.028), heel + k * _v(0.008, -0.002, 0.056)],
            [(a * k, b * k) for a, b in ((0.017, 0.021), (0.016, 0.020), (0.014, 0.015), (0.012, 0.012))],
            16,
            16,
        ),
        ball("calcn_l", ankle + 0.36 * forward + k * _v(-0.010, 0.003, 0), (0.016 * k, 0.011 * k, 0.009 * k), 12, 8),  # navicular
        ball("calcn_l", ankle + 0.40 * forward + k * _v(0.017, -0.006, -0.002), (0.012 * k, 0.010 * k, 0.016 * k), 12, 8),  # cuboid
    ]
    middle = ankle + 0.44 * forward
    for t in range(1, 6):
        base = middle + k * _v(-0.020 + 0.0105 * (t - 1), 0.006 - 0.0035 * (t - 1), 0.012 - 0.004 * (t - 1))
        if t < 4:  # cuneiforms
            solids.append(ball("calcn_l", base - k * _v(0, 0, 0.010), (0.0075 * k, 0.010 * k, 0.010 * k), 10, 7))
        solids.append(long_bone("calcn_l", base, toes[t] + k * _v(0, -0.002, 0), (0.0085 if t == 1 else 0.0058) * k, 10, 12, 0.03))
        joints = [at[f"l-toe-{t}-{n}"] for n in range(1, 4 if t == 1 else 5)]
        for n in range(len(joints) - 1):
            end = joints[n + 1] if n < len(joints) - 2 else joints[n] + 0.7 * (joints[n + 1] - joints[n])
            solids.append(long_bone("toes_l", joints[n], end, (0.0078 if t == 1 else 0.0046) * k * (1 - 0.12 * n), 10, 7))
    return solids


def girdle_bones(body: Body, weigh_clavicle: Weigher) -> list[Solid]:
    """Clavicle and scapula."""
    k = body.size
    joint, shoulder = body.skel["scapula_l"], body.skel["humerus_l"]
    acromion = shoulder + k * _v(0.006, 0.036, -0.004)
    notch = body.at["l-clavicle"] * [0, 1, 0] + k * _v(0.020, 0.010, 0)
    notch[2] = body.depth(float(notch[1]))[1] - 0.020 * k
    span = acromion - notch
    clavicle = tube(
        "thorax",
        [notch, notch + 0.3 * span + k * _v(0, 0, 0.012), notch + 0.6 * span + k * _v(0, 0, 0.004), notch + 0.85 * span + k * _v(0, 0, -0.006), acromion + k * _v(-0.012, 0, 0.008)],
        [r * k for r in (0.011, 0.0075, 0.0065, 0.0075, 0.0085)],
        12,
        26,
        (0, 1, 0),
        weigh_clavicle,
    )
    # The blade: a thin plate, lofted from the upper angle down to the lower one.
    glenoid = shoulder + k * _v(-0.026, -0.002, -0.006)
    back = min(body.depth(float(joint[1]) - 0.05 * k)[0], body.depth(float(joint[1]))[0])
    medial, blade_z = 0.062 * k, back + 0.026 * k
    top, bottom = float(joint[1]) + 0.022 * k, float(joint[1]) - 0.125 * k
    s = np.linspace(0, 1, 9)
    inner = np.stack([medial + 0.012 * k * s**2, top + (bottom - top) * s, np.full(9, blade_z) + 0.004 * k * s], 1)
    reach = np.interp(s, [0, 0.12, 0.25, 0.4, 0.7, 1.0], [0.35, 0.75, 1.0, 0.80, 0.38, 0.08])[:, None]
    outer = inner + reach * np.array([glenoid[0] - medial - 0.006 * k, 0, glenoid[2] - blade_z])
    wide = np.array([glenoid[0] - medial, 0, glenoid[2] - blade_z])
    half = np.linalg.norm(outer - inner, axis=1) / 2
    blade = tube("scapula_l", 0.5 * (inner + outer), np.stack([half, np.full(9, 0.0035 * k)], 1), 24, 24, wide)
    ridge_start = inner[2] + k * _v(0.004, 0, -0.006)
    ridge = tube("scapula_l", smooth_path([ridge_start, ridge_start + 0.55 * (acromion - ridge_start) + k * _v(0, 0, -0.010), acromion], 6), [(0.0035 * k, 0.006 * k), (0.004 * k, 0.008 * k), (0.0045 * k, 0.010 * k), (0.005 * k, 0.010 * k), (0.005 * k, 0.011 * k), (0.005 * k, 0.012 * k)], 12, 18, (0, 1, 0))
    coracoid = tube("scapula_l", [glenoid + k * _v(-0.012, 0.016, 0.004), glenoid + k * _v(-0.012, 0.022, 0.016), glenoid + k * _v(0.002, 0.017, 0.027)], [0.008 * k, 0.007 * k, 0.006 * k], 10, 9)
    socket = ball("scapula_l", glenoid, (0.008 * k, 0.018 * k, 0.013 * k), 14, 9)
    neck = tube("scapula_l", [glenoid, 0.5 * glenoid + 0.5 * outer[2], outer[2] - 0.3 * (outer[2] - inner[2])], [(0.013 * k, 0.010 * k), (0.012 * k, 0.007 * k), (0.012 * k, 0.004 * k)], 12, 8, (0, 1, 0))
    return [clavicle, blade, ridge, coracoid, socket, neck]
