"""Bodies posed again from stored parameters: skins of the label and of the fit, joints, bones.

Joints and bones are computed in float64 by `skelfit.bodies`, whose models the tests compare with `smplx` and
`body-models`. Skins are posed in float32 from joint transforms in float64, by the kernel that makes the fit's targets;
no other code of the fit is used. Skins have no translation; it is added where it matters.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse import csr_array
from smplx.lbs import batch_rodrigues
from torch import Tensor

from skelfit.bodies.assets import SMPL_GENDERS, Float32
from skelfit.bodies.kinematics import PosedJoints, RestFrames
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel, corrective_feature, skinning_transforms
from skelfit.bodies.smpl import NUM_SMPL_JOINTS, SmplModel
from skelfit.verification.measures.decoded_samples import DecodedPeople
from skelfit.verification.measures.sole_poser import SolePoser

if TYPE_CHECKING:
    from skelfit.verification.measures.skin_distance import SkinSurface

Array = NDArray[np.float64]
Skin32 = NDArray[np.float32]

MAX_M = 1e6  # larger numbers are damaged; they are clipped so that nothing overflows


@dataclass(frozen=True)
class Regressor:
    """Points as weighted sums of the few skin vertices that have a weight."""

    vertices: NDArray[np.int64]  # (K,)
    weights: csr_array  # (J,K)
    sums: Array  # (J,) of the weights

    def __call__(self, skin: Skin32) -> Array:
        """Points (N,J,3) of skins (N,V,3), in float64."""
        used = skin[:, self.vertices].astype(np.float64).swapaxes(0, 1)
        points: Array = self.weights @ used.reshape(len(used), -1)
        return points.reshape(-1, *used.shape[1:]).swapaxes(0, 1)

    def moved(self, points: Array, offset: Array) -> Array:
        """The points (N,J,3) of skins that are moved by offsets (N,3)."""
        moved: Array = points + self.sums[:, None] * offset[:, None]
        return moved


def make_regressor(dense: Float32) -> Regressor:
    """The regressor of a table (J,V)."""
    vertices = np.flatnonzero(np.any(dense != 0, axis=0))
    weights = np.asarray(dense[:, vertices], np.float64)
    return Regressor(vertices, csr_array(weights), weights.sum(1))


class SkinPoser:
    """Poses skins of one model, one person in each vector lane; a skin does not depend on the rest of the batch."""

    def __init__(self, model: SkelModel | SmplModel) -> None:
        # Imported here because it takes a moment, and commands that measure no people do not need it.
        from skelfit.fitting.backends.backend import make_backend
        from skelfit.fitting.backends.skin_tables import make_skin, sorted_by_joint

        self._backend = make_backend("cpu")
        weights = model.weights.numpy()
        # The largest part comes last: the sum of the others is then rounded at its own magnitude.
        parts = (model.shapedirs, model.posedirs, model.v_template[..., None])
        self._skin = make_skin(
            torch.cat(parts, -1).numpy(), weights, sorted_by_joint(weights, np.arange(len(weights))),
            np.zeros(len(weights)), (), (), np.zeros((0, len(weights))), self._backend.block, "cpu",
        ).skin  # fmt: skip

    def __call__(self, betas: Tensor, feature: Tensor, transforms: Tensor) -> Skin32:
        """Skins (N,V,3) m of betas (N,n), corrective features (N,p) and skinning transforms (N,24,3,4)."""
        backend, kernels = self._backend, self._backend.kernels
        rows = np.arange(-(-len(betas) // backend.lanes) * backend.lanes)
        lanes = torch.tensor(rows.clip(max=len(betas) - 1))  # copies of the last person fill the last group
        coefficients = torch.cat((betas, feature, betas.new_ones(len(betas), 1)), 1)
        people = kernels.skinning.SkinInputs()
        people.coefficients, people.transforms = (
            backend.lanes_from(x[lanes].clamp(-MAX_M, MAX_M).float())
            for x in (coefficients, transforms.flatten(2))
        )
        people.rows = backend.ints(rows.reshape(-1, backend.lanes))
        groups = len(people.rows)
        people.target = backend.lanes_of(groups, self._skin.count, 3)
        room = backend.scratch(kernels.skinning.make_skin_scratch, 1, backend.block, 0)
        backend.launch(kernels.skin_errors.target_skin, 1, [self._skin, people, groups, room])
        skins: Skin32 = backend.people_of(people.target, len(betas)).numpy()
        return skins


@dataclass(frozen=True)
class PosedGroup:
    """K people with the same SKEL and SMPL model, posed. NaN where the label has no SMPL parameters."""

    rows: NDArray[np.int64]  # (K,) indices of the people
    skel: SkelModel
    skin: Skin32  # (K,V,3) m, of SKEL
    joints: Array  # (K,24,3) m, SKEL's
    target: Skin32  # (K,V,3) m, of SMPL
    target_to_skin: Array  # (K,3) m, translation of SKEL minus that of SMPL
    smpl_joints: Regressor | None  # of the label's SMPL; None where it has no SMPL parameters
    betas: Tensor  # (K,10)
    frames: RestFrames  # of SKEL's joints
    pose: Tensor  # (K,46) rad


class BodyModels:
    """SMPL and SKEL models with their regressors, each made when it is first needed."""

    def __init__(self, models: ModelSet) -> None:
        self.models = models
        self._skel: dict[str, SkelModel] = {}
        self._smpl: dict[str, SmplModel] = {}
        self._regressors: dict[str, Regressor] = {}
        self._skins: dict[str, SkinPoser] = {}
        self._surfaces: dict[str, SkinSurface] = {}
        self._soles: dict[str, SolePoser] = {}

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

    def soles(self, gender: str) -> SolePoser:
        """Poses the soles of SKEL of a gender. Raises ModelError when there is none."""
        if gender not in self._soles:
            self._soles[gender] = SolePoser(self.skel(gender))
        return self._soles[gender]

    def surface(self, gender: str) -> SkinSurface:
        """The surface of a SKEL's skin, for distances to it."""
        from skelfit.verification.measures.skin_distance import SkinSurface

        if gender not in self._surfaces:
            asset = self.models.skel_of(gender)
            self._surfaces[gender] = SkinSurface(asset.faces, asset.v_template)
        return self._surfaces[gender]

    def _regressor(self, name: str, dense: Float32) -> Regressor:
        if name not in self._regressors:
            self._regressors[name] = make_regressor(dense)
        return self._regressors[name]

    @torch.no_grad()
    def pose(self, people: DecodedPeople) -> list[PosedGroup]:
        """All people, posed, in groups of the same SKEL and SMPL gender."""
        pairs = [_genders(meta) for meta in people.metas]
        return [
            self._group(people, np.array([i for i, genders in enumerate(pairs) if genders == pair]), *pair)
            for pair in sorted(set(pairs))
        ]

    def _group(
        self, people: DecodedPeople, rows: NDArray[np.int64], smpl_gender: str, skel_gender: str
    ) -> PosedGroup:
        fields = people.fields()

        def tensor(name: str) -> Tensor:
            return torch.tensor(fields[name][rows], dtype=torch.float64)

        skel, betas, pose = self.skel(skel_gender), tensor("skel_betas"), tensor("skel_poses")
        frames = skel.frames(betas)
        posed = skel.joints(frames, pose)
        skin = self._skel_skin(skel, betas, frames, posed)
        target = np.full_like(skin, np.nan)
        if smpl_gender:
            target = self._smpl_skin(smpl_gender, tensor("smpl_betas"), tensor("smpl_pose"))
        return PosedGroup(
            rows=rows,
            skel=skel,
            skin=skin,
            joints=posed.pos.numpy(),
            target=target,
            target_to_skin=(tensor("skel_trans") - tensor("smpl_trans")).numpy(),
            smpl_joints=self.smpl_joints(smpl_gender) if smpl_gender else None,
            betas=betas,
            frames=frames,
            pose=pose,
        )

    def _skel_skin(self, skel: SkelModel, betas: Tensor, frames: RestFrames, posed: PosedJoints) -> Skin32:
        feature = corrective_feature(posed.local_rot, skel.corrective_joints)
        transforms = skinning_transforms(posed, frames.joints)
        return self._skin_maker(f"skel {skel.gender}", skel)(betas, feature, transforms)

    def _smpl_skin(self, gender: str, betas: Tensor, pose: Tensor) -> Skin32:
        smpl = self.smpl(gender)
        rotations = batch_rodrigues(pose.reshape(-1, 3)).unflatten(0, pose.shape[:2])
        feature = corrective_feature(rotations, list(range(1, NUM_SMPL_JOINTS)))
        return self._skin_maker(f"smpl {gender}", smpl)(betas, feature, smpl.transforms(rotations, betas))

    def _skin_maker(self, name: str, model: SkelModel | SmplModel) -> SkinPoser:
        if name not in self._skins:
            self._skins[name] = SkinPoser(model)
        return self._skins[name]


def _genders(meta: Any) -> tuple[str, str]:
    """Gender of the SMPL model, '' where its parameters are not known, and gender of the SKEL model."""
    known = meta["smpl"] and meta["target_gender"] in SMPL_GENDERS
    return (str(meta["target_gender"]) if known else "", str(meta["skel_gender"]))


@torch.no_grad()
def bone_vertices(group: PosedGroup, members: Sequence[int], vertices: NDArray[np.int64]) -> Array:
    """Positions (S,K,3) m of bone vertices (K,), without translation, for S members of a group."""
    pick = torch.tensor(list(members))
    skel = group.skel.with_bone_vertices(vertices)
    return skel.bones(skel.shape(group.betas[pick]), group.pose[pick]).numpy()
