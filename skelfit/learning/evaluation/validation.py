"""Errors of the estimates of people that training never sees; and those of the mean pose, for comparison.

MPJPE and PA-MPJPE are of the 14 LSP joints, regressed from the estimated skin and from the label's, relative to the
middle of the hips, as in papers. PVE is of the skin, relative to the same point. PCK is the share of the labelled 2D
keypoints within a share of the crop's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.continuous_pose import pose_to_angles
from skelfit.bodies.dofs import DOF_NAMES
from skelfit.bodies.joint_distances import joint_errors
from skelfit.bodies.limit_excess import excess_deg
from skelfit.bodies.skins import SkelSkins
from skelfit.learning.cameras import body_to_crop
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import Estimate, Network, Prediction

PCK_AT = (0.05, 0.1)  # of the crop's side
BEYOND_DEG = (5, 10, 20, 30)
ERRORS = {"mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA-MPJPE", "pve_mm": "PVE"}
_LSP = slice(25, 39)  # of the 44 keypoints
_HIPS = (2, 3)  # of LSP's

Measured = dict[str, Any]
Array = NDArray[Any]


@torch.no_grad()
def validate(
    network: Network, batches: Iterable[TrainingBatch], skins: SkelSkins, group: ProcessGroup
) -> Measured | None:
    """The figures of a network; None where there are no people. batches: this process's share of the people."""
    network.eval()
    mean_skin = skin_of(network.start, skins)
    parts = []
    for batch in batches:
        batch = batch.to(group.device)
        prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
        parts.append(errors_of_people(prediction, batch, skins, mean_skin))
    network.train()
    parts = group.gather(parts)
    if not parts:
        return None
    return summary({name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def errors_of_people(
    prediction: Prediction, batch: TrainingBatch, skins: SkelSkins, mean_skin: Tensor
) -> dict[str, Array]:
    """The errors of each of B people, by name."""
    label = skins.of_either(batch.female, batch.poses, batch.betas)
    estimated = skin_of(prediction.final, skins)
    points, crop = skins.keypoints(estimated), (prediction.cam_int, batch.center, batch.box_size)
    in_crop = body_to_crop(points, prediction.final.camera, *crop)
    tensors = {
        "errors": skin_errors(skins, label, estimated),  # (B, 3)
        "mean_pose": skin_errors(skins, label, mean_skin.expand_as(label)),  # (B, 3)
        "off": (in_crop - batch.keypoints2d[..., :2]).norm(dim=-1),  # (B, 44), in sides of the crop
        "seen": batch.keypoints2d[..., 2] > 0,  # (B, 44)
    }
    excess = excess_deg(pose_to_angles(prediction.final.pose).cpu().numpy())  # (B, 46)
    return {name: values.cpu().numpy() for name, values in tensors.items()} | {"excess": excess}


def skin_of(estimate: Estimate, skins: SkelSkins) -> Tensor:
    """Skins (B, V, 3) m of estimates, before the camera's translation."""
    return skins.of(skins.gender, pose_to_angles(estimate.pose), estimate.betas)


def skin_errors(skins: SkelSkins, label: Tensor, estimated: Tensor) -> Tensor:
    """ERRORS (B, 3) mm of skins (B, V, 3) m."""
    points = [skins.keypoints(skin)[:, _LSP] for skin in (label, estimated)]
    of_label, of_estimate = (x.double().cpu().numpy() for x in points)
    joints = torch.tensor(joint_errors(of_label, of_estimate, _HIPS)[:, 1:], device=label.device)
    hips = [x[:, list(_HIPS)].mean(1, keepdim=True) for x in points]
    difference = (estimated - hips[1]) - (label - hips[0])
    return torch.cat((joints, 1000 * difference.norm(dim=-1).mean(1, keepdim=True)), 1)


def summary(errors: Mapping[str, Array]) -> Measured:
    """The figures of all people together; errors: those of `errors_of_people`, of N people."""
    distances = errors["off"][errors["seen"]]
    beyond = errors["excess"][..., None] > np.array(BEYOND_DEG)

    def means(name: str) -> dict[str, float]:
        return dict(zip(ERRORS, errors[name].mean(0).tolist(), strict=True))

    return {
        "people": len(beyond),
        **means("errors"),
        **{f"pck_{at}": float((distances < at).mean()) if len(distances) else None for at in PCK_AT},
        "mean_pose": means("mean_pose"),
        "violations": {
            "beyond_deg": list(BEYOND_DEG),
            "any": beyond.any(1).mean(0).round(6).tolist(),
            "dofs": dict(zip(DOF_NAMES, beyond.mean(0).round(6).tolist(), strict=True)),
        },
    }
