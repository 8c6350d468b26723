"""People whose labels agree with each other, made up for the trainer's tests."""

from __future__ import annotations

import numpy as np
import torch

from skelfit.bodies.dofs import NUM_DOFS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.learning.data.training_batch import TrainingBatch


def labelled_people(
    models: ModelSet, count: int, dtype: torch.dtype = torch.float64
) -> tuple[TrainingBatch, torch.Tensor]:
    """Male people in front of cameras, images of noise; and their translations (count, 3) m.

    Keypoints are those of the whole skin, projected with numpy: nothing here is the trainer's.
    """
    torch.manual_seed(3)
    limits = np.nan_to_num(dof_limits(), posinf=1.0, neginf=-1.0)
    low, high = (torch.tensor(side, dtype=dtype) for side in limits.T)
    poses = low + (high - low) * (0.1 + 0.8 * torch.rand(count, NUM_DOFS, dtype=dtype))
    betas = torch.randn(count, 10, dtype=dtype)
    model = SkelModel(models.skel_of("male"), dtype=dtype)
    skin = model.forward(model.shape(betas), poses).vertices
    points = torch.tensor(models.keypoints44, dtype=dtype) @ skin
    trans = torch.tensor([0.3, -0.2, 6.0], dtype=dtype) + 0.3 * torch.randn(count, 3, dtype=dtype)
    cam_int = torch.tensor([[900.0, 0, 320], [0, 900, 240], [0, 0, 1]], dtype=dtype).repeat(count, 1, 1)
    projected = np.einsum("bij,bkj->bki", cam_int.numpy(), (points + trans[:, None]).numpy())
    pixels = torch.tensor(projected[..., :2] / projected[..., 2:])
    center, side = pixels.mean(1), 1.2 * (pixels.amax(1) - pixels.amin(1)).amax(-1)
    in_crop = (pixels - center[:, None]) / side[:, None, None]
    confidence = torch.ones(count, 44, 1, dtype=dtype)
    batch = TrainingBatch(
        pixels=torch.randint(0, 256, (count, 3, 256, 256), dtype=torch.uint8),
        keypoints2d=torch.cat((in_crop, confidence), -1),
        keypoints3d=torch.cat((points + 5.0, confidence), -1),  # only what is relative to the pelvis counts
        poses=poses,
        betas=betas,
        female=torch.zeros(count, dtype=torch.bool),
        cam_int=cam_int,
        center=center,
        box_size=side,
        image_size=torch.tensor([640.0, 480.0], dtype=dtype).repeat(count, 1),
        flipped=torch.zeros(count, dtype=torch.bool),
        turn=torch.zeros(count, dtype=dtype),
        has_pose=torch.ones(count, dtype=torch.bool),
        has_betas=torch.ones(count, dtype=torch.bool),
        extreme=torch.zeros(count, dtype=torch.bool),
        fitted_points=torch.zeros(count, dtype=torch.bool),
        left_out=torch.zeros(count, 3, dtype=torch.int64),
        keys=tuple(f"p{i}" for i in range(count)),
    )
    return batch, trans


def true_camera(batch: TrainingBatch, trans: torch.Tensor) -> torch.Tensor:
    """The crop's camera (B, 3) that stands for translations (B, 3) m, solved from what a camera means."""
    focal, axis = batch.cam_int[:, 0, 0], batch.cam_int[:, :2, 2]
    beside = trans[:, :2] - trans[:, 2:] * (batch.center - axis) / focal[:, None]
    return torch.cat(((2 * focal / (trans[:, 2] * batch.box_size))[:, None], beside), -1)
