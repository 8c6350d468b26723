"""Made-up motions as SMPL labels: what a person does in seconds, smooth as bodies are, and nothing of it recorded.

Joints follow smooth curves: gait cycles, and moves between postures that start and end at rest. Every joint sways a
little besides. A person bends the trunk as a whole, so the three joints of SMPL's spine share every bend and twist.
Turns are written about SMPL's axes (x to the person's left, y up, z forward), as in
`skelfit.labels.demo_people`: applied y, z, x. The right side is written as its mirror image on the left. The same
motions every time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from skelfit.bodies.smpl import SMPL_JOINT_NAMES
from tools.studies.setup import SEED

Array = NDArray[np.float64]
Curve = Array | float  # over the frames, or the same in all

_JOINT = {name: k for k, name in enumerate(SMPL_JOINT_NAMES)}
_SPINE = ("spine1", "spine2", "spine3")
# Shares of the spine's joints in a bend forward, a twist and a bend aside: low joints flex, high ones twist.
_SHARES = np.array([[0.42, 0.32, 0.26], [0.22, 0.33, 0.45], [0.36, 0.35, 0.29]])
# How much joints sway, rad, and how fast at most, Hz.
_SWAY = {"hip": 0.012, "knee": 0.012, "ankle": 0.015, "collar": 0.01, "shoulder": 0.025, "elbow": 0.025}
_SWAY |= {"wrist": 0.03, "neck": 0.02, "head": 0.02}
_SPINE_SWAY, _ROOT_SWAY = 0.02, 0.012
_SWAY_HZ = (0.2, 2.5)
# Textbook gait: percent of a cycle, which begins as the left heel strikes, and degrees there.
_WALK_HIP = ((0, 15, 30, 50, 60, 75, 87), (30, 24, 8, -11, -4, 24, 33))
_WALK_KNEE = ((0, 14, 40, 60, 72, 88), (5, 19, 6, 36, 62, 20))
_WALK_ANKLE = ((0, 8, 45, 62, 75), (0, -6, 11, -17, 1))
_RUN_HIP = ((0, 15, 36, 55, 77, 90), (38, 22, -14, 14, 58, 50))
_RUN_KNEE = ((0, 15, 36, 52, 70, 88), (18, 43, 16, 62, 110, 45))
_RUN_ANKLE = ((0, 16, 38, 60), (2, 22, -22, -5))


@dataclass(frozen=True)
class Motion:
    """One person's motion of F frames as SMPL labels."""

    name: str
    frame_rate: float  # Hz
    up: Literal["y", "z"]  # of the world
    pose: NDArray[np.float32]  # (F,24,3) rad, axis-angle
    betas: NDArray[np.float32]  # (F,10), the same in all frames
    transl: NDArray[np.float32]  # (F,3) m

    def __len__(self) -> int:
        return len(self.pose)

    @property
    def time(self) -> Array:
        """Of each frame, (F,) s."""
        return np.arange(len(self)) / self.frame_rate


