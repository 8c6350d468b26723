"""Skull, spine, rib cage and pelvis, procedural, fitted to the depth and width of the skin."""

from __future__ import annotations

import numpy as np

from skelfit.body.open_body_build.skel_rig import NAMES
from skelfit.body.open_body_build.smpl_rig import rise
from skelfit.body.open_body_build.solids import Body, Solid, Weigher, ball, grid_faces, mirrored, smooth_path, tube, turned_into


def _v(x: float, y: float, z: float) -> np.ndarray:
    return np.array([x, y, z])


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
    shares = {"pelvis": 1 - low, "lumbar_body": low * (1 - high), "thorax": low * high * (1 - top), "head": low * high * top}
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
    before = np.interp(y, [waist - 0.10, waist, waist + 0.15, neck, neck + 0.1], [0.068, 0.060, 0.054, 0.052, 0.056])
    return np.array([0.0, y, back + float(before) * body.size])


def spine_bones(body: Body) -> list[Solid]:
    """24 vertebrae with their processes, and the discs between them."""
    k, solids = body.size, []
    heights = spine_heights(body)
    centres = np.stack([spine_centre(body, float(y)) for y in heights])
    centres[1:-1, 2] = (centres[:-2, 2] + 2 * centres[1:-1, 2] + centres[2:, 2]) / 4
    pitch = np.abs(np.gradient(heights))
    for i, (c, step) in enumerate(zip(centres, pitch, strict=True)):
        cervical, lumbar = i < 7, i >= 19
        bone = "head" if cervical else "lumbar_body" if lumbar else "thorax"
        w = fixed(spine_shares(body, float(c[1])))
        wide = k * (0.0125 if cervical else float(np.interp(i, [7, 18, 23], [0.0145, 0.019, 0.025])))
        deep, half = 0.78 * wide, 0.36 * step
        body_path = [c + _v(0, half, 0), c + _v(0, 0.5 * half, 0), c, c - _v(0, 0.5 * half, 0), c - _v(0, half, 0)]
        size = [(wide * s, deep * s) for s in (1.0, 0.93, 0.88, 0.93, 1.0)]
        solids.append(tube(bone, body_path, size, 16, 7, weights=w))
        drop = -0.006 * k if cervical else -0.004 * k if lumbar else -0.018 * k
        tip = k * (0.030 if cervical else 0.036 if lumbar else 0.030)
        arch = c - _v(0, 0, deep + 0.008 * k)
        thick = [(0.0035 * k, 0.008 * k), (0.003 * k, 0.006 * k), (0.0035 * k, 0.007 * k if lumbar else 0.0045 * k)]
        solids.append(tube(bone, [arch, arch + _v(0, 0.4 * drop, -0.5 * tip + 0.006 * k), arch + _v(0, drop, -tip + 0.010 * k)], thick, 8, 7, weights=w))
        reach = k * (0.024 if cervical else 0.038 if lumbar else 0.030)
        ring = tube(
            bone,
            [c + _v(0.6 * wide, 0, -0.7 * deep), c + _v(0.75 * wide, 0, -deep - 0.004 * k), c + _v(reach, 0.002 * k, -deep - (0.004 if lumbar else 0.010) * k)],
            [0.0065 * k, 0.005 * k, 0.0035 * k],
            8,
            6,
            (0, 1, 0),
            w,
        )
        arc = tube(bone, [c + _v(0.7 * wide, 0, -deep - 0.003 * k), c + _v(0.4 * wide, 0, -deep - 0.011 * k), c + _v(0, 0, -deep - 0.013 * k)], [0.0045 * k, 0.004 * k, 0.005 * k], 8, 5, (0, 1, 0), w)
        solids += [ring, mirrored(ring), arc, mirrored(arc)]
        if i + 1 < len(centres):
            below = 0.5 * (c + centres[i + 1])
            gap = 0.13 * step
            solids.append(tube(bone, [below + _v(0, gap, 0), below, below - _v(0, gap, 0)], [(0.9 * wide, 0.9 * deep)] * 3, 14, 3, weights=fixed(spine_shares(body, float(below[1])))))
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
    solids = [tube("thorax", sternum, [(a * k, 0.0055 * k) for a in (0.026, 0.019, 0.016, 0.019, 0.018, 0.006)], 18, 24, weights=fixed({"thorax": 1.0}))]
    widest = min(body.half_width(float(y)) for y in heights[6:10]) - 0.016 * k
    share = np.array([0.46, 0.64, 0.77, 0.86, 0.92, 0.96, 0.99, 1.0, 1.0, 0.98, 0.93, 0.84])
    fall = np.array([0.035, 0.05, 0.062, 0.074, 0.086, 0.098, 0.108, 0.112, 0.112, 0.108, 0.07, 0.05]) * k
    reach = [0.86] * 7 + [0.80, 0.75, 0.70, 0.55, 0.42]
    arch: list[np.ndarray] = []
    for i, y in enumerate(heights):
        c = spine_centre(body, float(y))
        width = min(widest, max(body.half_width(float(y) - 0.5 * float(fall[i])) - 0.016 * k, 0.06)) * share[i]
        front = float(np.interp(y - fall[i], line[::-1], sternum[::-1, 2]))
        rear = c[2] - 0.030 * k
        turn = np.linspace(0.10, reach[i], 12) * np.pi
        x = width * np.sin(turn) ** 0.85
        z = 0.5 * (front + rear) - 0.5 * (front - rear) * np.cos(turn)
        path = np.stack([x, y + 0.004 * k - fall[i] * (1 - np.cos(turn)) / 2, z], 1)
        path = np.concatenate([[c + k * _v(0.018, 0.002, -0.012)], path])
        if i < 7:
            goal = np.array([0.017 * k, max(float(path[-1, 1]) + 0.012 * k * (i - 1) * 0.5, xiphoid_y), 0])
            goal[1] = notch_y - (notch_y - xiphoid_y) * (0.10 + 0.135 * i)
            goal[2] = float(np.interp(goal[1], line[::-1], sternum[::-1, 2]))
            path = np.concatenate([path, [0.5 * (path[-1] + goal) + k * _v(0.004, -0.004, 0.002)], [goal]])
        elif i < 10:
            path = np.concatenate([path, [0.45 * path[-1] + 0.55 * arch[-1] + k * _v(0.004, -0.010, 0)], [arch[-1]]])
        arch.append(path[-2])
        down = {"thorax": 1.0} if i < 9 else {"thorax": 0.85, "lumbar_body": 0.15}
        flat = [(0.0068 * k, 0.0038 * k)] * len(path)
        rib = tube("thorax", path, flat, 10, 34 if i < 10 else 22, (0, 1, 0), fixed(down))
        solids += [rib, mirrored(rib)]
    return solids


