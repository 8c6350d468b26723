"""Made-up motions as SMPL labels: seconds of smooth movement, written as curves and not recorded from anyone.

Joints follow smooth curves: gait cycles, and moves between postures that start and end at rest. Every joint sways a
little besides. The three joints of SMPL's spine share each flexion and rotation. The same motions every time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from tools.studies.activities import ACTIVITIES
from tools.studies.moving_body import JOINT, Array, MovingBody
from tools.studies.setup import SEED

NAMES = tuple(ACTIVITIES)
# The motion with the noise of labels: rad of every joint and m of the position, frame by frame.
_NOISY, ANGLE_NOISE, POSITION_NOISE = "stand, noisy", 0.02, 0.01


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


def make_motion(name: str, frames: int | None = None) -> Motion:
    """The motion of a name; frames: its length, for one that goes on for ever (None: its own length)."""
    activity = ACTIVITIES[name]
    frames = frames or activity.frames
    rng = np.random.default_rng([SEED, NAMES.index(name)])
    body = MovingBody(np.arange(frames) / activity.frame_rate, rng)
    activity.write(body)
    pose = body.rotations().as_rotvec().reshape(frames, 24, 3)
    # SMPL has y up: for a world with z up all is turned about x.
    to_world = Rotation.from_euler("x", np.pi / 2 if activity.up == "z" else 0.0)
    pose[:, 0] = (to_world * body.facing).as_rotvec()
    betas = np.tile(rng.standard_normal(10).clip(-2.0, 2.0), (frames, 1))
    position = to_world.apply(body.position + [0.0, 0.9, 0.0])
    labels = (x.astype(np.float32) for x in (pose, betas, position))
    motion = Motion(name, activity.frame_rate, activity.up, *labels)
    return with_noise(motion, ANGLE_NOISE, POSITION_NOISE) if name == _NOISY else motion


def make_motions() -> tuple[Motion, ...]:
    """All twelve motions."""
    return tuple(map(make_motion, NAMES))


def with_noise(motion: Motion, angle: float, position: float) -> Motion:
    """The motion as an estimator of single frames sees it.

    angle: rad, deviation of each joint's rotation about each axis; position: m. Half of the noise lasts five frames.
    """
    rng = np.random.default_rng([SEED, NAMES.index(motion.name), 1])
    noise = angle * _noise(rng, motion.pose.shape)
    # In an estimate hands and feet follow the bone above.
    noise[:, [JOINT[n] for n in ("l_foot", "r_foot", "l_hand", "r_hand")]] = 0
    turned = Rotation.from_rotvec(motion.pose.reshape(-1, 3)) * Rotation.from_rotvec(noise.reshape(-1, 3))
    pose = turned.as_rotvec().reshape(motion.pose.shape)
    transl = motion.transl + position * _noise(rng, motion.transl.shape)
    return replace(motion, pose=pose.astype(np.float32), transl=transl.astype(np.float32))


def _noise(rng: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Noise of deviation 1 along the first axis: half its variance from frame to frame, half over several frames."""
    quick, slow = rng.standard_normal((2, *shape))
    for before, now in zip(slow[:-1], slow[1:], strict=True):
        now[:] = 0.8 * before + 0.6 * now
    return np.sqrt(0.5) * (quick + slow)
