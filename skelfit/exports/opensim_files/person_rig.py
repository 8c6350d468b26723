"""SKEL's joints of one person as OpenSim describes joints: frames at rest, offsets, and axes that functions move along.

A body's frame is SKEL's frame of the joint (x forward, y up, z right in a leg at rest). At rest a joint's two offset
frames have the same orientation, so that SKEL's axes are OpenSim's as they are. Lengths in metres, angles in radians.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import factorial, pi

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_NAMES, SKEL_PARENTS, dofs_of_joint
from skelfit.bodies.kinematics import (
    ABDUCTION,
    ELEVATION,
    SCAPULAE,
    SPINE,
    SPINE_BENDING,
    SPINE_EXTENSION,
    RestFrames,
)
from skelfit.bodies.skel import SkelModel

Array = NDArray[np.float64]

# Sliding is written as Taylor polynomials: to 1e-6 of a segment's length at half a turn, 1e-13 within the limits.
ORDER = 14


@dataclass(frozen=True)
class Slide:
    """A movement of a joint along a fixed axis: a polynomial of one or two of its own coordinates."""

    axis: Array  # (3,) unit vector in the joint's frame
    coordinates: tuple[str, ...]
    coefficients: Array  # (ORDER+1,), or (ORDER+1,ORDER+1): of the powers of the coordinates, in m


@dataclass(frozen=True)
class PersonRig:
    """A person's 24 joints, in SKEL's order, standing in SKEL's T-pose (x to the left, y up, z forward)."""

    gender: str
    joints: Array  # (24,3) m
    frames: Array  # (24,3,3) joint frame -> T-pose
    axes: Array  # (46,3) of the DoFs, in their joints' frames

    slides: dict[int, tuple[Slide, ...]]  # of the joints that slide

    def offset(self, joint: int) -> tuple[Array, Array]:
        """Position (3,) m and orientation (3,3) of a joint at rest, in the frame of its parent."""
        parent = SKEL_PARENTS[joint]
        to_parent = self.frames[parent].T
        return to_parent @ (self.joints[joint] - self.joints[parent]), to_parent @ self.frames[joint]

    def local(self, joint: int, points: Array) -> Array:
        """Points (N,3) m of the T-pose in the frame of a joint."""
        local: Array = (points - self.joints[joint]) @ self.frames[joint]
        return local

    def turns(self, joint: int) -> list[tuple[str, Array]]:
        """A joint's DoFs and their axes, the outermost rotation first, as OpenSim lists them."""
        return [(DOF_NAMES[i], self.axes[i]) for i in reversed(dofs_of_joint(joint))]


@torch.no_grad()
def person_rig(model: SkelModel, betas: Array) -> PersonRig:
    """The rig of a person of shape betas (10,)."""
    frames = model.frames(torch.tensor(betas, dtype=torch.float64))
    return PersonRig(
        gender=model.gender,
        joints=frames.joints.numpy(),
        frames=frames.frame.numpy(),
        axes=model.rig.axes.double().numpy(),
        slides={**_spine(frames), **_scapulae(frames)},
    )


def _spine(frames: RestFrames) -> dict[int, tuple[Slide, ...]]:
    """The ends of arcs of constant curvature: sideways with bending, forward with extension, downward with both."""
    sideways, upward = arc_polynomials()
    slides: dict[int, tuple[Slide, ...]] = {}
    for joint, bending, extension, length in zip(
        SPINE, SPINE_BENDING, SPINE_EXTENSION, frames.spine_length.tolist(), strict=True
    ):
        x, y, z = frames.frame[joint].numpy()  # the axes of the T-pose, in the joint's frame
        down = np.zeros((ORDER + 1, ORDER + 1))
        down[:, 0], down[0, :] = upward, upward
        down[0, 0] = 0  # both arcs stand upright at rest
        names = DOF_NAMES[bending], DOF_NAMES[extension]
        slides[joint] = (
            Slide(x, names[:1], -length * sideways),
            Slide(y, names, length * down),
            Slide(z, names[1:], -length * sideways),
        )
    return slides


def _scapulae(frames: RestFrames) -> dict[int, tuple[Slide, ...]]:
    """The path of a scapula on an ellipsoid, over abduction and elevation."""
    width, height = float(frames.thorax_width), float(frames.thorax_height)
    slides: dict[int, tuple[Slide, ...]] = {}
    for joint, abduction, elevation, sign in zip(SCAPULAE, ABDUCTION, ELEVATION, (1.0, -1.0), strict=True):
        x, y, z = frames.frame[joint].numpy()
        names = DOF_NAMES[abduction], DOF_NAMES[elevation]
        flat, deep = circle_polynomials(0.0, sign)
        risen_cos, risen_sin = circle_polynomials(-pi / 4, sign)
        across = np.outer(flat, risen_cos)
        across[0, 0] -= np.cos(pi / 4)
        rise = risen_sin.copy()
        rise[0] += np.sin(pi / 4)
        slides[joint] = (
            Slide(x, names, -sign * width / 4 * across),
            Slide(y, names[1:], -height / 2 * rise),
            Slide(z, names[:1], width / 4 * deep),
        )
    return slides


def arc_polynomials() -> tuple[Array, Array]:
    """(1 - cos t) / t and sin t / t, as coefficients of t^0 ... t^ORDER."""
    cosine, sine = (_series(shift, ORDER + 1) for shift in (0, 1))
    cosine[0] -= 1
    return -cosine[1:], sine[1:]


def circle_polynomials(start: float, sign: float) -> tuple[Array, Array]:
    """cos(start + sign t) and sin(start + sign t), as coefficients of t^0 ... t^ORDER."""
    cosine = _series(0, ORDER)
    sine = sign * _series(1, ORDER)
    return (
        np.cos(start) * cosine - np.sin(start) * sine,
        np.sin(start) * cosine + np.cos(start) * sine,
    )


def _series(first: int, order: int) -> Array:
    """Coefficients of cos t (first 0) or sin t (first 1)."""
    return np.array(
        [(-1.0) ** (k // 2) / factorial(k) if k % 2 == first else 0.0 for k in range(order + 1)], np.float64
    )
