"""SMPL bodies, by the `smplx` package on our pickle-free assets.

Frame of a label: the mesh is turned by the global orientation about SMPL's root joint, then moved by transl.
Lengths in metres, axis-angles in radians.
"""

from __future__ import annotations

import numpy as np
import torch
from smplx.lbs import batch_rigid_transform, lbs
from torch import Tensor

from skelfit.bodies.assets import SmplAsset
from skelfit.bodies.axis_rotations import blend_shapes
from skelfit.errors import ArgumentError, found_text

SMPL_JOINT_NAMES: tuple[str, ...] = tuple(
    "pelvis l_hip r_hip spine1 l_knee r_knee spine2 l_ankle r_ankle spine3 l_foot r_foot neck l_collar r_collar "
    "head l_shoulder r_shoulder l_elbow r_elbow l_wrist r_wrist l_hand r_hand".split()
)
NUM_SMPL_JOINTS = len(SMPL_JOINT_NAMES)


def root_joint_tables(asset: SmplAsset, num_betas: int = 10) -> tuple[np.ndarray, np.ndarray]:
    """Rest position of the root joint (3,) m, and how betas move it (3, num_betas), float64."""
    weights = asset.J_regressor[0].astype(np.float64)
    return weights @ asset.v_template, np.tensordot(weights, asset.shapedirs[:, :, :num_betas], 1)


class SmplModel:
    """SMPL of one gender with its first `num_betas` shape components. Holds tables only."""

    def __init__(
        self,
        asset: SmplAsset,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
        num_betas: int = 10,
    ) -> None:
        if not isinstance(asset, SmplAsset):
            expected = "a SmplAsset, as load_models().smpl_of(gender) gives it"
            raise ArgumentError("asset", expected, found_text(asset))

        def tensor(array: object) -> Tensor:
            return torch.tensor(array, device=device, dtype=dtype)

        self.asset = asset
        self.gender = asset.gender
        self.num_betas = num_betas
        self.v_template = tensor(asset.v_template)
        self.shapedirs = tensor(asset.shapedirs[:, :, :num_betas])
        self.J_regressor = tensor(asset.J_regressor)
        self.weights = tensor(asset.weights)
        self.parents = torch.tensor(asset.parents, device=device, dtype=torch.int64)
        self._posedirs = tensor(asset.posedirs).flatten(0, 1).mT.contiguous()  # smplx wants (207, 3V)
        # Regressed once, in float64: 6890-term sums lose a micrometre in float32.
        regressor = asset.J_regressor.astype(np.float64)
        self.j_template = tensor(regressor @ asset.v_template)
        self.j_shapedirs = tensor(np.tensordot(regressor, asset.shapedirs[:, :, :num_betas], 1))

    @property
    def posedirs(self) -> Tensor:
        """Pose correctives (V, 3, 207)."""
        return self._posedirs.mT.unflatten(0, (-1, 3))

    def vertices(self, pose: Tensor, betas: Tensor, transl: Tensor | None = None) -> Tensor:
        """Posed skin (..., V, 3) of pose (..., 24, 3) axis-angle, betas (..., num_betas), transl (..., 3)."""
        return self.posed(pose, betas, transl)[0]

    def posed(self, pose: Tensor, betas: Tensor, transl: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Posed skin (..., V, 3), and the joints (..., 24, 3) that its bones turn about; arguments as `vertices`."""
        batch = torch.broadcast_shapes(pose.shape[:-2], betas.shape[:-1])
        flat_pose = pose.expand(*batch, NUM_SMPL_JOINTS, 3).reshape(-1, NUM_SMPL_JOINTS * 3)
        flat_betas = betas.expand(*batch, self.num_betas).reshape(-1, self.num_betas)
        posed = lbs(
            flat_betas,
            flat_pose,
            self.v_template,
            self.shapedirs,
            self._posedirs,
            self.J_regressor,
            self.parents,
            self.weights,
        )
        vertices, joints = (points.reshape(*batch, -1, 3) for points in posed)
        if transl is not None:
            vertices, joints = vertices + transl[..., None, :], joints + transl[..., None, :]
        return vertices, joints

    def transforms(self, local_rot: Tensor, betas: Tensor) -> Tensor:
        """Skinning transforms (B, 24, 3, 4) of local rotations (B, 24, 3, 3) and betas (B, num_betas)."""
        joints = self.j_template + blend_shapes(self.j_shapedirs, betas)
        _, relative = batch_rigid_transform(local_rot, joints, self.parents, dtype=betas.dtype)
        return relative[:, :, :3]

    def root_joint(self, betas: Tensor) -> Tensor:
        """Rest position (..., 3) m of the root joint, the pivot of the global orientation."""
        moved = (self.j_shapedirs[0].double() @ betas.double()[..., None])[..., 0]
        return (self.j_template[0] + moved).to(betas.dtype)
