"""People of whom there is nothing but a mesh: what a job asks of the fit, answered by the mesh fitter."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.body.skel import SkelModel
from skelfit.fit.mesh import MeshFitter
from skelfit.fit.results import FitResult, better

if TYPE_CHECKING:
    from skelfit.body.models import ModelSet
    from skelfit.config import FitConfig

# RMS; SMPL's skin is met to 4 to 15 mm. Who is further off gets a second chance.
_RETRY_ABOVE_MM = 25.0
_FEW = 64  # skins made at a time, for their keypoints


class MeshPeople:
    """Fits SKEL to meshes on one device. Tables are made at the first use of a gender, then kept."""

    def __init__(self, models: ModelSet, config: FitConfig, device: str = "cpu") -> None:
        self.models, self.config, self.device = models, config, torch.device(device)
        self._fitters: dict[str, MeshFitter] = {}

    def fit(self, smpl_gender: str, vertices: Tensor) -> FitResult:
        """Fit N meshes (N, V, 3) m; the genders of SKEL are chosen as for labels of this SMPL gender.

        There are no stages and no betas of SMPL: what is measured of them is not a number.
        """
        return reduce(better, (self._fit(g, vertices) for g in self.config.skel_genders(smpl_gender)))

    def _fit(self, skel_gender: str, vertices: Tensor) -> FitResult:
        fitter = self._fitter(skel_gender)
        found = fitter.fit(vertices)
        unknown = torch.full_like(found.pve_mm, torch.nan)
        stages = unknown[:, None].repeat(1, len(self.config.stages))
        stages[:, -1] = found.pve_mm
        return FitResult(
            poses=found.poses,
            betas=found.betas,
            trans=found.trans,
            converged=found.converged,
            gain=unknown,
            finite=found.finite,
            pve_mm=found.pve_mm,
            max_vertex_mm=found.max_vertex_mm,
            stage_pve_mm=stages,
            objective=(found.pve_mm / 1000) ** 2,
            female=torch.full_like(found.finite, skel_gender == "female"),
            betas_mm=unknown[:, None].repeat(1, 2),
            joints=found.joints,
            keypoints3d=self._keypoints(fitter.model, found.poses, found.betas, found.trans),
        )

    def _fitter(self, skel_gender: str) -> MeshFitter:
        fitter = self._fitters.get(skel_gender)
        if fitter is None:
            model = SkelModel(self.models.skel_of(skel_gender), self.device)
            weight = self.config.beta_weight
            fitter = self._fitters[skel_gender] = MeshFitter(model, self.config, _RETRY_ABOVE_MM, weight)
        return fitter

    @torch.no_grad()
    def _keypoints(self, model: SkelModel, poses: Tensor, betas: Tensor, trans: Tensor) -> Tensor | None:
        """Keypoints (N, 44, 3) m regressed from the fitted skins; None without a regressor."""
        if self.models.keypoints44 is None:
            return None
        regressor = torch.tensor(self.models.keypoints44, device=self.device, dtype=poses.dtype)
        points = []
        for few in zip(*(x.to(self.device).split(_FEW) for x in (betas, poses, trans)), strict=True):
            shape = model.shape(few[0])
            points.append(regressor @ model.forward(shape, few[1], few[2]).vertices)
        return torch.cat(points).cpu() if points else poses.new_zeros(0, len(regressor), 3)
