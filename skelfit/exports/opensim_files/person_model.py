"""The OpenSim model of one person, from shape parameters: rig, masses, bones and markers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.bodies.skel import SkelModel
from skelfit.exports.opensim_files.bone_files import bone_meshes
from skelfit.exports.opensim_files.motion import AXIS_LENGTH, AXIS_NAMES, CENTER_NAMES, MARKERS
from skelfit.exports.opensim_files.osim_text import ModelMarker, osim_text
from skelfit.exports.opensim_files.person_rig import Array, PersonRig, person_rig
from skelfit.exports.opensim_files.segment_masses import SegmentMasses, segment_masses


@dataclass(frozen=True)
class PersonModel:
    """What does not change while a person moves."""

    rig: PersonRig
    masses: SegmentMasses
    markers: tuple[ModelMarker, ...]
    bones: dict[
        int, tuple[Array, NDArray[np.int64]]
    ]  # vertices (N,3) m in the body's frame, faces (F,3); by joint
    standing_height: float  # of the pelvis joint above the lowest point of the skin in the T-pose, m

    def text(self, name: str, bone_files: dict[int, str], floor: float | None) -> str:
        """The text of the `.osim`; bone_files: of each body with bones, relative to it; floor: its height, if known."""
        return osim_text(name, self.rig, self.masses, bone_files, self.markers, self.standing_height, floor)


@torch.no_grad()
def person_model(model: SkelModel, betas: Array) -> PersonModel:
    """The model of a person of shape betas (10,)."""
    rig = person_rig(model, betas)
    skin = model.shape(torch.tensor(betas, dtype=torch.float64)).v_rest.numpy()
    masses = segment_masses(rig, skin, model.asset.faces, model.weights.numpy())
    return PersonModel(
        rig=rig,
        masses=masses,
        markers=_markers(model, rig, skin),
        bones=bone_meshes(model, rig, betas),
        standing_height=float(rig.joints[0, 1] - skin[:, 1].min()),
    )


def _markers(model: SkelModel, rig: PersonRig, skin: Array) -> tuple[ModelMarker, ...]:
    """Those of a `.trc`. Skin markers are fixed to the body that moves them most, where they are in the T-pose."""
    markers = [ModelMarker(name, j, np.zeros(3)) for j, name in enumerate(CENTER_NAMES)]
    for name, vertex in MARKERS.items():
        joint = int(model.weights[vertex].argmax())
        markers.append(ModelMarker(name, joint, rig.local(joint, skin[vertex])))
    tips = [(j, AXIS_LENGTH * np.eye(3)[k]) for j in range(len(SKEL_JOINT_NAMES)) for k in range(2)]
    markers += [ModelMarker(name, j, tip) for name, (j, tip) in zip(AXIS_NAMES, tips, strict=True)]
    return tuple(markers)
