"""Skins and points of the bodies that an evaluation compares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.joint_regressor import joint_regressor
from skelfit.bodies.model_set import KEYPOINTS_NAME, ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.errors import ModelError
from skelfit.protocols.protocol import Points
from skelfit.storage.command_lines import command
from skelfit.verification.measures.posed_bodies import Regressor, make_regressor

Array = NDArray[np.float64]
Skin = NDArray[np.float32]


@dataclass(frozen=True)
class PosedSkins:
    """K bodies without their translation, in the axes of the camera."""

    skin: Skin  # (K,6890,3) m
    joints: Array | None = None  # (K,24,3) m that SMPL's bones turn about; None for SKEL


class EvaluatedBodies:
    """The bodies of a model set, and its regressors, each made at its first use."""

    def __init__(self, models: ModelSet, device: str = "cpu") -> None:
        self.models, self.device = models, device
        self._smpl: dict[str, SmplModel] = {}
        self._skel: dict[str, SkelModel] = {}
        self._regressors: dict[Points, Regressor] = {}

    @torch.inference_mode()
    def smpl(
        self, pose: NDArray[np.floating], betas: NDArray[np.floating], genders: Sequence[str]
    ) -> PosedSkins:
        """SMPL of poses (K,24,3) rad, betas (K,10) and genders (K,). Raises ModelError."""
        skin = np.empty((len(pose), 6890, 3), np.float32)
        joints = np.empty((len(pose), 24, 3))
        for gender in sorted(set(genders)):
            if gender not in self._smpl:
                self._smpl[gender] = SmplModel(self.models.smpl_of(gender), self.device)
            rows = np.array([each == gender for each in genders])
            posed = self._smpl[gender].posed(self._tensor(pose[rows]), self._tensor(betas[rows]))
            skin[rows], joints[rows] = (points.cpu().numpy() for points in posed)
        return PosedSkins(skin, joints)

    @torch.inference_mode()
    def skel(
        self, poses: NDArray[np.floating], betas: NDArray[np.floating], female: NDArray[np.bool_]
    ) -> PosedSkins:
        """SKEL of poses (K,46) rad, betas (K,10); female: (K,). Raises ModelError."""
        skin = np.empty((len(poses), 6890, 3), np.float32)
        for gender in ("male", "female"):
            rows = female == (gender == "female")
            if rows.any():
                body = self.skel_body(gender)
                shape = body.shape(self._tensor(betas[rows]))
                skin[rows] = body.forward(shape, self._tensor(poses[rows])).vertices.cpu().numpy()
        return PosedSkins(skin)

    def skel_body(self, gender: str) -> SkelModel:
        """The SKEL of a gender. Raises ModelError."""
        if gender not in self._skel:
            self._skel[gender] = SkelModel(self.models.skel_of(gender), self.device)
        return self._skel[gender]

    def points(self, bodies: PosedSkins, points: Points) -> Array:
        """Points (K,J,3) m of bodies. Raises ModelError where the models have no such regressor."""
        if points == "smpl24_posed" and bodies.joints is not None:
            return bodies.joints
        return self.regressor(points)(bodies.skin)

    def regressor(self, points: Points) -> Regressor:
        """The regressor of points from posed skins. Raises ModelError, which says how to bring it."""
        if points not in self._regressors:
            self._regressors[points] = make_regressor(self._table(points))
        return self._regressors[points]

    def _table(self, points: Points) -> NDArray[np.float32]:
        if points == "h36m17":
            return joint_regressor(self.models, "h36m17")
        if points == "smpl24_posed":
            return joint_regressor(self.models, "smpl_male24")
        if points == "smpl24":
            return self.models.smpl_of("neutral").J_regressor
        if self.models.keypoints44 is None:
            how = command("models", "import", "--keypoints", "SMPL_to_J19.pkl", "--out", self.models.source)
            expected = f"a regressor of the 44 keypoints (bring it with: {how})"
            raise ModelError(self.models.source, KEYPOINTS_NAME, expected, "no such file")
        return self.models.keypoints44

    def _tensor(self, values: NDArray[np.floating]) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)