class _Body:
    """The joints of a body over F frames while a motion is written."""

    def __init__(self, time: Array, rng: np.random.Generator) -> None:
        self.time, self.rng = time, rng
        self.turns = np.zeros((len(time), 24, 3))  # rad about x, y, z
        self.twist = np.zeros(
            (len(time), 24)
        )  # rad, of a limb about the bone's own axis, x; before the turns
        self.facing = Rotation.identity(len(time))  # of the whole body, in a world with y up
        self.place = np.zeros((len(time), 3))  # m, y up
        self._sway()

    def add(self, joint: str, x: Curve = 0.0, y: Curve = 0.0, z: Curve = 0.0, twist: Curve = 0.0) -> None:
        """Turn a joint further; of the right side: by the mirror image of what is said."""
        side = -1.0 if joint.startswith("r_") else 1.0
        for axis, curve in enumerate((x, side * np.asarray(y), side * np.asarray(z))):
            self.turns[:, _JOINT[joint], axis] += curve
        self.twist[:, _JOINT[joint]] += twist

    def both(self, part: str, x: Curve = 0.0, y: Curve = 0.0, z: Curve = 0.0, twist: Curve = 0.0) -> None:
        """Turn the joints of both sides alike."""
        for side in "lr":
            self.add(f"{side}_{part}", x, y, z, twist)

    def trunk(self, forward: Curve = 0.0, twist: Curve = 0.0, aside: Curve = 0.0) -> None:
        """Bend the spine forward, twist it to the left, bend it to the right; its joints share that."""
        for axis, curve in enumerate((forward, twist, -np.asarray(aside))):
            for joint, share in zip(_SPINE, _SHARES[axis], strict=True):
                self.turns[:, _JOINT[joint], axis] += share * np.asarray(curve)

    def turn(self, axis: Literal["x", "y", "z"], angle: Curve) -> None:
        """Turn the whole body about an axis of the world, after what it was turned by before."""
        self.facing = _turned(axis, np.broadcast_to(angle, self.time.shape)) * self.facing

    def arms_down(self, elbow: Curve = 0.35) -> None:
        """Arms hang beside the body, elbows a little bent."""
        self.both("collar", z=-0.12)
        self.both("shoulder", x=-0.05, y=-0.1, z=-1.1)
        self.both("elbow", y=-np.asarray(elbow))

    def rotations(self) -> Rotation:
        """Of all joints, (F*24) rotations."""
        turns = Rotation.from_euler("yzx", self.turns[..., [1, 2, 0]].reshape(-1, 3))
        twists = _turned("x", self.twist.reshape(-1))
        return turns * twists

    def _sway(self) -> None:
        for name in SMPL_JOINT_NAMES:
            spread = _SWAY.get(name.removeprefix("l_").removeprefix("r_"), 0.0)
            if spread:
                axes = [1.0, 0.0, 0.0] if name.endswith("knee") else [0.7, 1.0, 0.7]
                self.add(name, *(spread * share * self._wander() for share in axes))
        self.trunk(*(_SPINE_SWAY * self._wander() for _ in range(3)))
        for axis in ("x", "y", "z"):
            self.turn(axis, _ROOT_SWAY * self._wander())

    def _wander(self) -> Array:
        """A slow random curve of spread 1: waves whose heights fall with their frequencies."""
        hertz = self.rng.uniform(*_SWAY_HZ, 5)
        heights = (1 / hertz) / np.sqrt((0.5 / hertz**2).sum())
        waves = np.sin(2 * np.pi * (hertz * self.time[:, None] + self.rng.random(5)))
        return waves @ heights


def _turned(axis: str, angles: Array) -> Rotation:
    """Turns (N,) rad about one axis."""
    return Rotation.from_euler(axis, angles[:, None])


def moves(time: Array, *stops: tuple[float, float]) -> Array:
    """A curve through values at times (s), at rest there; in between of least jerk, as people reach."""
    times, values = np.array(stops).T
    k = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2)
    u = np.clip((time - times[k]) / (times[k + 1] - times[k]), 0, 1)
    return values[k] + (values[k + 1] - values[k]) * (10 * u**3 - 15 * u**4 + 6 * u**5)


def cycle(phase: Array, at: tuple[Iterable[float], Iterable[float]]) -> Array:
    """A smooth periodic curve in rad through degrees at percents of a cycle; phase in cycles."""
    percent, degrees = (np.array([*values]) for values in at)
    spline = CubicSpline([*percent / 100, 1.0], np.radians([*degrees, degrees[0]]), bc_type="periodic")
    return spline(phase % 1.0)


def _gait(b: _Body, hertz: float, speed: float, joints: tuple[tuple[tuple[float, ...], ...], ...]) -> Array:
    """Legs, pelvis and trunk of walking or running; returns the left leg's swing, -1 to 1."""
    hip, knee, ankle = joints
    for side, begin in (("l", 0.0), ("r", 0.5)):
        phase = hertz * b.time + begin
        b.add(f"{side}_hip", x=-cycle(phase, hip), y=0.06, z=0.03)  # type: ignore[arg-type]
        b.add(f"{side}_knee", x=cycle(phase, knee))  # type: ignore[arg-type]
        b.add(f"{side}_ankle", x=-cycle(phase, ankle))  # type: ignore[arg-type]
    swing = np.cos(2 * np.pi * hertz * b.time)
    b.turn("y", -0.09 * swing)  # the pelvis goes with the leading leg, the trunk against it
    b.trunk(forward=0.05, twist=0.2 * swing, aside=0.05 * np.sin(2 * np.pi * hertz * b.time))
    b.place[:, 2] = speed * b.time
    b.place[:, 1] = 0.02 * np.cos(4 * np.pi * hertz * b.time)
    return swing


