"""How good estimates are, of people whom training never sees; beside them, the mean pose, which takes no image.

Errors are of the 14 LSP joints, regressed from the estimated skin and from the label's, both from the middle of the
hips, as papers have them; PVE is of the skin, from there too. PCK is of the 2D keypoints that the label has, within a
share of the crop's side.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.body.dofs import DOF_NAMES, NUM_DOFS, dof_limits
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.distances import joint_errors
from skelfit.loader.batch import Batch
from skelfit.train.camera import crop_to_translation, image_to_crop, project
from skelfit.train.network import Estimate, Network, Prediction, estimate_of
from skelfit.train.rotations import pose_to_angles
from skelfit.train.team import Team

PCK_AT = (0.05, 0.1)  # of the crop's side
BEYOND_DEG = (5, 10, 20, 30)
ERRORS = ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")
_LSP = slice(25, 39)  # of the 44 keypoints
_HIPS = (2, 3)  # of LSP's
_SIZES = (1, 3, 3, 1, 2, NUM_DOFS * len(BEYOND_DEG), len(BEYOND_DEG))  # of what is summed, see `_sums`

Measured = dict[str, Any]


class Skins:
    """Skins and keypoints of SKEL bodies."""

    def __init__(self, models: ModelSet, gender: str, device: torch.device | str = "cpu") -> None:
        """gender: of the bodies that are estimated. Labels may be of another, whose model is then needed too."""
        assert models.keypoints44 is not None  # a Trainer has asked for them
        self.models, self.gender, self.device = models, gender, device
        self._regressor = torch.tensor(models.keypoints44, device=device)
        self._bodies: dict[str, SkelModel] = {}

    def skin(self, gender: str, angles: Tensor, betas: Tensor) -> Tensor:
        """Skin (B, V, 3) m of angles (B, 46) rad and betas (B, 10), without translation."""
        if gender not in self._bodies:
            self._bodies[gender] = SkelModel(self.models.skel_of(gender), self.device)
        body = self._bodies[gender]
        return body.forward(body.shape(betas), angles).vertices

    def estimated(self, estimate: Estimate) -> Tensor:
        """Skin (B, V, 3) m of estimates."""
        return self.skin(self.gender, pose_to_angles(estimate.pose), estimate.betas)

    def labelled(self, batch: Batch) -> Tensor:
        """Skin (B, V, 3) m of labels."""
        genders = {name: batch.female == (name == "female") for name in ("male", "female")}
        parts = {name: rows for name, rows in genders.items() if rows.any()}
        skins = [self.skin(name, batch.poses[rows], batch.betas[rows]) for name, rows in parts.items()]
        order = torch.cat([rows.nonzero()[:, 0] for rows in parts.values()])
        return torch.cat(skins)[order.argsort()]

    def keypoints(self, skin: Tensor) -> Tensor:
        """Keypoints (B, 44, 3) m of skins (B, V, 3)."""
        return self._regressor @ skin


@torch.no_grad()
def validate(network: Network, batches: Iterable[Batch], skins: Skins, team: Team) -> Measured | None:
    """Measure a network; None where there is nobody. Batches are this process's share of the people."""
    network.eval()
    total = torch.zeros(sum(_SIZES), dtype=torch.float64, device=team.device)
    mean_skin = skins.estimated(estimate_of(network.mean[None]))
    for batch in batches:
        batch = batch.to(team.device)
        prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
        total += _sums(prediction, batch, skins, mean_skin)
    network.train()
    return _measured(team.sum(total))


def _sums(prediction: Prediction, batch: Batch, skins: Skins, mean_skin: Tensor) -> Tensor:
    """What is counted of a batch, as one vector of _SIZES."""
    label = skins.labelled(batch)
    estimated = skins.estimated(prediction.final)
    errors = skin_errors(skins, label, estimated)
    of_mean = skin_errors(skins, label, mean_skin.expand_as(label))
    points = skins.keypoints(estimated)
    seen, near = keypoints_near(points, prediction, batch)
    excess = excess_deg(pose_to_angles(prediction.final.pose))
    beyond = excess[..., None] > excess.new_tensor(BEYOND_DEG)
    parts = (
        errors.new_tensor([len(batch)]),
        errors.sum(0),
        of_mean.sum(0),
        seen[None],
        near,
        beyond.sum(0).flatten(),
        beyond.any(1).sum(0),
    )
    return torch.cat([part.double() for part in parts])


def skin_errors(skins: Skins, label: Tensor, estimated: Tensor) -> Tensor:
    """ERRORS (B, 3) of skins (B, V, 3) m."""
    points = [skins.keypoints(skin)[:, _LSP] for skin in (label, estimated)]
    of_label, of_estimate = (x.double().cpu().numpy() for x in points)
    joints = torch.tensor(joint_errors(of_label, of_estimate, _HIPS)[:, 1:], device=label.device)
    hips = [x[:, list(_HIPS)].mean(1, keepdim=True) for x in points]
    off = (estimated - hips[1]) - (label - hips[0])
    return torch.cat((joints, 1000 * off.norm(dim=-1).mean(1, keepdim=True)), 1)


def keypoints_near(points: Tensor, prediction: Prediction, batch: Batch) -> tuple[Tensor, Tensor]:
    """Of keypoints (B, 44, 3) m: how many the labels have (), and how many are within PCK_AT of them (2,)."""
    camera, cam_int = prediction.final.camera, prediction.cam_int
    moved = points + crop_to_translation(camera, cam_int, batch.center, batch.box_size)[:, None]
    in_crop = image_to_crop(project(moved, cam_int), batch.center, batch.box_size)
    off = (in_crop - batch.keypoints2d[..., :2]).norm(dim=-1)
    seen = batch.keypoints2d[..., 2] > 0
    near = (off[..., None] < off.new_tensor(PCK_AT)) & seen[..., None]
    return seen.sum(), near.sum((0, 1))


def excess_deg(angles: Tensor) -> Tensor:
    """How far angles (B, 46) rad are beyond their limits, in degrees; 0 within."""
    low, high = torch.tensor(np.degrees(dof_limits()).T, dtype=angles.dtype, device=angles.device)
    degrees = torch.rad2deg(angles)
    return torch.maximum(low - degrees, degrees - high).clamp_min(0)


def _measured(total: Tensor) -> Measured | None:
    """The figures of all people together."""
    people, errors, of_mean, seen, near, beyond, some = (part.numpy() for part in total.cpu().split(_SIZES))
    count = int(people[0])
    if not count:
        return None
    shares = (beyond.reshape(NUM_DOFS, len(BEYOND_DEG)) / count).round(6).tolist()
    return {
        "people": count,
        **_named(errors / count),
        **{f"pck_{at}": float(n / seen[0]) if seen[0] else None for at, n in zip(PCK_AT, near, strict=True)},
        "mean_pose": _named(of_mean / count),
        "violations": {
            "beyond_deg": list(BEYOND_DEG),
            "any": (some / count).round(6).tolist(),
            "dofs": dict(zip(DOF_NAMES, shares, strict=True)),
        },
    }


def _named(errors: Any) -> dict[str, float]:
    return {name: float(error) for name, error in zip(ERRORS, errors, strict=True)}
