"""HSMR's network: as published, and trained on any backbone."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import FULL, HEADS, hsmr_head, shapes_of
from plain_networks import plain_hsmr, plain_vitpose, predict
from training_runs import SHORT_TRAINING, log_lines, run_train

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.errors import ConfigError
from skelfit.learning.cameras import crop_to_translation, far_camera
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.hsmr_network import HsmrNetwork
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.training.checkpoint import load_network
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.training_config import LossConfig, TrainConfig, checked

TINY = NetworkConfig("hsmr", "tiny", layers=2, heads=HEADS, feed_forward=48, dim=40)


def make(config: NetworkConfig = TINY) -> HsmrNetwork:
    torch.manual_seed(1)
    return HsmrNetwork(config)


def test_names_and_shapes_at_full_size_are_those_of_published_checkpoints() -> None:
    with torch.device("meta"):
        network = HsmrNetwork(NetworkConfig("hsmr"))
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == {n: s for n, s in shapes_of("hsmr", FULL).items() if n.startswith(("backbone.", "head."))}
    assert {f"head.{name}" for name in hsmr_head(FULL)} < set(found)
    assert (
        sum(weight.numel() for weight in network.head.parameters()) == 6 * 6_563_840 + 3 * 1024 + 157 * 1025
    )


def test_estimates_are_those_of_a_plain_forward_pass(batch: TrainingBatch) -> None:
    network = make().eval()
    for weight in network.parameters():
        weight.data += 0.05 * torch.randn_like(weight)
    weights = {name: tensor.double() for name, tensor in network.state_dict().items()}
    backbone = {n.removeprefix("backbone."): w for n, w in weights.items() if n.startswith("backbone.")}
    head = {n.removeprefix("head."): w for n, w in weights.items() if n.startswith("head.")}
    patches = plain_vitpose(backbone, batch.image[..., 32:-32].double(), heads=2)
    expected = plain_hsmr(head, patches, layers=2, heads=HEADS)
    found = predict(network, batch).final
    together = torch.cat((found.pose.flatten(1), found.betas, found.camera), 1)
    assert (together - expected).abs().max() < 1e-5 * expected.abs().max()
    assert (expected[0] - expected[1]).abs().max() > 1e-3  # it is not all the same


def test_the_camera_is_far_whatever_the_intrinsics(batch: TrainingBatch) -> None:
    """As published: depth is 2 * 5000 / (256 * s), and the translation is that of the crop's own axis."""
    network = make().eval()
    here = predict(network, batch)
    wider = replace(batch, cam_int=batch.cam_int * torch.tensor([[0.5, 1, 1], [1, 0.5, 1], [1, 1, 1]]))
    there = predict(network, wider)
    assert torch.equal(here.final.camera, there.final.camera) and torch.equal(here.cam_int, there.cam_int)
    assert torch.equal(here.cam_int, far_camera(batch.center, batch.box_size))
    trans = crop_to_translation(here.final.camera, here.cam_int, batch.center, batch.box_size)
    s, tx, ty = here.final.camera.unbind(-1)
    torch.testing.assert_close(trans, torch.stack((tx, ty, 2 * 5000 / (256 * s)), -1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("backbone", ["tiny", "keypoint-tiny"])
def test_gradients_reach_every_weight_and_the_loss_falls(
    backbone: str, batch: TrainingBatch, models: ModelSet
) -> None:
    network, body = make(replace(TINY, backbone=backbone)), SkelKeypoints(models, "male")
    if network.backbone.detector is not None:  # learns before, by itself
        network.backbone.detector.requires_grad_(False)
    optimizer = torch.optim.AdamW((p for p in network.parameters() if p.requires_grad), lr=2e-3)
    history: list[float] = []
    for _ in range(20):
        optimizer.zero_grad()
        loss, _ = training_loss(predict(network, batch), batch, body, LossConfig())
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        if not history:
            idle = ("to_token_embedding.weight", "0.fn.to_qkv.weight")  # of a zero token; of one token alone
            for name, weight in network.named_parameters():
                if weight.requires_grad:
                    assert weight.grad is not None and torch.isfinite(weight.grad).all(), name
                    assert weight.grad.abs().max() > 0 or name.endswith(idle), name
        optimizer.step()
        history.append(loss.item())
    assert history[-1] < 0.8 * history[0], history


@pytest.mark.parametrize(
    "change", [{"camera": False}, {"coarse_to_fine": False}, {"looped_decoder": True}, {"hidden": 8}]
)
def test_options_of_other_networks_are_refused(change: dict[str, object]) -> None:
    (option, value), ours = *change.items(), NetworkConfig("hsmr", "tiny", random=True)
    one_estimate = LossConfig(refinement=0)
    checked(TrainConfig(network=ours, losses=one_estimate), "x.yaml")
    message = f"'network.{option}': expected nothing with network.kind: hsmr, found {value}"
    with pytest.raises(ConfigError, match=message):
        config = TrainConfig(network=replace(ours, **change), losses=one_estimate)  # type: ignore[arg-type]
        checked(config, "x.yaml")
    with pytest.raises(
        ConfigError, match="'network.dim': expected nothing with network.kind: skel-cf, found 8"
    ):
        checked(TrainConfig(network=NetworkConfig(backbone="tiny", random=True, dim=8)), "x.yaml")


def test_it_trains_on_shards_in_one_stage_or_three(shards: Path, tmp_path: Path) -> None:
    network = "network: {kind: hsmr, backbone: tiny, random: true, dim: 16, heads: 2, layers: 2}"
    lines = [network if line.startswith("network:") else line for line in SHORT_TRAINING.splitlines()]
    one, three = "\n".join(lines).replace("steps: 10", "steps: 3"), tmp_path / "three.yaml"
    one += "\nlosses: {refinement: 0}"
    (tmp_path / "one.yaml").write_text(one)
    stages = "keypoints: {steps: 2, learning_rate: 1e-3}\ncoarse: {steps: 2, learning_rate: 1e-3}\n"
    three.write_text(one.replace("backbone: tiny, random: true", "backbone: keypoint-tiny") + "\n" + stages)
    for file, steps in ((tmp_path / "one.yaml", 3), (three, 7)):
        out = tmp_path / f"of-{file.stem}"
        result = run_train(file, "--shards", shards, "--out", out)
        assert result.exit_code == 0, result.output
        assert len([line for line in log_lines(out) if "loss" in line]) == steps
        assert isinstance(load_network(out).network, HsmrNetwork)
