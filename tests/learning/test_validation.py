"""Figures of a validation: errors, PCK, violations of joint limits."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from train_fakes import labelled_people, true_camera
from training_runs import (
    CPU,
    short_config,
)

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.dofs import dof_index
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skins import SkelSkins
from skelfit.learning.evaluation.validation import validate
from skelfit.learning.networks.network import Estimate, Prediction
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training.checkpoint import load
from skelfit.learning.training.training_loop import validation_people

pytestmark = pytest.mark.usefixtures("one_thread")


class Knowing(nn.Module):
    """Says what it was told."""

    def __init__(self, poses: torch.Tensor, betas: torch.Tensor, camera: torch.Tensor) -> None:
        super().__init__()
        self.estimate = Estimate(angles_to_pose(poses), betas, camera)
        self.start = Estimate(angles_to_pose(poses[:1]), betas[:1], camera[:1])

    def forward(self, image: torch.Tensor, cam_int: torch.Tensor, *_: torch.Tensor) -> Prediction:
        return Prediction(None, (self.estimate,), cam_int)


def test_figures_of_known_errors(models: ModelSet) -> None:
    people, trans = labelled_people(models, 3)
    camera = true_camera(people, trans).float()
    batch = people._with(lambda t: t.float() if t.is_floating_point() else t)
    skins = SkelSkins(models, "male")

    def measured(poses: torch.Tensor, camera: torch.Tensor = camera) -> dict[str, Any]:
        network: Any = Knowing(poses, batch.betas, camera)
        figures = validate(network, [batch], skins, CPU)
        assert figures is not None
        return figures

    true = measured(batch.poses)
    assert true["people"] == 3 and true["pck_0.05"] == true["pck_0.1"] == 1
    assert max(true[name] for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")) < 0.01
    assert true["mean_pose"]["pa_mpjpe_mm"] > 10  # the first one's pose for all three
    assert true["violations"]["any"] == [0, 0, 0, 0]

    turned = batch.poses.clone()
    turned[:, dof_index("pelvis_rotation")] += 1
    figures = measured(turned)
    assert figures["pa_mpjpe_mm"] < 0.01 < 100 < figures["mpjpe_mm"] and figures["pve_mm"] > 50

    hyperextended = batch.poses.clone()
    hyperextended[:2, dof_index("knee_angle_r")] = -0.3  # 17 degrees the wrong way
    assert measured(hyperextended)["violations"]["any"] == pytest.approx([2 / 3, 2 / 3, 0, 0], abs=1e-5)
    assert measured(hyperextended)["violations"]["dofs"]["knee_angle_r"][1] == pytest.approx(2 / 3, abs=1e-5)

    beside = camera + torch.tensor([0.0, 0.07 * 2 / camera[:, 0].mean(), 0.0])  # 0.07 of the crop's side
    near = measured(batch.poses, beside)
    assert near["pck_0.05"] < 0.4 < 0.8 < near["pck_0.1"]


def test_each_label_uses_its_own_body(models: ModelSet) -> None:
    made, _ = labelled_people(models, 3)
    batch = made._with(lambda t: t.float() if t.is_floating_point() else t)
    mixed = replace(batch, female=torch.tensor([True, False, True]))
    skins = SkelSkins(models, "male")
    male, both = (skins.of_either(b.female, b.poses, b.betas) for b in (batch, mixed))
    # Alone or among others: products of matrices differ by rounding on some processors.
    torch.testing.assert_close(male[1], both[1], rtol=0, atol=1e-6)
    assert ((male - both).norm(dim=-1).mean(1) > 1e-3).tolist() == [True, False, True]


def test_a_checkpoint_has_the_weights_that_were_validated(
    keypoints_first: Path, shards: Path, three_stages: Path, models: ModelSet
) -> None:
    config = short_config(three_stages, shards)
    content = load(keypoints_first / "checkpoints/step-00000013.pt")
    network = SkelCfNetwork(config.network)
    network.load_state_dict(content["weights"])
    figures = validate(network, validation_people(config, CPU, 96), SkelSkins(models, "male"), CPU)
    assert figures is not None and figures["pve_mm"] == pytest.approx(content["measured"]["pve_mm"], rel=1e-5)
    network.load_state_dict(content["training"]["trainer"]["network"])
    other = validate(network, validation_people(config, CPU, 96), SkelSkins(models, "male"), CPU)
    assert other is not None and abs(other["pve_mm"] - figures["pve_mm"]) > 1e-3
