"""People of whom there is nothing but a mesh: what a job asks of the fit, answered by the mesh fitter."""

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


class MeshPeople:
    """Fits SKEL to meshes on one device. Tables are made at the first use of a gender, then kept."""

    def __init__(self, models: ModelSet, config: FitConfig, device: str = "cpu") -> None:
        self.models, self.config, self.backend = models, config, make_backend(device)
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
            keypoints3d=None if self.models.keypoints44 is None else found.points,
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
