"""SKEL-CF's network: its first estimate, its refinement, its ablations."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from skelfit.bodies.continuous_pose import pose_to_angles
from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.bodies.skel import SkelModel
from skelfit.learning.backbones.keypoint_cnn import KeypointBackbone
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import NetworkConfig, Prediction
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.training_config import (
    LossConfig,
    load_train_config,
)
from skelfit.resources.catalog import TRAININGS

TINY = NetworkConfig(backbone="tiny", dim=32, heads=2, layers=3)


def predict(network: SkelCfNetwork, batch: TrainingBatch) -> Prediction:
    step = batch.image.shape[-1] // network.backbone.crop
    crop = batch.cam_int, batch.center, batch.box_size
    return network(batch.image[..., ::step, ::step], *crop)


def make(config: NetworkConfig) -> SkelCfNetwork:
    torch.manual_seed(1)
    return SkelCfNetwork(config)


def test_shapes(batch: TrainingBatch) -> None:
    prediction = predict(make(TINY), batch)
    assert prediction.encoder is not None and len(prediction.layers) == 3
    assert prediction.final is prediction.layers[2]
    for estimate in (prediction.encoder, *prediction.layers):
        assert estimate.pose.shape == (3, 24, 6)
        assert estimate.betas.shape == (3, 10)
        assert estimate.camera.shape == (3, 3) and (estimate.camera[:, 0] > 0).all()
    assert torch.equal(prediction.cam_int, batch.cam_int)


def test_estimates_are_float32_under_autocast(batch: TrainingBatch) -> None:
    network = make(TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = predict(network, batch).final
    for name, values in vars(predict(network, batch).final).items():
        assert getattr(mixed, name).dtype == torch.float32
        torch.testing.assert_close(getattr(mixed, name), values, rtol=0, atol=0.01)


def test_at_first_a_person_stands_upright_and_faces_the_camera(
    batch: TrainingBatch, models: ModelSet
) -> None:
    first = predict(make(TINY), batch).final
    model = SkelModel(models.skel_of("male"))
    joints = model.forward(model.shape(first.betas), pose_to_angles(first.pose)).joints
    position = {name: joints[:, i] for i, name in enumerate(SKEL_JOINT_NAMES)}
    assert (position["head"][:, 1] < position["pelvis"][:, 1] - 0.4).all()  # y is down
    assert (position["toes_r"][:, 2] < position["calcn_r"][:, 2] - 0.05).all()  # z is away
    assert (position["hand_r"][:, 0] < position["hand_l"][:, 0] - 0.5).all()
    assert (first.camera - torch.tensor([0.9, 0, 0])).abs().max() < 0.3


def test_people_of_a_batch_are_independent(batch: TrainingBatch) -> None:
    network = make(TINY)
    alone = batch._with(lambda t: t[1:2])
    of_all, of_one = vars(predict(network, batch).final), vars(predict(network, alone).final)
    for name, values in of_all.items():
        torch.testing.assert_close(values[1:2], of_one[name], rtol=1e-4, atol=1e-5)


def test_only_the_middle_of_the_crop_counts(batch: TrainingBatch) -> None:
    network = make(TINY)
    sides, middle = batch.image.clone(), batch.image.clone()
    sides[..., :32] = sides[..., -32:] = 0
    middle[..., 100:120] = 0
    crop = (batch.cam_int, batch.center, batch.box_size)
    as_it_is = network(batch.image, *crop).final.pose
    assert torch.equal(network(sides, *crop).final.pose, as_it_is)
    assert not torch.equal(network(middle, *crop).final.pose, as_it_is)


@pytest.mark.parametrize(
    "config",
    [
        TINY,
        replace(TINY, coarse_to_fine=False),
        replace(TINY, looped_decoder=True),
        replace(TINY, camera=False),
        replace(TINY, backbone="keypoint-tiny"),
        replace(TINY, backbone="keypoint-tiny", coarse_to_fine=False),
    ],
    ids=["all", "no coarse to fine", "looped", "no camera", "keypoints", "keypoints, no coarse to fine"],
)
def test_gradients_reach_every_weight(config: NetworkConfig, batch: TrainingBatch, models: ModelSet) -> None:
    """Otherwise DistributedDataParallel would wait for ever."""
    network = make(config)
    if isinstance(network.backbone, KeypointBackbone):  # the detector learns before, from all of its heatmaps
        network.backbone.eye(batch.image[..., ::2, ::2]).square().mean().backward()
    loss, _ = training_loss(predict(network, batch), batch, SkelKeypoints(models, "male"), LossConfig())
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        # Keys' biases change no attention, and weights of betas that are 0 nothing.
        assert weight.grad.abs().max() > 0 or name.endswith(("key.bias", "embed.1.weight")), name


def test_without_camera_the_intrinsics_do_not_matter(batch: TrainingBatch) -> None:
    wider = replace(batch, cam_int=batch.cam_int * torch.tensor([[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]))
    network = make(TINY)
    assert not torch.equal(predict(network, batch).final.pose, predict(network, wider).final.pose)
    network = make(replace(TINY, camera=False))
    one, other = predict(network, batch), predict(network, wider)
    assert torch.equal(one.final.pose, other.final.pose)
    assert torch.equal(one.cam_int, other.cam_int) and not torch.equal(one.cam_int, batch.cam_int)


def test_without_coarse_to_fine_there_is_one_estimate(batch: TrainingBatch) -> None:
    network = make(replace(TINY, coarse_to_fine=False))
    prediction = predict(network, batch)
    assert prediction.encoder is None and len(prediction.layers) == 1
    assert len(network.decoder) == 3 and len(network.readout) == 1


def test_a_looped_decoder_is_one_layer_used_again(batch: TrainingBatch) -> None:
    network, separate = make(replace(TINY, looped_decoder=True)), make(TINY)
    assert len(network.decoder) == 1 and len(separate.decoder) == 3
    prediction = predict(network, batch)
    assert len(prediction.layers) == 3
    poses = [estimate.pose for estimate in prediction.layers]
    assert not torch.equal(poses[0], poses[1]) and not torch.equal(poses[1], poses[2])
    # With the same weights in every layer, separate layers do what the loop does.
    shared = network.state_dict()
    again = {
        name: shared[
            name.replace(f".{name.split('.')[1]}.", ".0.", 1)
            if name.split(".")[0] in ("decoder", "readout")
            else name
        ]
        for name in separate.state_dict()
    }
    separate.load_state_dict(again)
    torch.testing.assert_close(predict(separate, batch).final.pose, prediction.final.pose)


def test_a_layer_embeds_the_previous_estimate(batch: TrainingBatch) -> None:
    """Each layer embeds the current estimate; otherwise the first estimate would only be added to the result."""
    network = make(TINY)
    before = predict(network, batch)
    with torch.no_grad():
        network.mean[-1] += 0.5
    after = predict(network, batch)
    step = [p.final.betas - p.encoder.betas for p in (before, after) if p.encoder is not None]
    assert not torch.allclose(step[0], step[1])


@pytest.mark.parametrize(
    ("backbone", "losses"),
    [
        ("tiny", LossConfig()),
        ("keypoint-tiny", LossConfig(keypoints3d=0.2, pose=0.1, orientation=0.3)),
    ],
)
def test_the_loss_falls(backbone: str, losses: LossConfig, batch: TrainingBatch, models: ModelSet) -> None:
    """Three people by heart, a little."""
    network, body = make(replace(TINY, backbone=backbone)), SkelKeypoints(models, "male")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    history = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, terms = training_loss(predict(network, batch), batch, body, losses)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        history.append({"loss": loss.item()} | {name: value.item() for name, value in terms.items()})
    assert history[-1]["loss"] < 0.7 * history[0]["loss"], (history[0], history[-1])


@pytest.mark.parametrize("coarse_to_fine", [True, False])
def test_a_mirror_image_has_a_mirrored_person(batch: TrainingBatch, coarse_to_fine: bool) -> None:
    config = replace(TINY, backbone="keypoint-tiny", coarse_to_fine=coarse_to_fine)
    network = make(config).eval()
    for weight in network.parameters():  # at first all estimates are the mean pose, all but symmetric
        weight.data += 0.05 * torch.randn_like(weight)
    beside = batch.center - batch.cam_int[:, :2, 2]
    center = batch.center - torch.stack((2 * beside[:, 0], torch.zeros(3)), -1)
    image = batch.image[..., ::2, ::2]
    here = network(image, batch.cam_int, batch.center, batch.box_size)
    there = network(image.flip(-1), batch.cam_int, center, batch.box_size)
    assert (here.encoder is None) == (there.encoder is None) == (not coarse_to_fine)
    angles, mirrored = (pose_to_angles(p.final.pose).detach().numpy() for p in (here, there))
    np.testing.assert_allclose(mirrored, mirrored_poses(angles), atol=1e-4)
    assert np.abs(mirrored - angles).max() > 0.01
    torch.testing.assert_close(there.final.betas, here.final.betas)
    torch.testing.assert_close(there.final.camera, here.final.camera * torch.tensor([1.0, -1.0, 1.0]))
    network.train()
    detector = network.backbone.detector
    assert detector is not None
    detector.eval()
    moved = network(image.flip(-1), batch.cam_int, center, batch.box_size)
    assert not torch.allclose(moved.final.betas, here.final.betas, atol=1e-3)


def test_the_published_network_at_full_size() -> None:
    config = load_train_config(TRAININGS.find("train-skel-cf"))
    with torch.device("meta"):
        network = SkelCfNetwork(config.network)
        crop = (torch.empty(2, 3, 3), torch.empty(2, 2), torch.empty(2))
        prediction = network(torch.empty(2, 3, 256, 256), *crop)
        prediction.final.pose.sum().backward()
    assert len(prediction.layers) == 6
    assert sum(weight.numel() for weight in network.parameters()) > 631e6
