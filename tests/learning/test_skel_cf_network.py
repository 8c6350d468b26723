"""SKEL-CF's network: as published, its ablations, and its gradients."""

from __future__ import annotations

from dataclasses import replace

import plain_networks
import published_shapes
import pytest
import torch
from plain_networks import flat, part_of, predict

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.backbones.keypoint_cnn import KeypointBackbone
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.training_config import LossConfig

TINY = NetworkConfig(backbone="tiny", layers=3, heads=2, head_dim=16, feed_forward=48, hidden=24)


def make(config: NetworkConfig) -> SkelCfNetwork:
    torch.manual_seed(1)
    return SkelCfNetwork(config)


@pytest.mark.parametrize(("backbone", "size"), [("vitpose-h", (1280, 32)), ("vitpose-b", (768, 12))])
def test_weights_are_those_of_published_checkpoints(backbone: str, size: tuple[int, int]) -> None:
    """Names, shapes and their number at full size; nothing is computed on the meta device."""
    with torch.device("meta"):
        network = SkelCfNetwork(NetworkConfig(backbone=backbone))
    found = {name: tuple(weight.shape) for name, weight in network.state_dict().items()}
    decoder = published_shapes.prefixed("decoder.", published_shapes.skel_cf_decoder(size[0]))
    assert found == published_shapes.prefixed("backbone.", published_shapes.vitpose(*size)) | decoder
    if backbone == "vitpose-h":
        assert sum(weight.numel() for weight in network.decoder.parameters()) == 48_502_941


def test_estimates_are_those_of_the_published_network(batch: TrainingBatch) -> None:
    network = make(TINY)
    with torch.no_grad():
        for weight in network.parameters():  # so that no part is small beside the others
            weight.add_(0.05 * torch.randn_like(weight))
    weights = network.state_dict()
    image = batch.image[..., 32:-32].double()
    patches = plain_networks.plain_vitpose(part_of(weights, "backbone."), image, heads=2)
    focal, axis = batch.cam_int[:, 0, 0], batch.cam_int[:, :2, 2]
    beside = (batch.center - axis) / focal[:, None]
    box = torch.cat((beside, (batch.box_size / focal)[:, None]), 1).double()
    expected = plain_networks.plain_skel_cf(part_of(weights, "decoder."), patches, box, layers=3, heads=2)
    prediction = predict(network, batch)
    assert prediction.encoder is not None
    found = [flat(estimate) for estimate in (prediction.encoder, *prediction.layers)]
    assert len(found) == len(expected) == 4
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one.double(), other, rtol=1e-5, atol=1e-5)
    steps = [(b - a).abs().mean() for a, b in zip(expected[:-1], expected[1:], strict=True)]
    assert min(steps) > 0.01  # each layer counts


def test_shapes(batch: TrainingBatch) -> None:
    prediction = predict(make(TINY), batch)
    assert prediction.encoder is not None and len(prediction.layers) == 3
    assert prediction.final is prediction.layers[2]
    for estimate in (prediction.encoder, *prediction.layers):
        assert estimate.pose.shape == (3, 24, 6)
        assert estimate.betas.shape == (3, 10) and estimate.camera.shape == (3, 3)
    assert torch.equal(prediction.cam_int, batch.cam_int)


def test_estimates_are_float32_under_autocast(batch: TrainingBatch) -> None:
    network = make(TINY)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = predict(network, batch).final
    for name, values in vars(predict(network, batch).final).items():
        assert getattr(mixed, name).dtype == torch.float32
        torch.testing.assert_close(getattr(mixed, name), values, rtol=0, atol=0.02)


def test_people_of_a_batch_are_independent(batch: TrainingBatch) -> None:
    network = make(TINY)
    alone = batch._with(lambda t: t[1:2])
    of_all, of_one = flat(predict(network, batch).final), flat(predict(network, alone).final)
    torch.testing.assert_close(of_all[1:2], of_one, rtol=1e-4, atol=1e-5)


def test_the_first_estimate_knows_nothing_of_the_camera(batch: TrainingBatch) -> None:
    network = make(TINY)
    nearer = replace(batch, cam_int=batch.cam_int * torch.tensor([[2.0, 1, 1], [1, 2, 1], [1, 1, 1]]))
    here, there = predict(network, batch), predict(network, nearer)
    assert here.encoder is not None and there.encoder is not None
    assert torch.equal(flat(here.encoder), flat(there.encoder))
    assert not torch.allclose(flat(here.layers[0]), flat(there.layers[0]))


def test_only_the_middle_of_the_crop_counts(batch: TrainingBatch) -> None:
    network = make(TINY)
    sides, middle = batch.image.clone(), batch.image.clone()
    sides[..., :32] = sides[..., -32:] = 0
    middle[..., 100:120] = 0
    crop = (batch.cam_int, batch.center, batch.box_size)
    as_it_is = network(batch.image, *crop).final.pose
    assert torch.equal(network(sides, *crop).final.pose, as_it_is)
    assert not torch.equal(network(middle, *crop).final.pose, as_it_is)


