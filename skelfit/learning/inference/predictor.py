"""From crops to people: the network, and the SKEL body that its estimate stands for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.continuous_pose import pose_to_angles
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.learning.cameras import crop_to_translation, project
from skelfit.learning.data.person_crops import Square
from skelfit.learning.data.training_batch import normalised
from skelfit.learning.inference.intrinsics import Camera
from skelfit.learning.networks.skel_cf_network import Network

Array = NDArray[np.float32]


class Shot(NamedTuple):
    """A person as the network is shown it."""

    pixels: NDArray[np.uint8]  # (crop,crop,3) RGB
    square: Square  # of the photo, px
    camera: Camera  # of the photo


@dataclass(frozen=True)
class People:
    """What is said of N people. Lengths in metres in the photo's camera: x right, y down, z forward."""

    skel_poses: Array  # (N,46) rad; the first three are the global orientation
    skel_betas: Array  # (N,10)
    skel_trans: Array  # (N,3)
    global_orient: Array  # (N,3,3) what takes the body's axes in the T-pose to the camera's
    crop_camera: Array  # (N,3) s, tx, ty of the crop
    cam_int: Array  # (N,3,3) px of the photo, with which all this is seen
    joints: Array  # (N,24,3)
    keypoints3d: Array  # (N,44,3); NaN where the models have no regressor of the keypoints
    keypoints2d: Array  # (N,44,2) px of the photo
    skin: Array  # (N,6890,3)

    def __len__(self) -> int:
        return len(self.skel_poses)

    @staticmethod
    def of(several: Sequence[People]) -> People:
        """All together, in order."""
        return People(*(np.concatenate([getattr(p, f.name) for p in several]) for f in fields(People)))

    def rows(self, which: slice | NDArray[np.int64]) -> People:
        """Some of them."""
        return People(*(getattr(self, f.name)[which] for f in fields(self)))

    def parameters(self) -> dict[str, Array]:
        """All but the skin, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "skin"}

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) whether there is an answer."""
        given = (self.skel_poses, self.skel_betas, self.skel_trans)
        finite: Any = np.isfinite(np.concatenate(given, 1)).all(1)
        return np.asarray(finite, np.bool_)


class Predictor:
    """A network on a device, and the body of its gender."""

    def __init__(self, network: Network, models: ModelSet, gender: str, device: str = "cpu") -> None:
        """Raises ModelError when the models lack the body."""
        self.network, self.device = network.to(device).eval(), device
        self.body = SkelModel(models.skel_of(gender), device)
        table = models.keypoints44
        self._regressor = None if table is None else torch.tensor(table, device=device)

    @property
    def faces(self) -> NDArray[np.int32]:
        """(F,3) of the skin."""
        return self.body.asset.faces

    @torch.inference_mode()
    def __call__(self, shots: Sequence[Shot]) -> People:
        """The people of some crops, at least one."""
        pixels = torch.from_numpy(np.stack([shot.pixels for shot in shots])).permute(0, 3, 1, 2)
        cameras = np.zeros((len(shots), 3, 3), np.float32)
        cameras[:, [0, 1, 0, 1], [0, 1, 2, 2]] = [shot.camera for shot in shots]
        cameras[:, 2, 2] = 1
        squares = self._tensor([shot.square for shot in shots])
        center, side = squares[:, :2], squares[:, 2]
        prediction = self.network(normalised(pixels.to(self.device)), self._tensor(cameras), center, side)
        estimate, cam_int = prediction.final, prediction.cam_int
        trans = crop_to_translation(estimate.camera, cam_int, center, side)
        return self._people(pose_to_angles(estimate.pose), estimate.betas, trans, estimate.camera, cam_int)

    @torch.inference_mode()
    def posed(self, poses: Array, betas: Array, trans: Array, cam_int: Array) -> People:
        """People whose parameters are known, before cameras (N,3,3) px; of no crop."""
        crop_camera = np.full((len(poses), 3), np.nan, np.float32)
        return self._people(*map(self._tensor, (poses, betas, trans, crop_camera, cam_int)))

    def _people(
        self, angles: Tensor, betas: Tensor, trans: Tensor, crop_camera: Tensor, cam_int: Tensor
    ) -> People:
        posed = self.body.forward(self.body.shape(betas), angles, trans)
        points = self._keypoints(posed.vertices)
        body = (posed.rotations[:, 0], crop_camera, cam_int, posed.joints, points, project(points, cam_int))
        found = (angles, betas, trans, *body, posed.vertices)
        return People(*(tensor.float().cpu().numpy() for tensor in found))

    @torch.inference_mode()
    def bones(self, people: People) -> tuple[Array, NDArray[np.int32]]:
        """Vertices (N,Vs,3) m of the bone meshes of people, and their faces (Fs,3)."""
        betas, poses, trans = (
            self._tensor(v) for v in (people.skel_betas, people.skel_poses, people.skel_trans)
        )
        bones = self.body.bones(self.body.shape(betas), poses, trans).cpu().numpy()
        return bones, self.body.asset.bone_faces

    def _keypoints(self, skin: Tensor) -> Tensor:
        if self._regressor is None:
            return skin.new_full((len(skin), 44, 3), torch.nan)
        return self._regressor @ skin

    def _tensor(self, values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float32, device=self.device)
