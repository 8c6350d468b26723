"""Made-up motions whose feet are planted exactly, so that their true contacts and events are known.

Legs move in planes beside each other. A foot's path is written first: it lands on the heel, rolls until it is flat,
stands, rises about the joint of the toes, and swings. Hips, knees and ankles follow from it and from the pelvis's path.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.spatial.transform import Rotation
from smplx.lbs import batch_rodrigues

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import corrective_feature
from skelfit.bodies.smpl import SmplModel
from skelfit.bodies.sole_vertices import FOOT_JOINTS, SOLE_PARTS, sole_vertices
from skelfit.bodies.world_axes import Y_UP_FROM_Z_UP
from skelfit.verification.measures.sequence_ground import SoleTracks
from tools.studies.motions import Motion
from tools.studies.moving_body import JOINT, Array

CYCLE, STRIDE = 1.1, 1.3  # s, m: 1.18 m/s
FLAT, HEEL_OFF, TOE_OFF = 0.10, 0.40, 0.62  # of a cycle, which begins as the heel strikes
_LANDING, _RISE = (
    np.radians(20),
    np.radians(40),
)  # the foot's pitch: toes up as it lands, heel up as it leaves
_AHEAD = 0.40  # m, of the hip, where a heel lands
_STEPS = 400  # of the rolling heel
_SWING = (0.5, -0.25)  # m/s forward and upward beyond the heel's roll, at which a foot meets the floor
CROUCH, TAKE_OFF, LANDING, JUMP_END = 0.5, 0.8, 1.2, 2.0  # s
GRAVITY = 9.81


@dataclass(frozen=True)
class PlantedMotion:
    """A motion, and what is true of its feet. The floor is at 0."""

    motion: Motion
    contacts: NDArray[np.bool_]  # (F,4) of SOLE_PARTS
    strikes: dict[str, Array]  # s, by side: r, l
    offs: dict[str, Array]


@dataclass(frozen=True)
class _FootPath:
    """Where a foot is, in the plane of its leg: y up and z forward, m; turns about x, rad."""

    ankle: Array  # (F,2) y, z
    pitch: Array  # (F,) of the foot in the world, positive: toes down
    toes: Array  # (F,) of the toes in the foot


class PlantedBody:
    """The mean neutral body, and the joints and soles of its right leg at rest; the left one is its mirror image."""

    def __init__(self, models: ModelSet) -> None:
        smpl = SmplModel(models.smpl_of("neutral"), dtype=torch.float64)
        self.joints = smpl.j_template.numpy()
        skin, soles = smpl.v_template.numpy(), sole_vertices(models.skel_of("male"))
        self._smpl, self._soles = smpl, soles
        self.heel, forefoot = (skin[soles.vertices[soles.parts[k]]][:, 1:] for k in (0, 1))
        self.floor = min(self.heel[:, 0].min(), forefoot[:, 0].min())  # y of the flat foot's lowest point
        self.hip, self.knee, self.ankle, self.ball = (
            self.joints[JOINT[f"r_{name}"], 1:] for name in ("hip", "knee", "ankle", "foot")
        )

    @torch.no_grad()
    def tracks(self, motion: Motion) -> SoleTracks:
        """The soles of the labels themselves. Joints are SMPL's: those of the feet are where SKEL has its own."""
        pose, betas, transl = (
            torch.tensor(x, dtype=torch.float64) for x in (motion.pose, motion.betas, motion.transl)
        )
        turns = batch_rodrigues(pose.reshape(-1, 3)).unflatten(0, pose.shape[:2])
        transforms, chosen = self._smpl.transforms(turns, betas), self._soles.vertices
        feature = corrective_feature(turns, list(range(1, 24)))
        rest = self._smpl.v_template[chosen] + torch.einsum(
            "vcp,np->nvc", self._smpl.posedirs[chosen], feature
        )
        blended = torch.einsum("vj,njrc->nvrc", self._smpl.weights[chosen], transforms)
        soles = (blended[..., :3] @ rest[..., None])[..., 0] + blended[..., 3] + transl[:, None]
        joints = (transforms[..., :3] @ self._smpl.j_template[..., None])[..., 0] + transforms[..., 3]
        feet = [JOINT[f"{side}_{name}"] for side in "rl" for name in ("ankle", "foot", "foot")]
        others = iter([joint for joint in range(24) if joint not in feet] + [0, 0])
        order = [feet[FOOT_JOINTS.index(j)] if j in FOOT_JOINTS else next(others) for j in range(24)]
        placed = (joints + transl[:, None])[:, order]
        return SoleTracks(np.arange(len(motion)), soles.numpy(), self._soles.parts, placed.numpy())

    def pose(self, hip: Array, feet: dict[str, _FootPath]) -> Array:
        """Rotations (F,24,3) rad that bring the feet there; hip (F,2): where the hips are."""
        pose = np.zeros((len(hip), 24, 3))
        for side, sign in (("l", -1), ("r", 1)):
            pose[:, JOINT[f"{side}_shoulder"], 2] = 1.2 * sign  # arms hang
        thigh, shank = self.knee - self.hip, self.ankle - self.knee
        one, two = np.linalg.norm(thigh), np.linalg.norm(shank)
        for side, foot in feet.items():
            away = foot.ankle - hip
            cosine = ((away**2).sum(1) - one**2 - two**2) / (2 * one * two)
            assert cosine.max() <= 1, "the leg is too short"
            bend = np.arccos(cosine)
            upper = _angle(away) - np.arctan2(two * np.sin(bend), one + two * np.cos(bend))
            hip_x = upper - _angle(thigh)
            knee_x = upper + bend - _angle(shank) - hip_x
            turns = {"hip": hip_x, "knee": knee_x, "ankle": foot.pitch - hip_x - knee_x, "foot": foot.toes}
            for name, turn in turns.items():
                pose[:, JOINT[f"{side}_{name}"], 0] = (turn + np.pi) % (2 * np.pi) - np.pi
        return pose

    def walking_foot(self, phase: Array) -> _FootPath:
        """The path of a foot that lands at z = 0 in cycle 0; phase (F,) in cycles."""
        cycle, within = np.floor(phase), phase % 1.0
        parts = (self._landing, self._standing, self._rising, self._swinging)
        which = np.digitize(within, (FLAT, HEEL_OFF, TOE_OFF))
        path = np.empty((len(phase), 4))
        for k, part in enumerate(parts):
            path[which == k] = part(within[which == k])
        path[:, 1] += STRIDE * cycle
        return _FootPath(path[:, :2], path[:, 2], path[:, 3])

    def standing_ankle(self) -> Array:
        """(2,) m, y and z of the ankle of a flat foot."""
        return np.array([self.ankle[0] - self.floor, 0.0])

    def _landing(self, within: Array) -> Array:
        """Columns y, z, pitch, toes. The heel rolls: its lowest point is on the floor, and stands still."""
        pitches = np.linspace(0, -_LANDING, _STEPS)
        heel = self.heel - self.ankle
        ankles = np.tile(self.standing_ankle(), (_STEPS, 1))
        for k in range(1, _STEPS):
            before, now = (_turned(heel, pitches[i]) for i in (k - 1, k))
            lowest = before[:, 0].argmin()
            ankles[k] = -now[:, 0].min(), ankles[k - 1, 1] + before[lowest, 1] - now[lowest, 1]
        pitch = -_LANDING * (1 - within / FLAT) ** 2
        y, z = (np.interp(-pitch, -pitches, ankles[:, axis]) for axis in (0, 1))
        return np.stack([y, z, pitch, np.zeros_like(within)], 1)

    def _standing(self, within: Array) -> Array:
        return np.tile([*self.standing_ankle(), 0.0, 0.0], (len(within), 1))

    def _rising(self, within: Array) -> Array:
        """The toes stay where they are, and the foot turns about their joint."""
        pitch = _RISE * ((within - HEEL_OFF) / (TOE_OFF - HEEL_OFF)) ** 2
        ball = self.standing_ankle() + self.ball - self.ankle
        ankles = ball + _turned(self.ankle - self.ball, pitch)
        return np.column_stack([ankles, pitch, -pitch])

    def _swinging(self, within: Array) -> Array:
        """From where the toes leave to where the heel lands next, with the speeds of both ends."""
        small, length = 1e-4, 1 - TOE_OFF
        start, before = self._rising(np.array([TOE_OFF, TOE_OFF - small]))
        end, after = self._landing(np.array([0.0, small]))
        end, after = end + [0, STRIDE, 0, 0], after + [0, STRIDE, 0, 0]
        leaving, landing = (start - before) / small, (after - end) / small
        landing[:2] += CYCLE * np.array(_SWING)[::-1]
        u = ((within - TOE_OFF) / length)[:, None]
        path = (2 * u**3 - 3 * u**2 + 1) * start + (3 * u**2 - 2 * u**3) * end
        path += length * ((u**3 - 2 * u**2 + u) * leaving + (u**3 - u**2) * landing)
        path[:, 0] += 0.03 * np.sin(np.pi * u[:, 0]) ** 2
        return path