def _walk(b: _Body) -> None:
    swing = _gait(b, 0.95, 1.35, (_WALK_HIP, _WALK_KNEE, _WALK_ANKLE))
    b.arms_down(elbow=0.4)
    for side, way in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_shoulder", x=0.4 * way * swing)
        b.add(f"{side}_elbow", y=-0.15 + 0.15 * way * swing)


def _run(b: _Body) -> None:
    swing = _gait(b, 1.45, 3.8, (_RUN_HIP, _RUN_KNEE, _RUN_ANKLE))
    b.turn("x", 0.12)
    b.arms_down(elbow=1.4)
    for side, way in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_shoulder", x=0.7 * way * swing)
        b.add(f"{side}_elbow", y=0.2 * way * swing)


def _kick(b: _Body) -> None:
    """The right leg is drawn back, then snaps forward: the knee straightens at 1,500 degrees per second."""
    t = b.time
    b.arms_down(elbow=0.6)
    b.add("r_hip", x=moves(t, (0.2, -0.1), (0.62, 0.35), (0.80, -1.25), (1.4, -0.1)), z=0.1, y=0.1)
    b.add("r_knee", x=moves(t, (0.2, 0.15), (0.70, 1.95), (0.828, 0.12), (1.1, 0.9), (1.45, 0.15)))
    b.add("r_ankle", x=moves(t, (0.3, 0.0), (0.65, 0.45), (1.2, 0.0)))
    b.add("l_hip", x=moves(t, (0.2, -0.1), (0.65, -0.3), (1.3, -0.1)))
    b.add("l_knee", x=moves(t, (0.2, 0.15), (0.65, 0.5), (1.3, 0.15)))
    b.add("l_ankle", x=moves(t, (0.2, -0.05), (0.65, -0.2), (1.3, -0.05)))
    b.add(
        "l_shoulder",
        x=moves(t, (0.2, 0.0), (0.75, -0.9), (1.4, 0.0)),
        z=moves(t, (0.2, 0.0), (0.7, 0.5), (1.4, 0)),
    )
    b.add("r_shoulder", x=moves(t, (0.2, 0.0), (0.75, 0.5), (1.4, 0.0)))
    b.trunk(
        forward=moves(t, (0.2, 0.05), (0.62, -0.15), (0.85, 0.25), (1.4, 0.05)),
        twist=moves(t, (0.2, 0.0), (0.62, -0.3), (0.85, 0.3), (1.4, 0.0)),
        aside=moves(t, (0.2, 0.0), (0.7, -0.15), (1.4, 0.0)),
    )
    b.turn("y", moves(t, (0.2, 0.0), (0.62, -0.2), (0.85, 0.35), (1.4, 0.1)))


def _squat(b: _Body) -> None:
    down = moves(b.time, (0.2, 0.0), (1.3, 1.0), (1.5, 1.0), (2.6, 0.0))
    b.both("hip", x=-0.05 - 1.75 * down, y=0.1 + 0.15 * down, z=0.08 + 0.2 * down)
    b.both("knee", x=0.1 + 1.95 * down)
    b.both("ankle", x=-0.5 * down)
    b.arms_down(elbow=0.3)
    b.both("shoulder", x=-1.3 * down)
    b.turn("x", 0.45 * down)
    b.trunk(forward=0.05 + 0.3 * down)
    b.add("neck", x=-0.3 * down)
    b.place[:, 1] = -0.5 * down


