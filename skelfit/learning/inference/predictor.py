"""From crops to people: the network, and the SKEL bodies of its estimates."""

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
from skelfit.learning.inference.intrinsics import PhotoCamera
from skelfit.learning.networks.network import Network

Array = NDArray[np.float32]


class CropInput(NamedTuple):
    """The crop of a person, as input of the network."""

    pixels: NDArray[np.uint8]  # (crop,crop,3) RGB
    square: Square  # of the photo, px
    camera: PhotoCamera  # of the photo


@dataclass(frozen=True)
class PredictedPeople:
    """Predictions of N people. Lengths in metres in the photo's camera: x right, y down, z forward."""

    skel_poses: Array  # (N,46) rad; the first three are the global orientation
    skel_betas: Array  # (N,10)
    skel_trans: Array  # (N,3)
    global_orient: Array  # (N,3,3) rotation from the T-pose's axes to the camera's
    crop_camera: Array  # (N,3) s, tx, ty of the crop
    cam_int: Array  # (N,3,3) intrinsics, px of the photo
    joints: Array  # (N,24,3)
    keypoints3d: Array  # (N,44,3); NaN where the models have no regressor of the keypoints
    keypoints2d: Array  # (N,44,2) px of the photo
    skin: Array  # (N,6890,3)

    def __len__(self) -> int:
        return len(self.skel_poses)

    @staticmethod
    def joined(several: Sequence[PredictedPeople]) -> PredictedPeople:
        """The people of several predictions, in order."""
        return PredictedPeople(
            *(
                np.concatenate([getattr(people, f.name) for people in several])
                for f in fields(PredictedPeople)
            )
        )

    def rows(self, index: slice | NDArray[np.int64]) -> PredictedPeople:
        """Some of the people."""
        return PredictedPeople(*(getattr(self, f.name)[index] for f in fields(self)))

    def parameters(self) -> dict[str, Array]:
        """All but the skin, by name."""
        return {f.name: getattr(self, f.name) for f in fields(self) if f.name != "skin"}

    @property
    def finite(self) -> NDArray[np.bool_]:
        """(N,) whether the parameters of a person are finite."""
        parameters = np.concatenate((self.skel_poses, self.skel_betas, self.skel_trans), 1)
        return np.asarray(np.isfinite(parameters).all(1), np.bool_)


class Predictor:
    """A network on a device, and the body of its gender."""

    def __init__(
        self,
        network: Network,
        models: ModelSet,
        gender: str,
        device: str = "cpu",
        *,
        every_layer: bool = False,
    ) -> None:
        """every_layer: `estimates` gives those of all layers. Raises ModelError when the models lack the body."""
        self.network, self.device = network.to(device).eval(), device
        self.every_layer = every_layer
        self.body = SkelModel(models.skel_of(gender), device)
        table = models.keypoints44
        self._regressor = None if table is None else torch.tensor(table, device=device)

    @property
    def faces(self) -> NDArray[np.int32]:
        """(F,3) of the skin."""
        return self.body.asset.faces

    def __call__(self, crops: Sequence[CropInput]) -> PredictedPeople:
        """The people of some crops, at least one."""
        return self.estimates(crops)[-1]

    @torch.inference_mode()
    def estimates(self, crops: Sequence[CropInput]) -> list[PredictedPeople]:
        """The people of some crops, at least one: by `every_layer` all estimates, coarse to fine, else the last."""
        pixels = torch.from_numpy(np.stack([crop.pixels for crop in crops])).permute(0, 3, 1, 2)
        cameras = np.zeros((len(crops), 3, 3), np.float32)
        cameras[:, [0, 1, 0, 1], [0, 1, 2, 2]] = [crop.camera for crop in crops]
        cameras[:, 2, 2] = 1
        squares = self._tensor([crop.square for crop in crops])
        center, side = squares[:, :2], squares[:, 2]
        prediction = self.network(normalised(pixels.to(self.device)), self._tensor(cameras), center, side)
        wanted = [prediction.final]
        if self.every_layer:
            wanted = [*([prediction.encoder] if prediction.encoder is not None else []), *prediction.layers]
        people = []
        for estimate in wanted:
            trans = crop_to_translation(estimate.camera, prediction.cam_int, center, side)
            angles = pose_to_angles(estimate.pose)
            people.append(self._people(angles, estimate.betas, trans, estimate.camera, prediction.cam_int))
        return people

    def estimate_names(self, count: int) -> tuple[str, ...]:
        """The names of so many `estimates` of a crop."""
        if count == 1:
            return ("estimate",)
        first = ["encoder"] if count == self.network.config.layers + 1 else []
        return (*first, *(f"layer {i + 1}" for i in range(count - len(first))))

    @torch.inference_mode()
    def posed(self, poses: Array, betas: Array, trans: Array, cam_int: Array) -> PredictedPeople:
        """People of known parameters, in cameras (N,3,3) px; their crop_camera is NaN."""
        crop_camera = np.full((len(poses), 3), np.nan, np.float32)
        return self._people(*map(self._tensor, (poses, betas, trans, crop_camera, cam_int)))

    def _people(
        self, angles: Tensor, betas: Tensor, trans: Tensor, crop_camera: Tensor, cam_int: Tensor
    ) -> PredictedPeople:
        posed = self.body.forward(self.body.shape(betas), angles, trans)
        points = self._keypoints(posed.vertices)
        body = (posed.rotations[:, 0], crop_camera, cam_int, posed.joints, points, project(points, cam_int))
        tensors = (angles, betas, trans, *body, posed.vertices)
        return PredictedPeople(*(tensor.float().cpu().numpy() for tensor in tensors))

    @torch.inference_mode()
    def bones(self, people: PredictedPeople) -> tuple[Array, NDArray[np.int32]]:
        """Vertices (N,Vs,3) m of people's bone meshes, in the camera, and their faces (Fs,3)."""
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