def _angle(vector: Array) -> Array:
    return np.arctan2(vector[..., 1], vector[..., 0])


def _turned(points: Array, angle: Array | float) -> Array:
    """Points (...,2) y, z turned about x by angles (...) rad."""
    c, s = np.cos(angle), np.sin(angle)
    return np.stack([points[..., 0] * c - points[..., 1] * s, points[..., 0] * s + points[..., 1] * c], -1)


def planted_walk(
    body: PlantedBody, seconds: float, rate: float, up: Literal["y", "z"] = "y"
) -> PlantedMotion:
    """Steady walking."""
    time = np.arange(round(seconds * rate)) / rate
    begins = {"l": 0.27, "r": 0.77}  # of a cycle, in which the foot is at the time 0
    phases = {side: time / CYCLE + begin for side, begin in begins.items()}
    # Both feet are on one path over the ground, half a cycle apart.
    feet = {side: body.walking_foot(phase) for side, phase in phases.items()}
    feet["l"].ankle[:, 1] += STRIDE / 2
    forward = STRIDE * (phases["l"] + 0.5) - _AHEAD
    reach = np.linalg.norm(body.knee - body.hip) + np.linalg.norm(body.ankle - body.knee)
    highest = [
        f.ankle[:, 0] + np.sqrt((0.998 * reach) ** 2 - (f.ankle[:, 1] - forward) ** 2) for f in feet.values()
    ]
    hip = np.column_stack([np.full(len(time), min(h.min() for h in highest)), forward])
    within = {side: phase % 1.0 for side, phase in phases.items()}
    contacts = np.stack(
        [
            within[name[-1]] < HEEL_OFF
            if name.startswith("heel")
            else (within[name[-1]] >= FLAT) & (within[name[-1]] < TOE_OFF)
            for name in SOLE_PARTS
        ],
        1,
    )
    strikes, offs = (
        {side: _times(begin, at, time[-1]) for side, begin in begins.items()} for at in (0.0, TOE_OFF)
    )
    return PlantedMotion(_motion("planted walk", body, rate, up, hip, feet), contacts, strikes, offs)