def pelvis_bones(body: Body) -> list[Solid]:
    """Hip bones, sacrum and coccyx."""
    k, hip = body.size, body.skel["femur_l"]
    back = body.depth(float(hip[1]) + 0.06 * k)[0]
    sacrum_z = back + 0.042 * k
    top = _v(0, float(hip[1]) + 0.072 * k, sacrum_z + 0.016 * k)
    sacrum = tube(
        "pelvis",
        [top, top + k * _v(0, -0.025, -0.012), top + k * _v(0, -0.055, -0.020), top + k * _v(0, -0.085, -0.014), top + k * _v(0, -0.108, 0.004)],
        [(a * k, b * k) for a, b in ((0.046, 0.017), (0.044, 0.014), (0.030, 0.010), (0.016, 0.007), (0.006, 0.004))],
        22,
        20,
    )
    joint = top + k * _v(0.036, -0.010, -0.006)  # where ilium and sacrum meet
    front = _v(float(hip[0]) + 0.024 * k, float(hip[1]) + 0.068 * k, float(hip[2]) + 0.042 * k)
    crest_y = float(hip[1]) + 0.118 * k
    # The wing: sections from the crest down to the socket; each spans from the rear (sacrum) to the front spine.
    rear = np.array([joint + k * _v(0.004, 0.048, -0.004), joint + k * _v(0.0, 0.022, -0.012), joint + k * _v(0.004, 0.0, -0.010), hip + k * _v(-0.004, 0.028, -0.024), hip + k * _v(-0.004, 0.006, -0.022)])
    fore = np.array([[front[0] + 0.006 * k, crest_y - 0.006 * k, front[2] - 0.028 * k], front + k * _v(0.004, 0.012, -0.004), front, hip + k * _v(-0.004, 0.036, 0.026), hip + k * _v(-0.004, 0.008, 0.022)])
    rear, fore = smooth_path(rear, 14), smooth_path(fore, 14)
    wing = _plate("pelvis", rear, fore, bulge=_v(0.020 * k, 0.014 * k, 0), thick=np.linspace(0.0045, 0.012, 14) * k)
    socket = _ring("pelvis", hip + k * _v(-0.004, 0, 0.0), 0.029 * k, 0.0075 * k, tilt=_v(0.85, -0.35, 0.40))
    symphysis = _v(0.006 * k, float(hip[1]) - 0.018 * k, 0)
    symphysis[2] = min(body.depth(float(symphysis[1]))[1] - 0.026 * k, float(hip[2]) + 0.062 * k)
    seat = _v(0.62 * float(hip[0]), float(hip[1]) - 0.074 * k, float(hip[2]) - 0.022 * k)
    branches = [
        tube("pelvis", [hip + k * _v(-0.018, 0.006, 0.018), 0.5 * (hip + symphysis) + k * _v(0, 0.012, 0.010), symphysis], [0.013 * k, 0.0085 * k, 0.010 * k], 12, 14, (0, 1, 0)),
        tube("pelvis", [hip + k * _v(-0.016, -0.014, -0.012), hip + k * _v(-0.024, -0.045, -0.024), seat], [0.016 * k, 0.013 * k, 0.016 * k], 12, 12),
        tube("pelvis", [seat, 0.5 * (seat + symphysis) + k * _v(0.0, -0.012, 0.0), symphysis + k * _v(0.002, -0.014, -0.004)], [0.012 * k, 0.007 * k, 0.0085 * k], 12, 12),
        ball("pelvis", symphysis + k * _v(0, -0.008, 0), (0.007 * k, 0.018 * k, 0.010 * k), 12, 8),
    ]
    left = [wing, socket, *branches]
    return [sacrum, *left, *(mirrored(s) for s in left)]


