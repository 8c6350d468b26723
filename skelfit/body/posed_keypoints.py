"""The 44 keypoints of SKEL bodies: of the skin, only the vertices that they are regressed from are posed."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from skelfit.body.models import KEYPOINTS_NAME, ModelSet
from skelfit.body.skel import SkelModel
from skelfit.errors import ModelError

ROOT_KEYPOINT = 39  # the pelvis that 3D keypoints are relative to


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
        vertices = np.flatnonzero((models.keypoints44 != 0).any(0))
        self.gender = gender
        self._model = SkelModel(models.skel_of(gender), device, dtype).with_vertices(vertices)
        self._regressor = torch.tensor(models.keypoints44[:, vertices], device=device, dtype=dtype)

    def __call__(self, angles: Tensor, betas: Tensor) -> Tensor:
        """Keypoints (..., 44, 3) m of angles (..., 46) rad and betas (..., 10), without translation."""
        return self._regressor @ self._model.forward(self._model.shape(betas), angles).vertices
