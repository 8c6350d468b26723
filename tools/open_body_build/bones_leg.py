"""Bones of the left leg and foot, procedural, in the T-posed world."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.solids import Body, Solid, ball, long_bone, tube, vec


def leg_bones(body: Body) -> list[Solid]:
    """Femur, patella, tibia, fibula and the bones of the foot."""
    k = body.size
    hip, knee, ankle = body.skel["femur_l"], body.skel["tibia_l"], body.skel["talus_l"]
    trochanter = hip + k * vec(0.042, -0.030, -0.008)
    femur = [
        ball("femur_l", hip, (0.0235 * k, 0.0235 * k, 0.0235 * k), 20, 14),
        tube(
            "femur_l",
            [hip, hip + 0.5 * (trochanter - hip), trochanter],
            [0.017 * k, 0.0145 * k, 0.018 * k],
            14,
            10,
            (0, 0, 1),
        ),
        ball("femur_l", trochanter + k * vec(0.006, 0.012, -0.004), (0.015 * k, 0.022 * k, 0.018 * k)),
    ]
    shaft = np.linspace(trochanter + k * vec(-0.004, 0.002, 0), knee + k * vec(0, 0.035, 0), 6)
    shaft[1:5, 2] += k * np.array([0.008, 0.013, 0.012, 0.006])  # the bow of the femur
    femur += [
        tube(
            "femur_l",
            shaft,
            [
                (a * k, b * k)
                for a, b in (
                    (0.020, 0.018),
                    (0.0155, 0.0155),
                    (0.0135, 0.014),
                    (0.014, 0.014),
                    (0.018, 0.016),
                    (0.034, 0.020),
                )
            ],
            20,
            34,
        ),
        *(
            ball("femur_l", knee + k * vec(x, 0.004, -0.004), (0.0175 * k, 0.023 * k, 0.029 * k), 16, 11)
            for x in (-0.021, 0.021)
        ),
        tube(
            "femur_l",
            knee + k * np.array([(-0.02, 0.016, 0.012), (0.0, 0.014, 0.010), (0.02, 0.016, 0.013)]),
            [0.015 * k, 0.013 * k, 0.015 * k],
            12,
            9,
            (0, 0, 1),
        ),
        ball(
            "femur_l", knee + k * vec(0.0, 0.016, 0.041), (0.019 * k, 0.020 * k, 0.009 * k), 14, 9
        ),  # patella
    ]
    return femur + _shank(knee, ankle, k) + _foot(body)


def _shank(knee: np.ndarray, ankle: np.ndarray, k: float) -> list[Solid]:
    top, low = knee + k * vec(0, -0.026, 0), ankle + k * vec(-0.002, 0.018, 0)
    shaft = np.linspace(top, low, 7)
    shaft[1:4, 2] += k * np.array([0.010, 0.009, 0.004])
    tibia = tube(
        "tibia_l",
        shaft,
        [
            (a * k, b * k)
            for a, b in (
                (0.037, 0.025),
                (0.024, 0.021),
                (0.0145, 0.0155),
                (0.0125, 0.0135),
                (0.012, 0.0125),
                (0.0145, 0.0135),
                (0.021, 0.017),
            )
        ],
        20,
        34,
    )
    fibula_path = np.linspace(top + k * vec(0.034, -0.014, -0.016), ankle + k * vec(0.024, -0.010, -0.008), 6)
    return [
        tibia,
        ball(
            "tibia_l", top + k * vec(0, -0.026, 0.020), (0.011 * k, 0.014 * k, 0.010 * k), 12, 8
        ),  # tuberosity
        tube(
            "tibia_l",
            [ankle + k * vec(-0.021, 0.016, 0.002), ankle + k * vec(-0.023, -0.008, 0.003)],
            [0.011 * k, 0.007 * k],
            12,
            8,
            (0, 0, 1),
        ),
        tube(
            "tibia_l", fibula_path, [r * k for r in (0.0105, 0.0070, 0.0060, 0.0060, 0.0065, 0.0095)], 12, 28
        ),
    ]


def _foot(body: Body) -> list[Solid]:
    k = body.size
    ankle, heel, ball_of_foot = body.skel["talus_l"], body.skel["calcn_l"], body.skel["toes_l"]
    forward = ball_of_foot - ankle
    hind = [
        ball("talus_l", ankle + k * vec(0, -0.002, 0.002), (0.019 * k, 0.014 * k, 0.021 * k), 16, 10),
        ball(
            "talus_l",
            ankle + 0.22 * forward + k * vec(-0.006, 0.004, 0),
            (0.014 * k, 0.012 * k, 0.014 * k),
            14,
            9,
        ),
        tube(
            "calcn_l",
            [
                heel + k * vec(0, -0.010, -0.014),
                heel + k * vec(0, -0.006, 0.002),
                heel + k * vec(0.002, 0.000, 0.028),
                heel + k * vec(0.008, -0.002, 0.056),
            ],
            [(a * k, b * k) for a, b in ((0.017, 0.021), (0.016, 0.020), (0.014, 0.015), (0.012, 0.012))],
            16,
            16,
        ),
        ball(
            "calcn_l",
            ankle + 0.36 * forward + k * vec(-0.010, 0.003, 0),
            (0.016 * k, 0.011 * k, 0.009 * k),
            12,
            8,
        ),  # navicular
        ball(
            "calcn_l",
            ankle + 0.40 * forward + k * vec(0.017, -0.006, -0.002),
            (0.012 * k, 0.010 * k, 0.016 * k),
            12,
            8,
        ),  # cuboid
    ]
    return hind + _rays(body, ankle + 0.44 * forward)


def _rays(body: Body, middle: np.ndarray) -> list[Solid]:
    """Cuneiforms, metatarsals and phalanges, from the middle of the foot on."""
    k, at, solids = body.size, body.at, []
    for t in range(1, 6):
        base = middle + k * vec(-0.020 + 0.0105 * (t - 1), 0.006 - 0.0035 * (t - 1), 0.012 - 0.004 * (t - 1))
        if t < 4:  # cuneiforms
            solids.append(
                ball("calcn_l", base - k * vec(0, 0, 0.010), (0.0075 * k, 0.010 * k, 0.010 * k), 10, 7)
            )
        solids.append(
            long_bone(
                "calcn_l",
                base,
                at[f"l-toe-{t}-1"] + k * vec(0, -0.002, 0),
                (0.0085 if t == 1 else 0.0058) * k,
                10,
                12,
                0.03,
            )
        )
        joints = [at[f"l-toe-{t}-{n}"] for n in range(1, 4 if t == 1 else 5)]
        for n in range(len(joints) - 1):
            end = joints[n + 1] if n < len(joints) - 2 else joints[n] + 0.7 * (joints[n + 1] - joints[n])
            solids.append(
                long_bone(
                    "toes_l", joints[n], end, (0.0078 if t == 1 else 0.0046) * k * (1 - 0.12 * n), 10, 7
                )
            )
    return solids
