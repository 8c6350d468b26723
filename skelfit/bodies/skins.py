"""Skins of SKEL bodies of both genders, and the keypoints that are regressed from them."""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel


class SkelSkins:
    """The SKEL bodies of a model set, each made at its first use."""

    def __init__(self, models: ModelSet, gender: str, device: torch.device | str = "cpu") -> None:
        """gender: of the batch, unless a call says otherwise."""
        assert models.keypoints44 is not None  # SkelKeypoints is made first and says what is missing
        self.models, self.gender, self.device = models, gender, device
        self._regressor = torch.tensor(models.keypoints44, device=device)
        self._bodies: dict[str, SkelModel] = {}

    def of(self, gender: str, angles: Tensor, betas: Tensor) -> Tensor:
        """Skin (B, V, 3) m of angles (B, 46) rad and betas (B, 10), without translation. Raises ModelError."""
        if gender not in self._bodies:
            self._bodies[gender] = SkelModel(self.models.skel_of(gender), self.device)
        body = self._bodies[gender]
        return body.forward(body.shape(betas), angles).vertices

    def of_either(self, female: Tensor, angles: Tensor, betas: Tensor) -> Tensor:
        """The same for a batch of both genders; female: (B,) bool."""
        skin = angles.new_empty(len(angles), self._regressor.shape[1], 3)
        for gender in ("male", "female"):
            rows = female == (gender == "female")
            if rows.any():
                skin[rows] = self.of(gender, angles[rows], betas[rows])
        return skin

    def keypoints(self, skin: Tensor) -> Tensor:
        """Keypoints (B, 44, 3) m of skins (B, V, 3)."""
        return self._regressor @ skin
