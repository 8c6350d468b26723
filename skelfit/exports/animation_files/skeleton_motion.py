"""A person's joints in time, each relative to its parent: what animation formats call a skeleton and its tracks.

At rest the person stands in SKEL's T-pose (x to the left, y up, z forward, the axes of glTF), and every joint has the
orientation of the axes. SKEL's spine and shoulder blades slide, so joints have tracks of positions, too.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from skelfit.bodies.dofs import SKEL_PARENTS
from skelfit.exports.exported_bodies import GROUND_AXES, Array, ExportedBodies, coordinates_of, parameters_of
from skelfit.exports.mesh_files import VIEWER_AXES
from skelfit.shards.finished_run import Person


@dataclass(frozen=True)
class SkeletonMotion:
    """One person in time, in metres, y up."""

    times: Array  # (T,) s, from 0
    frames: list[int]  # (T,) of the sequence; [0] of a person in no sequence
    gender: str  # of SKEL
    betas: Array  # (10,), the mean where frames differ
    rest: Array  # (24,3) m, joints in the T-pose
    turns: Array  # (T,24,3,3) orientation of a joint in its parent; of the pelvis, in the scene
    places: Array  # (T,24,3) m, position of a joint in its parent; of the pelvis, in the scene

    @property
    def offsets(self) -> Array:
        """(24,3) m, positions in the parent at rest; of the pelvis, in the scene."""
        offsets = self.rest.copy()
        offsets[1:] -= self.rest[list(SKEL_PARENTS[1:])]
        return offsets


@torch.no_grad()
def skeleton_motion(people: Sequence[Person], bodies: ExportedBodies, rate: float) -> SkeletonMotion:
    """The motion of the frames of one person, in the order of time; rate in Hz."""
    gender = str(people[0].meta["skel_gender"])
    model = bodies.skel(gender)
    betas, q, trans = parameters_of(people)
    posed = model.joints(model.frames(betas), q)
    axes = scene_axes(people[0])
    joints = (posed.pos + trans[:, None]).numpy() @ axes.T
    turns = axes @ posed.rot.numpy()
    parents = list(SKEL_PARENTS[1:])
    to_parents = np.swapaxes(turns[:, parents], -1, -2)
    mean = betas.mean(0)
    in_sequence = people[0].meta["sequence"] is not None
    frames = [int(person.meta["frame"]) for person in people] if in_sequence else [0]
    steps = (joints[:, 1:] - joints[:, parents])[..., None]
    return SkeletonMotion(
        times=(np.array(frames) - frames[0]) / rate,
        frames=frames,
        gender=gender,
        betas=mean.numpy(),
        rest=model.frames(mean).joints.numpy(),
        turns=np.concatenate([turns[:, :1], to_parents @ turns[:, 1:]], axis=1),
        places=np.concatenate([joints[:, :1], (to_parents @ steps)[..., 0]], axis=1),
    )


def scene_axes(person: Person) -> Array:
    """The rotation (3,3) from the coordinates of a person's label to those of the scene: y up, z to the viewer."""
    axes: Array = VIEWER_AXES @ GROUND_AXES[coordinates_of(person)]
    return axes


def scene_joints(motion: SkeletonMotion) -> tuple[Array, Array]:
    """Orientations (T,24,3,3) and positions (T,24,3) m of all joints in the scene."""
    turns, places = motion.turns.copy(), motion.places.copy()
    for joint, parent in enumerate(SKEL_PARENTS[1:], 1):
        places[:, joint] = places[:, parent] + (turns[:, parent] @ places[:, joint, :, None])[..., 0]
        turns[:, joint] = turns[:, parent] @ turns[:, joint]
    return turns, places
