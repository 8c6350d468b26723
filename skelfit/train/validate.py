"""How good estimates are, of people whom training never sees; beside them, the mean pose, which takes no image.

Errors are of the 14 LSP joints, regressed from the estimated skin and from the label's, both from the middle of the
hips, as papers have them; PVE is of the skin, from there too. PCK is of the 2D keypoints that the label has, within a
share of the crop's side.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.body.continuous import pose_to_angles
from skelfit.body.dofs import DOF_NAMES
from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.camera import body_to_crop
from skelfit.distances import joint_errors
from skelfit.loader.batch import Batch
from skelfit.metrics import excess_deg
from skelfit.train.network import Estimate, Network, Prediction, estimate_of
from skelfit.train.team import Team

PCK_AT = (0.05, 0.1)  # of the crop's side
BEYOND_DEG = (5, 10, 20, 30)
ERRORS = {"mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA-MPJPE", "pve_mm": "PVE"}
_LSP = slice(25, 39)  # of the 44 keypoints
_HIPS = (2, 3)  # of LSP's

Measured = dict[str, Any]
Array = NDArray[Any]


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
        skin = batch.poses.new_empty(len(batch), self._regressor.shape[1], 3)
        for gender in ("male", "female"):
            rows = batch.female == (gender == "female")
            if rows.any():
                skin[rows] = self.skin(gender, batch.poses[rows], batch.betas[rows])
        return skin

    def keypoints(self, skin: Tensor) -> Tensor:
        """Keypoints (B, 44, 3) m of skins (B, V, 3)."""
        return self._regressor @ skin


@torch.no_grad()
def validate(network: Network, batches: Iterable[Batch], skins: Skins, team: Team) -> Measured | None:
    """Measure a network; None where there is nobody. Batches are this process's share of the people."""
    network.eval()
    mean_skin = skins.estimated(estimate_of(network.mean[None]))
    found = []
    for batch in batches:
        batch = batch.to(team.device)
        prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
        found.append(of_each(prediction, batch, skins, mean_skin))
    network.train()
    found = team.gather(found)
    if not found:
        return None
    return summary({name: np.concatenate([part[name] for part in found]) for name in found[0]})


def of_each(prediction: Prediction, batch: Batch, skins: Skins, mean_skin: Tensor) -> dict[str, Array]:
    """What is found of each of B people."""
    label, estimated = skins.labelled(batch), skins.estimated(prediction.final)
    found = {
        "errors": skin_errors(skins, label, estimated),  # (B, 3)
        "mean_pose": skin_errors(skins, label, mean_skin.expand_as(label)),  # (B, 3)
        "off": keypoints_off(skins.keypoints(estimated), prediction, batch),  # (B, 44)
        "seen": batch.keypoints2d[..., 2] > 0,  # (B, 44)
    }
    excess = excess_deg(pose_to_angles(prediction.final.pose).cpu().numpy())  # (B, 46)
    return {name: values.cpu().numpy() for name, values in found.items()} | {"excess": excess}


def skin_errors(skins: Skins, label: Tensor, estimated: Tensor) -> Tensor:
    """ERRORS (B, 3) of skins (B, V, 3) m."""
    points = [skins.keypoints(skin)[:, _LSP] for skin in (label, estimated)]
    of_label, of_estimate = (x.double().cpu().numpy() for x in points)
    joints = torch.tensor(joint_errors(of_label, of_estimate, _HIPS)[:, 1:], device=label.device)
    hips = [x[:, list(_HIPS)].mean(1, keepdim=True) for x in points]
    off = (estimated - hips[1]) - (label - hips[0])
    return torch.cat((joints, 1000 * off.norm(dim=-1).mean(1, keepdim=True)), 1)


def keypoints_off(points: Tensor, prediction: Prediction, batch: Batch) -> Tensor:
    """How far from the label's keypoints those of bodies (B, 44, 3) m are seen, (B, 44), in sides of the crop."""
    camera, cam_int = prediction.final.camera, prediction.cam_int
    in_crop = body_to_crop(points, camera, cam_int, batch.center, batch.box_size)
    return (in_crop - batch.keypoints2d[..., :2]).norm(dim=-1)


def summary(found: Mapping[str, Array]) -> Measured:
    """The figures of all people together."""
    near = found["off"][found["seen"]]
    beyond = found["excess"][..., None] > np.array(BEYOND_DEG)

    def means(name: str) -> dict[str, float]:
        return dict(zip(ERRORS, found[name].mean(0).tolist(), strict=True))

    return {
        "people": len(beyond),
        **means("errors"),
        **{f"pck_{at}": float((near < at).mean()) if len(near) else None for at in PCK_AT},
        "mean_pose": means("mean_pose"),
        "violations": {
            "beyond_deg": list(BEYOND_DEG),
            "any": beyond.any(1).mean(0).round(6).tolist(),
            "dofs": dict(zip(DOF_NAMES, beyond.mean(0).round(6).tolist(), strict=True)),
        },
    }


def in_words(measured: Measured) -> str:
    """The figures in two lines."""

    def errors(found: Mapping[str, float]) -> str:
        return ", ".join(f"{name} {found[key]:.1f}" for key, name in ERRORS.items())

    pck = ", ".join(f"PCK@{at} {measured[f'pck_{at}'] or 0:.1%}" for at in PCK_AT)
    some = zip(measured["violations"]["any"], BEYOND_DEG, strict=True)
    return (
        f"{measured['people']} people held out, mm: {errors(measured)}; {pck}\n"
        f"  the mean pose: {errors(measured['mean_pose'])}; people beyond a joint limit: "
        f"{', '.join(f'{share:.1%} by {deg}' for share, deg in some)} degrees"
    )
