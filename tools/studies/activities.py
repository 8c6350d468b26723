"""The activities of the made-up motions: curves of the joints for walking, running, kicking and so on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, NamedTuple

import numpy as np

from tools.studies.moving_body import Array, Knots, MovingBody, cycle, moves

# Textbook gait: percent of a cycle, which begins as the left heel strikes, and degrees there.
_WALK_HIP = ((0, 15, 30, 50, 60, 75, 87), (30, 24, 8, -11, -4, 24, 33))
_WALK_KNEE = ((0, 14, 40, 60, 72, 88), (5, 19, 6, 36, 62, 20))
_WALK_ANKLE = ((0, 8, 45, 62, 75), (0, -6, 11, -17, 1))
_RUN_HIP = ((0, 15, 36, 55, 77, 90), (38, 22, -14, 14, 58, 50))
_RUN_KNEE = ((0, 15, 36, 52, 70, 88), (18, 43, 16, 62, 110, 45))
_RUN_ANKLE = ((0, 16, 38, 60), (2, 22, -22, -5))


def _gait(b: MovingBody, hertz: float, speed: float, joints: tuple[Knots, ...]) -> Array:
    """Legs, pelvis and trunk of walking or running; returns the left leg's swing, -1 to 1."""
    hip, knee, ankle = joints
    for side, begin in (("l", 0.0), ("r", 0.5)):
        phase = hertz * b.time + begin
        b.add(f"{side}_hip", x=-cycle(phase, hip), y=0.06, z=0.03)
        b.add(f"{side}_knee", x=cycle(phase, knee))
        b.add(f"{side}_ankle", x=-cycle(phase, ankle))
    swing = np.cos(2 * np.pi * hertz * b.time)
    b.turn("y", -0.09 * swing)  # the pelvis goes with the leading leg, the trunk against it
    b.trunk(forward=0.05, twist=0.2 * swing, aside=0.05 * np.sin(2 * np.pi * hertz * b.time))
    b.position[:, 2] = speed * b.time
    b.position[:, 1] = 0.02 * np.cos(4 * np.pi * hertz * b.time)
    return swing


def _walk(b: MovingBody) -> None:
    swing = _gait(b, 0.95, 1.35, (_WALK_HIP, _WALK_KNEE, _WALK_ANKLE))
    b.arms_down(elbow=0.4)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_shoulder", x=0.4 * sign * swing)
        b.add(f"{side}_elbow", y=-0.15 + 0.15 * sign * swing)


def _run(b: MovingBody) -> None:
    swing = _gait(b, 1.45, 3.8, (_RUN_HIP, _RUN_KNEE, _RUN_ANKLE))
    b.turn("x", 0.12)
    b.arms_down(elbow=1.4)
    for side, sign in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_shoulder", x=0.7 * sign * swing)
        b.add(f"{side}_elbow", y=0.2 * sign * swing)


def _kick(b: MovingBody) -> None:
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


def _squat(b: MovingBody) -> None:
    down = moves(b.time, (0.2, 0.0), (1.3, 1.0), (1.5, 1.0), (2.6, 0.0))
    b.both("hip", x=-0.05 - 1.75 * down, y=0.1 + 0.15 * down, z=0.08 + 0.2 * down)
    b.both("knee", x=0.1 + 1.95 * down)
    b.both("ankle", x=-0.5 * down)
    b.arms_down(elbow=0.3)
    b.both("shoulder", x=-1.3 * down)
    b.turn("x", 0.45 * down)
    b.trunk(forward=0.05 + 0.3 * down)
    b.add("neck", x=-0.3 * down)
    b.position[:, 1] = -0.5 * down


def _jump(b: MovingBody) -> None:
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
    b.position[:, 1] = moves(t, (0.2, 0.0), (0.65, -0.3), (1.08, 0.35), (1.5, -0.2), (1.95, 0.0))


def _throw(b: MovingBody) -> None:
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


def _arm_circles(b: MovingBody) -> None:
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


def _turn(b: MovingBody) -> None:
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


def _sit(b: MovingBody) -> None:
    down = moves(b.time, (0.3, 0.0), (1.7, 1.0))
    lean = moves(b.time, (0.3, 0.0), (1.0, 0.6), (1.9, 0.0), (2.9, -0.1))
    b.both("hip", x=-0.05 - 1.45 * down, y=0.1, z=0.1)
    b.both("knee", x=0.1 + 1.4 * down)
    b.arms_down(elbow=0.4)
    b.both("shoulder", x=-0.5 * down)
    b.both("elbow", y=-0.6 * down)
    b.turn("x", lean)
    b.trunk(forward=0.05 + 0.35 * lean + 0.25 * down)
    b.position[:, 1] = -0.45 * down
    b.position[:, 2] = -0.35 * down


def _dance(b: MovingBody) -> None:
    """The trunk rotates, flexes aside and forward in turn; the arms swing with it."""
    t, beat = b.time, 2 * np.pi * 0.5 * b.time
    b.trunk(0.1 + 0.25 * np.sin(2 * beat), 0.6 * np.sin(beat), 0.45 * np.sin(beat + 1.1))
    b.both("hip", x=-0.2 - 0.12 * np.sin(2 * beat), y=0.15, z=0.1)
    b.both("knee", x=0.35 + 0.2 * np.sin(2 * beat))
    b.both("ankle", x=-0.12)
    b.add("l_hip", z=0.12 * np.sin(beat))
    b.add("r_hip", z=-0.12 * np.sin(beat))
    b.turn("z", 0.1 * np.sin(beat))
    b.turn("y", 0.35 * np.sin(beat + 0.4))
    for side, sign in (("l", 1.0), ("r", -1.0)):
        b.add(f"{side}_collar", z=0.08 * sign * np.sin(beat))
        b.add(f"{side}_shoulder", x=-0.4 * np.cos(beat), y=-0.3, z=-0.55 + 0.5 * sign * np.sin(beat))
        b.add(f"{side}_elbow", y=-1.0 - 0.4 * sign * np.cos(beat))
    b.add("neck", y=0.3 * np.sin(beat + 0.5), z=0.1 * np.cos(beat))
    b.position[:, 0] = 0.12 * np.sin(2 * np.pi * 0.25 * t)


def _crawl(b: MovingBody) -> None:
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
    b.position[:, 2] = 0.5 * b.time


def _stand(b: MovingBody) -> None:
    b.arms_down()
    b.both("hip", x=-0.05, y=0.08, z=0.05)
    b.both("knee", x=0.08)


class Activity(NamedTuple):
    """An activity, and how it is recorded."""

    write: Callable[[MovingBody], None]
    frame_rate: float  # Hz
    frames: int
    up: Literal["y", "z"]  # of the world


ACTIVITIES: dict[str, Activity] = {
    "walk": Activity(_walk, 120, 300, "z"),
    "run": Activity(_run, 100, 200, "z"),
    "kick": Activity(_kick, 120, 180, "y"),
    "squat": Activity(_squat, 30, 90, "y"),
    "jump": Activity(_jump, 60, 130, "y"),
    "throw": Activity(_throw, 120, 150, "y"),
    "arm circles": Activity(_arm_circles, 60, 180, "y"),
    "turn": Activity(_turn, 60, 150, "z"),
    "sit": Activity(_sit, 30, 90, "y"),
    "dance": Activity(_dance, 60, 240, "y"),
    "crawl": Activity(_crawl, 30, 120, "y"),
    "stand, noisy": Activity(_stand, 30, 60, "y"),
}