def _jump(b: _Body) -> None:
    """Down, off the floor with a swing of both arms, and down again."""
    t = b.time
    crouch = moves(t, (0.2, 0.0), (0.65, 1.0), (0.90, 0.0), (1.28, 0.1), (1.5, 0.75), (1.95, 0.0))
    b.both("hip", x=-0.05 - 1.3 * crouch, y=0.08, z=0.06 + 0.08 * crouch)
    b.both("knee", x=0.08 + 1.5 * crouch)
    b.both(
        "ankle", x=moves(t, (0.2, 0.0), (0.65, -0.45), (0.92, 0.6), (1.25, 0.4), (1.5, -0.35), (1.95, 0.0))
    )
    b.both("foot", x=moves(t, (0.7, 0.0), (0.88, -0.3), (1.0, 0.0), (1.95, 0.0)))
    b.arms_down(elbow=0.35)
    b.both("shoulder", x=moves(t, (0.2, 0.0), (0.62, 0.75), (0.92, -2.3), (1.5, -0.6), (1.95, 0.0)))
    b.both("collar", z=moves(t, (0.62, 0.0), (0.92, 0.25), (1.5, 0.0)))
    b.turn("x", 0.5 * crouch)
    b.trunk(forward=0.25 * crouch)
    b.place[:, 1] = moves(t, (0.2, 0.0), (0.65, -0.3), (1.08, 0.35), (1.5, -0.2), (1.95, 0.0))


def _throw(b: _Body) -> None:
    """Overhand: the right arm is cocked, whips forward turning about its own axis, and follows through."""
    t = b.time
    b.arms_down(elbow=0.3)
    up = moves(t, (0.15, 0.0), (0.60, 1.0), (0.80, 0.95), (1.15, 0.0))
    b.add("r_shoulder", z=1.05 * up, y=moves(t, (0.15, 0.0), (0.6, 0.4), (0.78, -0.7), (1.15, 0.0)))
    b.add("r_shoulder", twist=moves(t, (0.2, 0.0), (0.60, -1.25), (0.74, 0.35), (1.15, 0.0)))
    b.add("r_elbow", y=moves(t, (0.2, 0.0), (0.58, -1.3), (0.70, 0.1), (1.15, 0.0)))
    b.add("r_wrist", z=moves(t, (0.55, 0.0), (0.66, 0.4), (0.78, -0.5), (1.15, 0.0)))
    b.add("r_collar", z=0.2 * up, y=moves(t, (0.15, 0.0), (0.6, 0.15), (0.8, -0.2), (1.15, 0.0)))
    b.add("l_shoulder", x=moves(t, (0.15, 0.0), (0.55, -1.1), (0.8, 0.2), (1.15, 0.0)))
    b.trunk(
        forward=moves(t, (0.2, 0.0), (0.58, -0.2), (0.82, 0.4), (1.2, 0.05)),
        twist=moves(t, (0.2, 0.0), (0.56, -0.55), (0.76, 0.45), (1.2, 0.0)),
        aside=moves(t, (0.2, 0.0), (0.60, 0.1), (0.76, -0.3), (1.2, 0.0)),
    )
    b.turn("y", moves(t, (0.1, -0.8), (0.50, -1.1), (0.74, 0.2), (1.2, 0.0)))
    b.both("hip", x=-0.15)
    b.add("l_hip", x=moves(t, (0.1, 0.0), (0.5, -0.45), (1.0, -0.2)), z=0.2)
    b.add("r_hip", x=moves(t, (0.1, 0.0), (0.7, 0.35), (1.0, 0.0)), z=0.15)
    b.both("knee", x=moves(t, (0.1, 0.2), (0.5, 0.5), (1.0, 0.3)))


def _arm_circles(b: _Body) -> None:
    """Both arms go round through straight ahead, where two of SKEL's shoulder angles run together."""
    b.both("hip", x=-0.05, y=0.08, z=0.05)
    b.both("knee", x=0.1)
    for side, begin in (("l", 0.0), ("r", 1.2)):
        round_ = 2 * np.pi * 0.75 * b.time + begin
        lift = 0.5 - 0.5 * np.sin(round_)
        b.add(f"{side}_shoulder", x=-1.45 + 1.2 * np.sin(round_), z=-0.95 + 0.5 * np.cos(round_))
        b.add(f"{side}_collar", z=-0.1 + 0.22 * lift, y=-0.08 * np.cos(round_))
        b.add(f"{side}_elbow", y=-0.25)
    b.trunk(forward=0.03 * np.sin(2 * np.pi * 0.75 * b.time))