def _times(begin: float, at: float, end: float) -> Array:
    """s from 0 to `end`, at which a phase that begins with `begin` is `at`."""
    times = CYCLE * (np.arange(-1, end / CYCLE + 2) + at - begin)
    return times[(times > 0) & (times <= end)]


def planted_jump(body: PlantedBody, rate: float, up: Literal["y", "z"] = "y") -> PlantedMotion:
    """Standing, down, a flight of 0.4 s, and down again; both feet flat until they leave."""
    time = np.arange(round((JUMP_END + 0.5) * rate)) / rate
    reach = np.linalg.norm(body.knee - body.hip) + np.linalg.norm(body.ankle - body.knee)
    standing, speed = 0.98 * reach, GRAVITY * (LANDING - TAKE_OFF) / 2
    knots = ((0.0, 1.0, 0.0), (0.2, 1.0, 0.0), (CROUCH, 0.75, 0.0), (TAKE_OFF, 0.99, speed / standing),
             (LANDING, 0.99, -speed / standing), (1.5, 0.78, 0.0), (JUMP_END, 1.0, 0.0), (9.0, 1.0, 0.0))  # fmt: skip
    height = standing * _hermite(time, knots)
    flying = (time >= TAKE_OFF) & (time < LANDING)
    since = time - TAKE_OFF
    lift = np.where(flying, speed * since - GRAVITY / 2 * since**2, 0.0)
    height[flying] = 0.99 * standing + lift[flying]
    flat = body.standing_ankle()
    hip = np.column_stack([height + flat[0], np.zeros(len(time))])
    zeros = np.zeros(len(time))
    foot = _FootPath(np.column_stack([flat[0] + lift, zeros]), zeros, zeros)
    contacts = np.repeat(~flying[:, None], 4, 1)
    both = {side: np.array([LANDING]) for side in "rl"}, {side: np.array([TAKE_OFF]) for side in "rl"}
    return PlantedMotion(
        _motion("planted jump", body, rate, up, hip, {"r": foot, "l": foot}), contacts, *both
    )


def _hermite(time: Array, knots: tuple[tuple[float, float, float], ...]) -> Array:
    """A curve through (time, value, speed)."""
    times, values, speeds = np.array(knots).T
    return CubicHermiteSpline(times, values, speeds)(time)


def _motion(
    name: str, body: PlantedBody, rate: float, up: Literal["y", "z"], hip: Array, feet: dict[str, _FootPath]
) -> Motion:
    pose = body.pose(hip, feet)
    # SMPL's position is that of its root joint, less where it is at rest.
    root = body.joints[0]
    position = np.column_stack([np.zeros(len(hip)), hip + root[1:] - body.hip])
    if up == "z":
        turn = Rotation.from_matrix(Y_UP_FROM_Z_UP.T)
        pose[:, 0] = turn.as_rotvec()
        position = turn.apply(position)
    betas = np.zeros((len(hip), 10))
    labels = (x.astype(np.float32) for x in (pose, betas, position - root))
    return Motion(name, rate, up, *labels)
