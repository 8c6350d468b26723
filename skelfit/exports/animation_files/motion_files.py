"""The two kinds of files: what each holds of a person in motion, and what it cannot hold."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from skelfit.bodies.dofs import NUM_JOINTS, SKEL_PARENTS
from skelfit.exports.animation_files.bvh_text import bvh_text, evenly_timed
from skelfit.exports.animation_files.person_glb import person_glb
from skelfit.exports.animation_files.skeleton_motion import SkeletonMotion, skeleton_motion
from skelfit.exports.animation_files.skinned_meshes import skin_distances, skinned_meshes
from skelfit.exports.exported_bodies import Array, ExportedBodies, coordinates_of, gravity_text
from skelfit.exports.ground_files import ground_facts
from skelfit.shards.finished_run import Person
from skelfit.verification.measures.sequence_ground import SequenceGround


class GlbFiles:
    """glTF in one file: skeleton, skin, bones, and the animation of a sequence."""

    name = "glb"
    summary = "skin, bones and skeleton in motion, for Blender and the web"

    def __init__(self, bodies: ExportedBodies) -> None:
        self.bodies = bodies
        self._means: list[float] = []  # m, of the files
        self._largest = 0.0  # m

    def content(
        self, name: str, people: Sequence[Person], rate: float, ground: SequenceGround | None
    ) -> bytes:
        """The file of the frames of one person; rate in Hz; ground: of a sequence."""
        motion = skeleton_motion(people, self.bodies, rate)
        model = self.bodies.skel(motion.gender)
        skin, bones = skinned_meshes(model, motion, people)
        mean, largest = skin_distances(skin, model, motion, people)
        self._means.append(mean)
        self._largest = max(self._largest, largest)
        away = {"mean_mm": 1000 * mean, "max_mm": 1000 * largest}
        facts = _facts(motion, people, rate) | {"skin_to_skel": away}
        if ground is not None:
            facts["ground"] = ground_facts(ground)
        return person_glb(name, motion, (skin, bones), facts)

    def notes(self, first: str) -> list[str]:
        """Lines for the terminal, `first` being the name of a file."""
        mean, largest = 1000 * float(np.mean(self._means)), 1000 * self._largest
        return [
            f"  joints are SKEL's; skins are {mean:.2f} mm from SKEL's on average, {largest:.1f} mm at most",
            f"next: open {first} in Blender (File > Import > glTF 2.0), or in a viewer on the web",
        ]


class BvhFiles:
    """Biovision's text: the skeleton alone."""

    name = "bvh"
    summary = "the skeleton in motion, as text"

    def __init__(self, bodies: ExportedBodies) -> None:
        self.bodies = bodies
        self._filled = 0

    def content(
        self, name: str, people: Sequence[Person], rate: float, ground: SequenceGround | None
    ) -> bytes:
        """The file of the frames of one person; rate in Hz. BVH has no place for a name and for the ground."""
        motion = skeleton_motion(people, self.bodies, rate)
        even, step = evenly_timed(motion)
        self._filled += len(even.frames) - len(motion.frames)
        return bvh_text(even, self._tips(motion), rate / step).encode()

    def notes(self, first: str) -> list[str]:
        """Lines for the terminal, `first` being the name of a file."""
        lines = ["  each joint has six channels, because the spine and the shoulder blades slide"]
        if self._filled:
            lines.append(f"  {self._filled} missing frames lie between their neighbours")
        return [*lines, f"next: open {first} in Blender (File > Import > Motion Capture), scale 1"]

    @torch.no_grad()
    def _tips(self, motion: SkeletonMotion) -> dict[int, Array]:
        """The ends (3,) m of joints without a child, in the T-pose: twice as far as the middle of their skin."""
        model = self.bodies.skel(motion.gender)
        skin = model.shape(torch.tensor(motion.betas)).v_rest.numpy()
        carrier = model.asset.skin_weights.argmax(1)
        ends = [joint for joint in range(NUM_JOINTS) if joint not in SKEL_PARENTS]
        return {joint: 2 * skin[carrier == joint].mean(0) - motion.rest[joint] for joint in ends}


def _facts(motion: SkeletonMotion, people: Sequence[Person], rate: float) -> dict[str, Any]:
    """What a file says about its person: facts that viewers show, and that lead back to the shard."""
    meta = people[0].meta
    return {
        "key": people[0].key,
        "label_file": meta["label_file"],
        "sequence": meta["sequence"],
        "frames": motion.frames,
        "frame_rate": rate if meta["sequence"] is not None else None,
        "coordinates": coordinates_of(people[0]),
        "gravity": gravity_text(coordinates_of(people[0])),
        "skel_gender": motion.gender,
        "betas": motion.betas.tolist(),
    }
