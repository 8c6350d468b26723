"""Soles and joints of fitted people, posed in float64 from their parameters."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from skelfit.bodies.skel import SkelModel
from skelfit.bodies.sole_vertices import sole_vertices
from skelfit.verification.measures.sequence_ground import SoleTracks

_BATCH = 512  # frames at once
# Larger numbers are damaged; they are clipped so that nothing overflows.
_MAX_ANGLE, _MAX_M = 1e6, 1e6


class SolePoser:
    """Poses the soles of one SKEL."""

    def __init__(self, model: SkelModel) -> None:
        self._soles = sole_vertices(model.asset)
        self._model = model.with_vertices(self._soles.vertices)

    @torch.no_grad()
    def tracks(
        self,
        frames: NDArray[np.int64],
        betas: NDArray[np.floating[Any]],
        poses: NDArray[np.floating[Any]],
        trans: NDArray[np.floating[Any]],
    ) -> SoleTracks:
        """The tracks of one person with frames (T,), betas (T,10), poses (T,46) rad and trans (T,3) m, in any order.

        Of a frame that is there twice, the first one counts.
        """
        numbers, order = np.unique(frames, return_index=True)
        soles = np.empty((len(order), len(self._soles.vertices), 3))
        joints = np.empty((len(order), 24, 3))
        dtype = self._model.v_template.dtype
        for start in range(0, len(order), _BATCH):
            rows = slice(start, start + _BATCH)
            own = order[rows]
            shape = self._model.shape(torch.tensor(betas[own], dtype=dtype))
            q = torch.tensor(poses[own].clip(-_MAX_ANGLE, _MAX_ANGLE), dtype=dtype)
            posed = self._model.forward(shape, q, torch.tensor(trans[own].clip(-_MAX_M, _MAX_M), dtype=dtype))
            soles[rows], joints[rows] = posed.vertices.numpy(), posed.joints.numpy()
        return SoleTracks(numbers, soles, self._soles.parts, joints)