def _turn(b: _Body) -> None:
    """Round once on the spot in small steps; a pelvis that faces -y of a world with z up is at its pole."""
    t = b.time
    hertz = 1.6
    for side, begin in (("l", 0.0), ("r", 0.5)):
        step = np.sin(np.pi * (hertz * t + begin)) ** 4
        b.add(f"{side}_hip", x=-0.05 - 0.5 * step, y=0.1 + 0.25 * np.sin(2 * np.pi * (hertz / 2 * t + begin)))
        b.add(f"{side}_knee", x=0.1 + 0.8 * step)
        b.add(f"{side}_ankle", x=0.15 * step)
    b.arms_down(elbow=0.45)
    b.both("shoulder", x=0.12 * np.sin(np.pi * hertz * t))
    b.trunk(twist=moves(t, (0.0, 0.0), (0.5, 0.25), (2.0, 0.25), (2.45, 0.0)))
    b.add("neck", y=moves(t, (0.0, 0.0), (0.4, 0.35), (2.0, 0.3), (2.4, 0.0)))
    b.turn("y", moves(t, (0.1, -1.4), (2.4, 5.0)))


def _sit(b: _Body) -> None:
    down = moves(b.time, (0.3, 0.0), (1.7, 1.0))
    lean = moves(b.time, (0.3, 0.0), (1.0, 0.6), (1.9, 0.0), (2.9, -0.1))
    b.both("hip", x=-0.05 - 1.45 * down, y=0.1, z=0.1)
    b.both("knee", x=0.1 + 1.4 * down)
    b.arms_down(elbow=0.4)
    b.both("shoulder", x=-0.5 * down)
    b.both("elbow", y=-0.6 * down)
    b.turn("x", lean)
    b.trunk(forward=0.05 + 0.35 * lean + 0.25 * down)
    b.place[:, 1] = -0.45 * down
    b.place[:, 2] = -0.35 * down


def _dance(b: _Body) -> None:
    """The trunk twists, bends aside and forward in turn, the arms swing with it."""
    t, beat = b.time, 2 * np.pi * 0.5 * b.time
    b.trunk(0.1 + 0.25 * np.sin(2 * beat), 0.6 * np.sin(beat), 0.45 * np.sin(beat + 1.1))
    b.both("hip", x=-0.2 - 0.12 * np.sin(2 * beat), y=0.15, z=0.1)
    b.both("knee", x=0.35 + 0.2 * np.sin(2 * beat))
    b.both("ankle", x=-0.12)
    b.add("l_hip", z=0.12 * np.sin(beat))
    b.add("r_hip", z=-0.12 * np.sin(beat))
    b.turn("z", 0.1 * np.sin(beat))
    b.turn("y", 0.35 * np.sin(beat + 0.4))
    for side, way in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_collar", z=0.08 * way * np.sin(beat))
        b.add(f"{side}_shoulder", x=-0.4 * np.cos(beat), y=-0.3, z=-0.55 + 0.5 * way * np.sin(beat))
        b.add(f"{side}_elbow", y=-1.0 - 0.4 * way * np.cos(beat))
    b.add("neck", y=0.3 * np.sin(beat + 0.5), z=0.1 * np.cos(beat))
    b.place[:, 0] = 0.12 * np.sin(2 * np.pi * 0.25 * t)


def _crawl(b: _Body) -> None:
    """On hands and knees, the pelvis about its pole: the trunk lies flat in a world with y up."""
    hertz = 0.8
    for side, begin in (("l", 0.0), ("r", 0.5)):
        leg = np.cos(2 * np.pi * (hertz * b.time + begin))
        b.add(f"{side}_hip", x=-1.45 - 0.3 * leg, y=0.08, z=0.12)
        b.add(f"{side}_knee", x=1.55 + 0.12 * leg)
        b.add(f"{side}_ankle", x=0.5)
        b.add(f"{side}_collar", z=0.0, y=-0.15)
        b.add(f"{side}_shoulder", x=-1.4 + 0.3 * leg, y=-0.15, z=-1.2)
        b.add(f"{side}_elbow", y=-0.3 - 0.15 * leg)
        b.add(f"{side}_wrist", z=0.9)
    b.trunk(
        forward=0.1,
        twist=0.12 * np.sin(2 * np.pi * hertz * b.time),
        aside=0.2 * np.cos(2 * np.pi * hertz * b.time),
    )
    b.add("neck", x=-0.4)
    b.add("head", x=-0.35)
    b.turn("x", 1.5)
    b.turn("y", 0.1 * np.sin(2 * np.pi * hertz * b.time))
    b.place[:, 2] = 0.5 * b.time


