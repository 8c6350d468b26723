"""The bodies of people, made again from their stored parameters: skins of the label and of the fit, joints, bones.

Everything is computed in float64 by `skelfit.body`, whose models the tests compare with `smplx` and `body-models`;
nothing of the fit is used. A skin stands without its translation, which is added where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.body.assets import SMPL_GENDERS, Float32
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel, SkelShape
from skelfit.body.smpl import SmplModel
from skelfit.verify.samples import People

Array = NDArray[np.float64]


@dataclass(frozen=True)
class Regressor:
    """Points as weighted means of skin vertices, of which few have a weight."""

    vertices: NDArray[np.int64]  # (K,)
    weights: Array  # (J,K)

    def __call__(self, skin: Array) -> Array:
        """Points (N,J,3) of skins (N,V,3)."""
        found: Array = np.einsum("jk,nkc->njc", self.weights, skin[:, self.vertices], optimize=True)
        return found


def make_regressor(dense: Float32) -> Regressor:
    """The regressor of a table (J,V)."""
    vertices = np.flatnonzero(np.any(dense != 0, axis=0))
    return Regressor(vertices, np.asarray(dense[:, vertices], np.float64))


@dataclass(frozen=True)
class Group:
    """People of one pair of bodies, posed. NaN where the label has no SMPL parameters."""

    rows: NDArray[np.int64]  # (K,) which of the people
    skel: SkelModel
    skin: Array  # (K,V,3) m, of SKEL
    joints: Array  # (K,24,3) m, SKEL's
    target: Array  # (K,V,3) m, of SMPL
    target_to_skin: Array  # (K,3) m, translation of SKEL minus that of SMPL
    smpl_joints: Regressor | None  # the 24 of the label's SMPL; None where there is none
    shape: SkelShape
    pose: Tensor  # (K,46) rad


class Bodies:
    """The models of a run's people, made when they are needed."""

    def __init__(self, models: ModelSet) -> None:
        self.models = models
        self._skel: dict[str, SkelModel] = {}
        self._smpl: dict[str, SmplModel] = {}
        self._regressors: dict[str, Regressor] = {}

    @property
    def has_keypoints(self) -> bool:
        """Whether there is a regressor of the 44 keypoints."""
        return self.models.keypoints44 is not None

    def skel(self, gender: str) -> SkelModel:
        """SKEL of a gender. Raises ModelError when there is none."""
        if gender not in self._skel:
            self._skel[gender] = SkelModel(self.models.skel_of(gender), dtype=torch.float64)
        return self._skel[gender]

    def smpl(self, gender: str) -> SmplModel:
        """SMPL of a gender. Raises ModelError when there is none."""
        if gender not in self._smpl:
            self._smpl[gender] = SmplModel(self.models.smpl_of(gender), dtype=torch.float64)
        return self._smpl[gender]

    def keypoints(self) -> Regressor:
        """The 44 keypoints of a skin."""
        assert self.models.keypoints44 is not None
        return self._regressor("keypoints44", self.models.keypoints44)

    def smpl_joints(self, gender: str) -> Regressor:
        """SMPL's own 24 joints of a skin."""
        return self._regressor(f"smpl {gender}", self.models.smpl_of(gender).J_regressor)

    def skel_joints(self, gender: str) -> Regressor:
        """SKEL's 24 anatomical joints of a skin, as they are regressed from it."""
        return self._regressor(f"skel {gender}", self.models.skel_of(gender).J_regressor_osim)

    def _regressor(self, name: str, dense: Float32) -> Regressor:
        if name not in self._regressors:
            self._regressors[name] = make_regressor(dense)
        return self._regressors[name]

    @torch.no_grad()
    def pose(self, people: People) -> list[Group]:
        """All people, posed, in groups of one SKEL and one SMPL gender."""
        pairs = [_genders(meta) for meta in people.metas]
        return [
            self._group(people, np.array([i for i, found in enumerate(pairs) if found == pair]), *pair)
            for pair in sorted(set(pairs))
        ]

    def _group(self, people: People, rows: NDArray[np.int64], smpl_gender: str, skel_gender: str) -> Group:
        fields = people.fields()

        def tensor(name: str) -> Tensor:
            return torch.tensor(fields[name][rows], dtype=torch.float64)

        skel = self.skel(skel_gender)
        shape, pose = skel.shape(tensor("skel_betas")), tensor("skel_poses")
        posed = skel.forward(shape, pose)
        skin = posed.vertices.numpy()
        target = np.full_like(skin, np.nan)
        if smpl_gender:
            target = self.smpl(smpl_gender).vertices(tensor("smpl_pose"), tensor("smpl_betas")).numpy()
        return Group(
            rows=rows,
            skel=skel,
            skin=skin,
            joints=posed.joints.numpy(),
            target=target,
            target_to_skin=(tensor("skel_trans") - tensor("smpl_trans")).numpy(),
            smpl_joints=self.smpl_joints(smpl_gender) if smpl_gender else None,
            shape=shape,
            pose=pose,
        )


def _genders(meta: Any) -> tuple[str, str]:
    """Of a person's SMPL, '' where its parameters are not known, and of the SKEL."""
    known = meta["smpl"] and meta["smpl_gender"] in SMPL_GENDERS
    return (str(meta["smpl_gender"]) if known else "", str(meta["skel_gender"]))


@torch.no_grad()
def bone_vertices(group: Group, some: Sequence[int]) -> Array:
    """Bone vertices (S,Vs,3) m of some people of a group, without their translation."""
    pick = torch.tensor(list(some))
    frames = group.shape.frames.take(pick)
    return group.skel.bones(SkelShape(group.shape.v_rest[pick], frames), group.pose[pick]).numpy()
