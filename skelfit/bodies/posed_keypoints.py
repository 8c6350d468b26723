"""The 44 keypoints of SKEL bodies, without posing the skin that they are regressed from.

A keypoint is sum_v r_v sum_j w_vj (R_j x_v + t_j) over vertices x_v at rest, with r_v its row of the regressor and w_vj
the skinning weights. This equals the sum over joints of R_j u_j + m_j t_j, with u_j = sum_v r_v w_vj x_v and
m_j = sum_v r_v w_vj. As x_v is affine in betas and pose correctives, so is u_j. The tables are small, because few
joints move a keypoint.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.model_set import KEYPOINTS_NAME, ModelSet
from skelfit.bodies.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.errors import ModelError

ROOT_KEYPOINT = 39  # the pelvis that 3D keypoints are relative to


@dataclass(frozen=True)
class KeypointPairs:
    """The P pairs of `count` keypoints and joints that move them, sorted by keypoint; float64 or float32 arrays."""

    count: int
    keypoint: NDArray[np.int64]  # (P,)
    joint: NDArray[np.int64]  # (P,)
    mass: NDArray[np.floating[Any]]  # (P,) m_p
    rest: NDArray[np.floating[Any]]  # (P, 3) m, u_p of betas 0 without correctives
    of_betas: NDArray[np.floating[Any]]  # (P, 3, 10) m per beta
    of_pose: NDArray[np.floating[Any]]  # (P, 3, 9 per driver) m per entry of the drivers' R - I
    drivers: tuple[int, ...]  # joints


class SkelKeypoints:
    """SKEL of one gender down to its keypoints. Holds tables only."""

    def __init__(
        self,
        models: ModelSet,
        gender: str,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        """Raises ModelError when the set lacks this SKEL or the regressor of the keypoints."""
        if models.keypoints44 is None:
            expected = f"{KEYPOINTS_NAME} (make it with: skelfit models import --keypoints FILE)"
            raise ModelError(models.source, "keypoints44", expected, "nothing")
        self.gender = gender
        vertices = np.flatnonzero((models.keypoints44 != 0).any(0))
        self._model = model = SkelModel(models.skel_of(gender), device, dtype).with_vertices(vertices)
        regressor = torch.tensor(models.keypoints44[:, vertices], device=device, dtype=dtype)
        keypoint, self._joint = ((regressor != 0).to(dtype) @ model.weights).nonzero(as_tuple=True)
        shares = regressor[keypoint] * model.weights.T[self._joint]  # (pairs of keypoint and joint, V)
        self._mass = shares.sum(-1, keepdim=True)
        self._rest = shares @ model.v_template
        self._of_betas = torch.einsum("pv,vcb->pcb", shares, model.shapedirs)
        self._of_pose = torch.einsum("pv,vcf->pcf", shares, model.posedirs)
        self._sums = (keypoint == torch.arange(len(regressor), device=device)[:, None]).to(dtype)

    @property
    def model(self) -> SkelModel:
        """The body, with the vertices of the regressor alone."""
        return self._model

    def pairs(self) -> KeypointPairs:
        """The tables as arrays."""
        return KeypointPairs(
            count=len(self._sums),
            keypoint=self._sums.argmax(0).cpu().numpy(),
            joint=self._joint.cpu().numpy(),
            mass=self._mass[:, 0].cpu().numpy(),
            rest=self._rest.cpu().numpy(),
            of_betas=self._of_betas.cpu().numpy(),
            of_pose=self._of_pose.cpu().numpy(),
            drivers=tuple(self._model.corrective_joints),
        )

    def __call__(self, angles: Tensor, betas: Tensor) -> Tensor:
        """Keypoints (..., 44, 3) m of angles (..., 46) rad and betas (..., 10), without translation."""
        model, frames = self._model, self._model.frames(betas)
        posed = model.joints(frames, angles)
        feature = corrective_feature(posed.local_rot, model.corrective_joints)
        rest = self._rest + torch.einsum("pcb,...b->...pc", self._of_betas, betas)
        rest = rest + torch.einsum("pcf,...f->...pc", self._of_pose, feature)
        moved = skinning_transforms(posed, frames.joints)[..., self._joint, :, :]
        return self._sums @ ((moved[..., :3] @ rest[..., None])[..., 0] + self._mass * moved[..., 3])
