"""The joints of a body while a made-up motion is written: flexions and turns in, rotations out.

Rotations are written about SMPL's axes (x to the person's left, y up, z forward), as in `skelfit.labels.demo_people`:
applied y, z, x. The right side is written as the mirror image of the left.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicSpline
from scipy.spatial.transform import Rotation

from skelfit.bodies.smpl import SMPL_JOINT_NAMES

Array = NDArray[np.float64]
Curve = Array | float  # over the frames, or the same in all
Knots = tuple[tuple[float, ...], tuple[float, ...]]  # percents of a cycle, and degrees there

JOINT = {name: k for k, name in enumerate(SMPL_JOINT_NAMES)}
_SPINE = ("spine1", "spine2", "spine3")
# Shares of the spine's joints in flexion, axial rotation and lateral flexion: low joints flex, high ones rotate.
_SHARES = np.array([[0.42, 0.32, 0.26], [0.22, 0.33, 0.45], [0.36, 0.35, 0.29]])
# Amplitude of the joints' sway, rad, and its frequencies, Hz.
_SWAY = {"hip": 0.012, "knee": 0.012, "ankle": 0.015, "collar": 0.01, "shoulder": 0.025, "elbow": 0.025}
_SWAY |= {"wrist": 0.03, "neck": 0.02, "head": 0.02}
_SPINE_SWAY, _ROOT_SWAY = 0.02, 0.012
_SWAY_HZ = (0.2, 2.5)


class MovingBody:
    """The joints of a body over F frames."""

    def __init__(self, time: Array, rng: np.random.Generator) -> None:
        self.time, self.rng = time, rng
        self.turns = np.zeros((len(time), 24, 3))  # rad about x, y, z
        self.twist = np.zeros((len(time), 24))  # rad about a limb's own axis, x; before the turns
        self.facing = Rotation.identity(len(time))  # of the whole body, in a world with y up
        self.position = np.zeros((len(time), 3))  # m, y up
        self._sway()

    def add(self, joint: str, x: Curve = 0.0, y: Curve = 0.0, z: Curve = 0.0, twist: Curve = 0.0) -> None:
        """Turn a joint further, rad; a joint of the right side by the mirror image."""
        side = -1.0 if joint.startswith("r_") else 1.0
        for axis, curve in enumerate((x, side * np.asarray(y), side * np.asarray(z))):
            self.turns[:, JOINT[joint], axis] += curve
        self.twist[:, JOINT[joint]] += twist

    def both(self, part: str, x: Curve = 0.0, y: Curve = 0.0, z: Curve = 0.0, twist: Curve = 0.0) -> None:
        """Turn the joints of both sides, mirrored."""
        for side in "lr":
            self.add(f"{side}_{part}", x, y, z, twist)

    def trunk(self, forward: Curve = 0.0, twist: Curve = 0.0, aside: Curve = 0.0) -> None:
        """Flex the spine forward, rotate it to the left, flex it to the right; its joints share the angles, rad."""
        for axis, curve in enumerate((forward, twist, -np.asarray(aside))):
            for joint, share in zip(_SPINE, _SHARES[axis], strict=True):
                self.turns[:, JOINT[joint], axis] += share * np.asarray(curve)

    def turn(self, axis: Literal["x", "y", "z"], angle: Curve) -> None:
        """Turn the whole body about an axis of the world, after its turns so far."""
        self.facing = turned(axis, np.broadcast_to(angle, self.time.shape)) * self.facing

    def arms_down(self, elbow: Curve = 0.35) -> None:
        """Arms hang beside the body, elbows slightly flexed."""
        self.both("collar", z=-0.12)
        self.both("shoulder", x=-0.05, y=-0.1, z=-1.1)
        self.both("elbow", y=-np.asarray(elbow))

    def rotations(self) -> Rotation:
        """The rotations of all joints, F * 24."""
        turns = Rotation.from_euler("yzx", self.turns[..., [1, 2, 0]].reshape(-1, 3))
        twists = turned("x", self.twist.reshape(-1))
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
        """A slow random curve with deviation 1: waves whose amplitudes fall with their frequencies."""
        hertz = self.rng.uniform(*_SWAY_HZ, 5)
        heights = (1 / hertz) / np.sqrt((0.5 / hertz**2).sum())
        waves = np.sin(2 * np.pi * (hertz * self.time[:, None] + self.rng.random(5)))
        return waves @ heights


def turned(axis: str, angles: Array) -> Rotation:
    """Rotations by angles (N,) rad about one axis."""
    return Rotation.from_euler(axis, angles[:, None])


def moves(time: Array, *stops: tuple[float, float]) -> Array:
    """A curve through (time in s, value) at rest, with least jerk in between, as people reach."""
    times, values = np.array(stops).T
    k = np.clip(np.searchsorted(times, time, side="right") - 1, 0, len(times) - 2)
    u = np.clip((time - times[k]) / (times[k + 1] - times[k]), 0, 1)
    return values[k] + (values[k + 1] - values[k]) * (10 * u**3 - 15 * u**4 + 6 * u**5)


def cycle(phase: Array, knots: Knots) -> Array:
    """A smooth periodic curve in rad through the knots; phase in cycles."""
    percent, degrees = (np.array([*values]) for values in knots)
    spline = CubicSpline([*percent / 100, 1.0], np.radians([*degrees, degrees[0]]), bc_type="periodic")
    return spline(phase % 1.0)
