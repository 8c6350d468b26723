"""Skins of SKEL bodies of either gender, and the keypoints that are regressed from them."""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel


class SkelSkins:
    """Bodies of a model set, each made when it is first asked for."""

    def __init__(self, models: ModelSet, gender: str, device: torch.device | str = "cpu") -> None:
        """gender: of most bodies. Those of the other are made only where there are some."""
        assert models.keypoints44 is not None  # SkelKeypoints, which says what is missing, comes first
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
        """The same of women and men, female: (B,) bool."""
        skin = angles.new_empty(len(angles), self._regressor.shape[1], 3)
        for gender in ("male", "female"):
            rows = female == (gender == "female")
            if rows.any():
                skin[rows] = self.of(gender, angles[rows], betas[rows])
        return skin

    def keypoints(self, skin: Tensor) -> Tensor:
        """Keypoints (B, 44, 3) m of skins (B, V, 3)."""
        return self._regressor @ skin