def _stand(b: _Body) -> None:
    b.arms_down()
    b.both("hip", x=-0.05, y=0.08, z=0.05)
    b.both("knee", x=0.08)


# name -> what is done, frame rate (Hz), frames, the world's up
_MOTIONS: dict[str, tuple[Callable[[_Body], None], float, int, Literal["y", "z"]]] = {
    "walk": (_walk, 120, 300, "z"),
    "run": (_run, 100, 200, "z"),
    "kick": (_kick, 120, 180, "y"),
    "squat": (_squat, 30, 90, "y"),
    "jump": (_jump, 60, 130, "y"),
    "throw": (_throw, 120, 150, "y"),
    "arm circles": (_arm_circles, 60, 180, "y"),
    "turn": (_turn, 60, 150, "z"),
    "sit": (_sit, 30, 90, "y"),
    "dance": (_dance, 60, 240, "y"),
    "crawl": (_crawl, 30, 120, "y"),
    "stand, noisy": (_stand, 30, 60, "y"),
}
NAMES = tuple(_MOTIONS)
# The one that a label's noise is on: rad of every joint and m of the place, frame by frame.
_NOISY, ANGLE_NOISE, PLACE_NOISE = "stand, noisy", 0.02, 0.01


def make_motion(name: str, frames: int | None = None) -> Motion:
    """One of the motions by its name; frames: as many, for one that goes on for ever. None: its own number."""
    write, rate, usual, up = _MOTIONS[name]
    frames = frames or usual
    rng = np.random.default_rng([SEED, NAMES.index(name)])
    body = _Body(np.arange(frames) / rate, rng)
    write(body)
    pose = body.rotations().as_rotvec().reshape(frames, 24, 3)
    # SMPL's y is the body's up; a world with z up is turned about x.
    whole = Rotation.from_euler("x", np.pi / 2 if up == "z" else 0.0)
    pose[:, 0] = (whole * body.facing).as_rotvec()
    betas = np.tile(rng.standard_normal(10).clip(-2.0, 2.0), (frames, 1))
    place = whole.apply(body.place + [0.0, 0.9, 0.0])
    found = Motion(name, rate, up, *(x.astype(np.float32) for x in (pose, betas, place)))
    return with_noise(found, ANGLE_NOISE, PLACE_NOISE) if name == _NOISY else found


def make_motions() -> tuple[Motion, ...]:
    """All twelve."""
    return tuple(map(make_motion, NAMES))


def with_noise(motion: Motion, angle: float, place: float) -> Motion:
    """The motion as an estimator has it, which sees every frame by itself.

    angle: rad, spread of each joint's turn about each axis; place: m. Half of it lasts about five frames.
    """
    rng = np.random.default_rng([SEED, NAMES.index(motion.name), 1])
    noise = angle * _noise(rng, motion.pose.shape)
    # What an estimator gives of hands and feet follows the bone above it.
    noise[:, [_JOINT[n] for n in ("l_foot", "r_foot", "l_hand", "r_hand")]] = 0
    turned = Rotation.from_rotvec(motion.pose.reshape(-1, 3)) * Rotation.from_rotvec(noise.reshape(-1, 3))
    pose = turned.as_rotvec().reshape(motion.pose.shape)
    transl = motion.transl + place * _noise(rng, motion.transl.shape)
    return replace(motion, pose=pose.astype(np.float32), transl=transl.astype(np.float32))


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise of spread 1 along the first axis: half its variance from frame to frame, half over some frames."""
    quick, slow = rng.standard_normal((2, *shape))
    for before, now in zip(slow[:-1], slow[1:], strict=True):
        now[:] = 0.8 * before + 0.6 * now
    return np.sqrt(0.5) * (quick + slow)