def test_estimates_start_from_the_start(batch: TrainingBatch) -> None:
    """What is written into the start is where estimates begin, with its camera's scale as it is."""
    network = make(TINY)
    before = predict(network, batch).encoder
    network.start.pose[:, 3] += 0.25
    network.start.betas[:] -= 0.5
    network.start.camera[:, 0] = -2.0
    after = predict(network, batch).encoder
    assert before is not None and after is not None
    moved = flat(after) - flat(before)
    expected = torch.zeros(157)
    expected[18:24], expected[144:154], expected[154] = 0.25, -0.5, -2.9
    torch.testing.assert_close(moved, expected.expand(3, -1), rtol=0, atol=1e-5)


ABLATIONS = {
    "all": TINY,
    "no coarse to fine": replace(TINY, coarse_to_fine=False),
    "looped": replace(TINY, looped_decoder=True),
    "no camera": replace(TINY, camera=False),
    "keypoints": replace(TINY, backbone="keypoint-tiny"),
    "keypoints, no coarse to fine": replace(TINY, backbone="keypoint-tiny", coarse_to_fine=False),
}


@pytest.mark.parametrize("config", ABLATIONS.values(), ids=ABLATIONS)
def test_gradients_reach_every_weight(config: NetworkConfig, batch: TrainingBatch, models: ModelSet) -> None:
    """Otherwise DistributedDataParallel would wait for ever."""
    network = make(config)
    if isinstance(network.backbone, KeypointBackbone):  # the detector learns before, from all of its heatmaps
        network.backbone.eye(batch.image[..., :96, :96]).square().mean().backward()
    loss, _ = training_loss(predict(network, batch), batch, SkelKeypoints(models, "male"), LossConfig())
    loss.backward()
    for name, weight in network.named_parameters():
        assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
        assert weight.grad.abs().max() > 0, name


def test_without_camera_the_intrinsics_do_not_matter(batch: TrainingBatch) -> None:
    wider = replace(batch, cam_int=batch.cam_int * torch.tensor([[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]))
    network = make(TINY)
    assert not torch.equal(predict(network, batch).final.pose, predict(network, wider).final.pose)
    network = make(replace(TINY, camera=False))
    one, other = predict(network, batch), predict(network, wider)
    assert torch.equal(one.final.pose, other.final.pose)
    assert torch.equal(one.cam_int, other.cam_int) and not torch.equal(one.cam_int, batch.cam_int)


def test_without_coarse_to_fine_there_is_one_estimate(batch: TrainingBatch) -> None:
    prediction = predict(make(replace(TINY, coarse_to_fine=False)), batch)
    assert prediction.encoder is None and len(prediction.layers) == 1


def test_a_looped_decoder_is_one_layer_used_again(batch: TrainingBatch) -> None:
    network, separate = make(replace(TINY, looped_decoder=True)), make(TINY)
    assert len(network.decoder.transformer.layers) == 1
    prediction = predict(network, batch)
    assert len(prediction.layers) == 3
    poses = [estimate.pose for estimate in prediction.layers]
    assert not torch.equal(poses[0], poses[1]) and not torch.equal(poses[1], poses[2])
    # With the same weights in every layer, separate layers do what the loop does.
    shared = network.state_dict()
    again = {
        name: shared[name.replace("layers.1.", "layers.0.").replace("layers.2.", "layers.0.")]
        for name in separate.state_dict()
    }
    separate.load_state_dict(again)
    torch.testing.assert_close(predict(separate, batch).final.pose, prediction.final.pose)


@pytest.mark.parametrize(
    ("backbone", "losses"),
    [
        ("tiny", LossConfig()),
        ("keypoint-tiny", LossConfig(keypoints3d=0.2, pose=0.1, orientation=0.3)),
    ],
)
def test_the_loss_falls(backbone: str, losses: LossConfig, batch: TrainingBatch, models: ModelSet) -> None:
    """Three people by heart, a little; a detector learns by itself, so it observes once."""
    network, body = make(replace(TINY, backbone=backbone)), SkelKeypoints(models, "male")
    size, observations = network.backbone.crop, None
    if network.backbone.detector is not None:
        observations = network.backbone.observe(batch.image[..., :size, :size])
        network.backbone.detector.requires_grad_(False)
    crop = batch.image[..., :size, :size], batch.cam_int, batch.center, batch.box_size
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    history = []
    for _ in range(14):
        optimizer.zero_grad()
        loss, terms = training_loss(network(*crop, observations), batch, body, losses)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        history.append({"loss": loss.item()} | {name: value.item() for name, value in terms.items()})
    assert history[-1]["loss"] < 0.7 * history[0]["loss"], (history[0], history[-1])