def _plate(bone: str, start: np.ndarray, end: np.ndarray, bulge: np.ndarray, thick: np.ndarray) -> Solid:
    """A thick curved plate lofted over sections that run from start (n,3) to end (n,3)."""
    u = np.linspace(0, 1, 11)[None, :, None]
    middle = start[:, None] * (1 - u) + end[:, None] * u + 4 * u * (1 - u) * bulge * np.linspace(1, 0.1, len(start))[:, None, None]
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


def skull(body: Body) -> list[Solid]:
    """Cranium with eye sockets, nose and cheek bones, the jaw and two rows of teeth."""
    k = body.size
    eye, skin = body.at["l-eye"], body.skin[body.head > 0.9]
    upper = skin[skin[:, 1] > eye[1] + 0.035 * k]
    top = float(upper[:, 1].max()) - 0.010 * k
    wide = float(np.abs(upper[:, 0]).max()) - 0.010 * k
    rear, front = float(upper[:, 2].min()) + 0.010 * k, float(upper[:, 2].max()) - 0.010 * k
    base = float(eye[1]) - 0.046 * k
    centre = _v(0, 0.5 * (top + base), 0.5 * (rear + front))
    cranium = ball("head", centre, (wide, 0.5 * (top - base), 0.5 * (front - rear)), 64, 44)
    p = cranium.vertices.copy()
    low = np.clip((centre[1] - p[:, 1]) / (centre[1] - base), 0, 1)
    ahead = np.clip((p[:, 2] - centre[2]) / (0.5 * (front - rear)), -1, 1)
    p[:, 0] *= 1 - 0.16 * low**2 * (1 + ahead)
    p[:, 1] += 0.010 * k * low * np.clip(-ahead, 0, 1)
    p[:, 2] += 0.012 * k * low * np.clip(ahead, 0, 1) * np.clip(1.4 - 1.4 * low, 0, 1)
    face = float(skin[np.abs(skin[:, 1] - eye[1]) < 0.02 * k][:, 2].max())
    for side in (1, -1):
        hole = _v(side * 0.033 * k, float(eye[1]) + 0.001 * k, front)
        d = np.linalg.norm((p - hole) / [0.020 * k, 0.017 * k, 0.05 * k], axis=1)
        p[:, 2] -= 0.030 * k * np.clip(1 - d**2, 0, 1) ** 0.8 * (p[:, 2] > centre[2])
        brow = np.linalg.norm((p - hole - [0, 0.021 * k, 0]) / [0.026 * k, 0.008 * k, 0.05 * k], axis=1)
        p[:, 2] += 0.004 * k * np.exp(-(brow**2)) * (p[:, 2] > centre[2])
    cranium = Solid(p, cranium.faces, "head")
    return [cranium, *_face(body, eye, front, wide, face)]


