"""Labels that are meshes without SMPL parameters: `MeshFitter` with the results of `Fitter`."""

from __future__ import annotations

from functools import reduce
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.fit_result import FitResult, better
from skelfit.fitting.mesh_fitter import MeshFitter
from skelfit.fitting.terms.spine_coupling import spine_couplings

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.fit_settings import FitConfig


class MeshLabelFitter:
    """Fits SKEL to meshes on one device. The tables of a gender are made once, at its first use."""

    def __init__(self, models: ModelSet, config: FitConfig, device: str = "cpu") -> None:
        self.models, self.config, self.backend = models, config, make_backend(device)
        self._fitters: dict[str, MeshFitter] = {}

    def fit(self, smpl_gender: str, vertices: Tensor) -> FitResult:
        """Fit N meshes (N, V, 3) m; the genders of SKEL are chosen as for labels of this SMPL gender.

        There are no stages and no SMPL betas: measures of them are NaN.
        """
        return reduce(better, (self._fit(g, vertices) for g in self.config.skel_genders(smpl_gender)))

    def _fit(self, skel_gender: str, vertices: Tensor) -> FitResult:
        fitter = self._fitter(skel_gender)
        fit = fitter.fit(vertices)
        unknown = torch.full_like(fit.pve_mm, torch.nan)
        stages = unknown[:, None].repeat(1, len(self.config.stages))
        stages[:, -1] = fit.pve_mm
        return FitResult(
            poses=fit.poses,
            betas=fit.betas,
            trans=fit.trans,
            converged=fit.converged,
            gain=unknown,
            finite=fit.finite,
            pve_mm=fit.pve_mm,
            max_vertex_mm=fit.max_vertex_mm,
            stage_pve_mm=stages,
            objective=(fit.pve_mm / 1000) ** 2,
            female=torch.full_like(fit.finite, skel_gender == "female"),
            betas_mm=unknown[:, None].repeat(1, 2),
            joints=fit.joints,
            keypoints3d=None if self.models.keypoints44 is None else fit.points,
        )

    def _fitter(self, skel_gender: str) -> MeshFitter:
        fitter = self._fitters.get(skel_gender)
        if fitter is None:
            model = SkelModel(self.models.skel_of(skel_gender))
            fitter = self._fitters[skel_gender] = MeshFitter(
                model,
                self.config,
                1000 * self.config.meshes.retry_above,
                self.config.beta_weight,
                self.backend,
                self.models.keypoints44,
                spine_couplings(self.config.spine),
            )
        return fitter
