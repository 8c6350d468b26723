"""The bone mesh of a person, in one part for each body and in the body's frame."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.skel import SkelModel
from skelfit.exports.opensim_files.person_rig import Array, PersonRig


@torch.no_grad()
def bone_meshes(model: SkelModel, rig: PersonRig, betas: Array) -> dict[int, tuple[Array, NDArray[np.int64]]]:
    """Vertices (N,3) m and faces (F,3) of the bones of each body that has some.

    A face belongs to the bone of its first corner. The T-pose's bones are taken, so the parts fit together in it.
    """
    pose = torch.zeros(NUM_DOFS, dtype=torch.float64)
    points = model.bones(model.shape(torch.tensor(betas, dtype=torch.float64)), pose).numpy()
    faces = model.asset.bone_faces.astype(np.int64)
    owner = model.asset.bone_weights_rigid.argmax(1)[faces[:, 0]]
    meshes = {}
    for joint in np.unique(owner).tolist():
        own, corners = np.unique(faces[owner == joint], return_inverse=True)
        meshes[joint] = rig.local(joint, points[own]), corners.reshape(-1, 3)
    return meshes