def _face(body: Body, eye: np.ndarray, front: float, wide: float, face: float) -> list[Solid]:
    k = body.size
    y, z = float(eye[1]), front
    teeth_y = y - 0.068 * k
    mouth = body.depth(teeth_y)[1] - 0.022 * k
    chin = body.depth(teeth_y - 0.038 * k)[1] - 0.013 * k
    ear_z = float(body.at["head"][2]) + 0.006 * k
    cheek = [_v(0.018 * k, y - 0.026 * k, z - 0.010 * k), _v(0.040 * k, y - 0.024 * k, z - 0.018 * k), _v(wide * 0.86, y - 0.018 * k, z - 0.050 * k), _v(wide * 0.88, y - 0.014 * k, ear_z + 0.012 * k)]
    orbit = [_v(0.012 * k, y + 0.012 * k, z - 0.006 * k), _v(0.014 * k, y - 0.014 * k, z - 0.009 * k), _v(0.033 * k, y - 0.021 * k, z - 0.014 * k), _v(0.051 * k, y - 0.006 * k, z - 0.024 * k), _v(0.052 * k, y + 0.016 * k, z - 0.022 * k)]
    maxilla = [_v(0.014 * k, y - 0.028 * k, z - 0.010 * k), _v(0.017 * k, y - 0.044 * k, mouth - 0.006 * k), _v(0.020 * k, teeth_y + 0.010 * k, mouth - 0.010 * k)]
    left = [
        ball("head", _v(0.016 * k, y - 0.036 * k, z - 0.036 * k), (0.024 * k, 0.026 * k, 0.026 * k), 14, 10),
        tube("head", cheek, [0.009 * k, 0.010 * k, 0.0055 * k, 0.004 * k], 12, 20, (0, 1, 0)),
        tube("head", orbit, [r * k for r in (0.005, 0.005, 0.006, 0.006, 0.005)], 10, 22, (0, 0, 1)),
        tube("head", maxilla, [(0.010 * k, 0.009 * k), (0.012 * k, 0.010 * k), (0.014 * k, 0.012 * k)], 14, 12),
        tube("head", [_v(0.0035 * k, y + 0.010 * k, z - 0.005 * k), _v(0.0045 * k, y - 0.006 * k, z), _v(0.0055 * k, y - 0.016 * k, z + 0.003 * k)], [0.004 * k, 0.004 * k, 0.003 * k], 10, 8),
    ]
    angle = _v(0.046 * k, teeth_y - 0.018 * k, ear_z + 0.008 * k)
    half_jaw = [_v(0.053 * k, y - 0.022 * k, ear_z), _v(0.051 * k, y - 0.050 * k, ear_z + 0.002 * k), angle, _v(0.036 * k, teeth_y - 0.032 * k, 0.45 * ear_z + 0.55 * chin), _v(0.016 * k, teeth_y - 0.038 * k, chin - 0.006 * k), _v(0.0, teeth_y - 0.037 * k, chin)]
    flat = [(0.005 * k, 0.008 * k), (0.005 * k, 0.013 * k), (0.0055 * k, 0.015 * k), (0.006 * k, 0.012 * k), (0.0065 * k, 0.012 * k), (0.007 * k, 0.013 * k)]
    jaw = tube("head", half_jaw, flat, 14, 26, (0.8, 0.0, 0.6))
    left.append(jaw)
    rows = []
    for level, lift in ((teeth_y, 0.004), (teeth_y - 0.011 * k, -0.004)):
        for t in range(7):
            a = (t + 0.5) / 7 * 0.62 * np.pi
            c = _v(0.025 * k * np.sin(a), level + lift * k * 0.2, mouth - 0.026 * k * (1 - np.cos(a)))
            rows.append(ball("head", c, (0.0034 * k, 0.0055 * k, 0.0034 * k), 8, 5))
    left += rows
    return [*left, *(mirrored(s) for s in left)]
