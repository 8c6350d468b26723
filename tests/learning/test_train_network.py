"""SKEL-CF's network: what it says at first, how it refines, its ablations, and the backbones' checkpoints."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear
from train_fakes import labelled_people

from skelfit.bodies.continuous_pose import pose_to_angles
from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.bodies.skel import SkelModel
from skelfit.errors import ConfigError, ModelError
from skelfit.learning.backbones.keypoint_cnn import CELLS, OBSERVED, KeypointBackbone
from skelfit.learning.backbones.vitpose import SIZES, VitPose
from skelfit.learning.data.mirror import MIRRORED, mirrored_angles
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import NetworkConfig, Prediction
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.training_config import (
    LossConfig,
    load_train_config,
)

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("train-*.yaml"))
TINY = NetworkConfig(backbone="tiny", dim=32, heads=2, layers=3)


@pytest.fixture(scope="module")
def batch(models: ModelSet) -> TrainingBatch:
    made, _ = labelled_people(models, 3)
    return made._with(lambda t: t.float() if t.is_floating_point() else t)


def predict(network: SkelCfNetwork, batch: TrainingBatch) -> Prediction:
    step = batch.image.shape[-1] // network.backbone.crop
    place = batch.cam_int, batch.center, batch.box_size
    return network(batch.image[..., ::step, ::step], *place)


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


def test_estimates_are_in_full_precision_where_the_network_is_not(batch: TrainingBatch) -> None:
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
    place = {name: joints[:, i] for i, name in enumerate(SKEL_JOINT_NAMES)}
    assert (place["head"][:, 1] < place["pelvis"][:, 1] - 0.4).all()  # y is down
    assert (place["toes_r"][:, 2] < place["calcn_r"][:, 2] - 0.05).all()  # z is away
    assert (place["hand_r"][:, 0] < place["hand_l"][:, 0] - 0.5).all()
    assert (first.camera - torch.tensor([0.9, 0, 0])).abs().max() < 0.3


def test_people_of_a_batch_do_not_see_each_other(batch: TrainingBatch) -> None:
    network = make(TINY)
    alone = batch._with(lambda t: t[1:2])
    of_all, of_one = vars(predict(network, batch).final), vars(predict(network, alone).final)
    for name, values in of_all.items():
        torch.testing.assert_close(values[1:2], of_one[name], rtol=1e-4, atol=1e-5)


def test_only_the_middle_of_the_crop_is_looked_at(batch: TrainingBatch) -> None:
    network = make(TINY)
    sides, middle = batch.image.clone(), batch.image.clone()
    sides[..., :32] = sides[..., -32:] = 0
    middle[..., 100:120] = 0
    place = (batch.cam_int, batch.center, batch.box_size)
    as_it_is = network(batch.image, *place).final.pose
    assert torch.equal(network(sides, *place).final.pose, as_it_is)
    assert not torch.equal(network(middle, *place).final.pose, as_it_is)


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
    if isinstance(network.backbone, KeypointBackbone):  # the eye has learnt before, from all of its heatmaps
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


def test_a_layer_sees_the_estimate_of_the_one_before(batch: TrainingBatch) -> None:
    """Residual updates are embedded anew: without that, what the encoder says would only be carried along."""
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
def test_it_learns(backbone: str, losses: LossConfig, batch: TrainingBatch, models: ModelSet) -> None:
    """Three people by heart, a little."""
    network, body = make(replace(TINY, backbone=backbone)), SkelKeypoints(models, "male")
    optimizer = torch.optim.AdamW(network.parameters(), lr=2e-3)
    found = []
    for _ in range(25):
        optimizer.zero_grad()
        loss, terms = training_loss(predict(network, batch), batch, body, losses)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        found.append({"loss": loss.item()} | {name: value.item() for name, value in terms.items()})
    assert found[-1]["loss"] < 0.7 * found[0]["loss"], (found[0], found[-1])


def original_names(size: str, make: Any = torch.randn) -> dict[str, Tensor]:
    """A checkpoint with the published names and shapes of ViTPose's, heads included."""
    width, layers, _ = SIZES[size]
    shapes: dict[str, tuple[int, ...]] = {
        "backbone.pos_embed": (1, 193, width),
        "backbone.patch_embed.proj.weight": (width, 3, 16, 16),
        "backbone.patch_embed.proj.bias": (width,),
        "backbone.last_norm.weight": (width,),
        "backbone.last_norm.bias": (width,),
        "keypoint_head.deconv_layers.0.weight": (width, 256, 4, 4),
        "keypoint_head.final_layer.bias": (17,),
    }
    parts = {
        "norm1": (width,),
        "norm2": (width,),
        "attn.qkv": (3 * width, width),
        "attn.proj": (width, width),
    }
    parts |= {"mlp.fc1": (4 * width, width), "mlp.fc2": (width, 4 * width)}
    for i in range(layers):
        for part, shape in parts.items():
            shapes[f"backbone.blocks.{i}.{part}.weight"] = shape
            shapes[f"backbone.blocks.{i}.{part}.bias"] = shape[:1]
    return {name: 0.1 * make(*shape) for name, shape in shapes.items()}


def naive_vit(weights: dict[str, Tensor], image: Tensor, heads: int) -> Tensor:
    """ViTPose's backbone as its paper has it, on weights under their published names."""

    def apply(name: str, x: Tensor) -> Tensor:
        weight, bias = weights[f"backbone.{name}.weight"], weights[f"backbone.{name}.bias"]
        return layer_norm(x, x.shape[-1:], weight, bias, 1e-6) if "norm" in name else linear(x, weight, bias)

    kernel = {k: weights[f"backbone.patch_embed.proj.{k}"] for k in ("weight", "bias")}
    x = torch.nn.functional.conv2d(image, **kernel, stride=16, padding=2).flatten(2).mT
    place = weights["backbone.pos_embed"]
    x = x + place[:, 1:] + place[:, :1]
    for i in range(len([n for n in weights if n.endswith("norm1.bias")])):
        block = f"blocks.{i}"
        qkv = apply(f"{block}.attn.qkv", apply(f"{block}.norm1", x))
        q, k, v = (p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in qkv.chunk(3, -1))
        seen = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        x = x + apply(f"{block}.attn.proj", seen.transpose(1, 2).flatten(2))
        x = x + apply(f"{block}.mlp.fc2", gelu(apply(f"{block}.mlp.fc1", apply(f"{block}.norm2", x))))
    return apply("last_norm", x)


def test_a_published_checkpoint_gives_its_own_features(tmp_path: Path, batch: TrainingBatch) -> None:
    weights = original_names("tiny")
    for name in weights:
        if ".attn.qkv." in name or ".norm1." in name:
            weights[name] *= 10  # so that who looks at whom matters
    torch.save({"state_dict": weights, "meta": {"epoch": 210}}, tmp_path / "vitpose.pth")
    backbone = VitPose("tiny")
    backbone.load(tmp_path / "vitpose.pth")
    expected = naive_vit(weights, batch.image[..., 32:-32], heads=2)
    features = backbone(batch.image)
    torch.testing.assert_close(features.patches, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.whole, expected.mean(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_checkpoints_of_transformers_and_bare_ones(tmp_path: Path, ending: str) -> None:
    trained = VitPose("tiny")
    weights = {f"backbone.{name}": tensor for name, tensor in trained.vit.state_dict().items()}
    weights["head.conv.weight"] = torch.zeros(17, 64, 3, 3)
    path = tmp_path / f"model{ending}"
    if ending == ".bin":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    backbone = VitPose("tiny")
    backbone.load(path)
    for name, tensor in backbone.vit.state_dict().items():
        assert torch.equal(tensor, trained.vit.state_dict()[name]), name
    bare = {name.removeprefix("backbone."): t for name, t in original_names("tiny").items()}
    torch.save(bare, tmp_path / "bare.pth")
    trained.load(tmp_path / "bare.pth")
    assert torch.equal(trained.vit.layernorm.weight, bare["last_norm.weight"])


def test_the_backbone_for_processors_says_where_keypoints_are(batch: TrainingBatch) -> None:
    backbone, image = KeypointBackbone().eval(), batch.image[..., ::2, ::2]
    found = backbone.observe(image)
    assert found.shape == (3, 44, OBSERVED) and not found.requires_grad
    features = backbone(image)
    assert features.patches.shape == (3, 44, backbone.width) and features.whole.shape == (3, backbone.summary)
    assert torch.equal(features.whole, backbone.describe(found).whole)
    sides = image.clone()  # what is out of view does not matter
    sides[..., :16] = sides[..., -16:] = sides[..., :16, :] = sides[..., -16:, :] = 0
    assert torch.equal(backbone.observe(sides), found)
    # A heatmap with all its weight in one cell, or half of it in each of two.
    columns = iter((5, CELLS - 1 - 5))  # of the picture and of its mirror image
    backbone.eye.forward = lambda x: 100.0 * one_hot_maps(len(x), 20, next(columns))  # type: ignore[method-assign]
    x, y, *wide, sure = backbone.observe(image).unbind(-1)
    torch.testing.assert_close(x, torch.full_like(x, (5.5 / 24 - 0.5) * 0.75))
    torch.testing.assert_close(y, torch.full_like(y, (20.5 / 24 - 0.5) * 0.75))
    torch.testing.assert_close(sure, torch.ones_like(sure))
    for width in wide:
        torch.testing.assert_close(width, torch.zeros_like(width), atol=1e-3, rtol=0)
    columns = iter((5, CELLS - 1 - 9))
    x, y, *wide, sure = backbone.observe(image).unbind(-1)
    torch.testing.assert_close(x, torch.full_like(x, (7.5 / 24 - 0.5) * 0.75))
    torch.testing.assert_close(wide[0], torch.full_like(x, 2 / 24 * 0.75))
    torch.testing.assert_close(wide[1], torch.zeros_like(y), atol=1e-3, rtol=0)
    torch.testing.assert_close(sure, torch.full_like(sure, 0.5))


def test_a_mirror_image_has_mirrored_keypoints(batch: TrainingBatch) -> None:
    backbone, image = KeypointBackbone().eval(), batch.image[..., ::2, ::2]
    there, mirrored = backbone.observe(image), backbone.observe(image.flip(-1))
    torch.testing.assert_close(mirrored, there[:, MIRRORED] * torch.tensor([-1.0, 1, 1, 1, 1]))
    assert not torch.allclose(mirrored, there)


def test_findings_are_shaken_in_training_alone() -> None:
    torch.manual_seed(0)
    backbone, found = KeypointBackbone(), torch.rand(200, 44, OBSERVED)
    features = backbone.train().describe(found), backbone.eval().describe(found)
    scale = torch.tensor([4.0, 4.0, 8.0, 8.0, 1.0])
    shaken, as_it_is = (x.whole.view(200, 44, OBSERVED) / scale for x in features)
    torch.testing.assert_close(as_it_is, found)
    torch.testing.assert_close(shaken[..., 2:], found[..., 2:])
    off = (shaken - found)[..., :2]
    assert 0.008 < off.mean(1).std() < 0.012  # all together ...
    assert 0.0025 < (off - off.mean(1, keepdim=True)).std() < 0.0035  # ... and each
    assert not torch.equal(features[0].patches, features[1].patches)


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
    np.testing.assert_allclose(mirrored, mirrored_angles(angles), atol=1e-4)
    assert np.abs(mirrored - angles).max() > 0.01
    torch.testing.assert_close(there.final.betas, here.final.betas)
    torch.testing.assert_close(there.final.camera, here.final.camera * torch.tensor([1.0, -1.0, 1.0]))
    network.train()
    network.backbone.eye.eval()
    moved = network(image.flip(-1), batch.cam_int, center, batch.box_size)
    assert not torch.allclose(moved.final.betas, here.final.betas, atol=1e-3)


def one_hot_maps(people: int, row: int, column: int) -> Tensor:
    maps = torch.zeros(people, 44, CELLS, CELLS)
    maps[..., row, column] = 1
    return maps


def test_the_full_sizes_take_their_checkpoints(tmp_path: Path) -> None:
    """Names and shapes alone: nothing is computed on the meta device."""
    sizes = {
        "vitpose-h": (631e6, 32),
        "vitpose-l": (303e6, 24),
        "vitpose-b": (86e6, 12),
        "vitpose-s": (21e6, 12),
    }
    for size, (weights, layers) in sizes.items():
        path = tmp_path / f"{size}.pth"
        with torch.device("meta"):
            torch.save({"state_dict": original_names(size, torch.empty)}, path)
            backbone = VitPose(size)
            backbone.load(path)
            assert backbone(torch.empty(2, 3, 256, 256)).patches.shape == (2, 192, SIZES[size][0])
        count = sum(weight.numel() for weight in backbone.parameters())
        assert abs(count - weights) < 0.05 * weights and len(backbone.vit.encoder.layer) == layers


def test_the_published_network_at_full_size() -> None:
    config = load_train_config(next(p for p in PIPELINES if p.stem == "train-skel-cf"))
    with torch.device("meta"):
        network = SkelCfNetwork(config.network)
        place = (torch.empty(2, 3, 3), torch.empty(2, 2), torch.empty(2))
        prediction = network(torch.empty(2, 3, 256, 256), *place)
        prediction.final.pose.sum().backward()
    assert len(prediction.layers) == 6
    assert sum(weight.numel() for weight in network.parameters()) > 631e6


def changed(name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    weights = original_names("tiny")
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    return weights


PATCHES = "embeddings.patch_embeddings.projection"
MISFITS: list[tuple[Any, str]] = [
    (changed("backbone.last_norm.bias", None), "'layernorm.bias': expected the weights of tiny, found none"),
    (
        changed("backbone.pos_embed", torch.zeros(1, 197, 64)),
        r"'embeddings.position_embeddings': expected shape \(1, 193, 64\) of tiny, found shape \(1, 197, 64\)",
    ),
    (
        original_names("vitpose-s", torch.empty),
        r"expected shape \(.*\) of tiny, found shape \(.*\): it looks like vitpose-s; "
        "give network.backbone: vitpose-s",
    ),
    (
        original_names("tiny") | {"backbone.blocks.2.norm1.weight": torch.zeros(64)},
        "expected the layers of tiny, found more",
    ),
    (
        changed("backbone.blocks.0.mlp.experts.0.weight", torch.zeros(16, 256)),
        r"expected a ViTPose backbone, found a mixture of experts \(ViTPose\+\)",
    ),
    ([1, 2], r"found no tensors by name \(list\)"),
    ({"epoch": 3}, r"found no tensors by name \(dict\)"),
    (
        {"state_dict": original_names("tiny"), "meta": Path("config.py")},
        "found more than plain data and tensors, which is not read: save its",
    ),
]


@pytest.mark.parametrize(("content", "message"), MISFITS)
def test_a_checkpoint_that_does_not_fit(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "vitpose.pth")
    with pytest.raises(ModelError, match=message) as caught:
        VitPose("tiny").load(tmp_path / "vitpose.pth")
    assert str(tmp_path / "vitpose.pth") in str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_a_file_that_is_no_checkpoint(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="expected a ViTPose checkpoint .*, found no such file"):
        VitPose("tiny").load(tmp_path / name)
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="expected a ViTPose checkpoint"):
        VitPose("tiny").load(tmp_path / name)


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_shipped_trainings(path: Path) -> None:
    config = load_train_config(path)
    assert config.name == path.stem
    assert path.stem != "train-skel-cf" or config.losses == LossConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {dim: 100}", "'network.dim': expected a multiple of network.heads, 8, found 100"),
        ("network: {backbone: resnet}", "'network.backbone': expected one of vitpose-h, "),
        ("losses: {pose: -1}", "'losses.pose': expected at least 0, found -1"),
        (
            "keypoints: {steps: 3}",
            "'keypoints': expected how .*keypoint-tiny learns them, .* found that with vitpose-h",
        ),
        (
            "network: {backbone: keypoint-tiny}",
            "'keypoints': expected how .*, found nothing with keypoint-tiny",
        ),
        (
            "coarse: {steps: 3}",
            "'coarse': expected network.backbone: keypoint-tiny, and .*, found vitpose-h, True",
        ),
        (
            "network: {backbone: keypoint-tiny, coarse_to_fine: false}\nkeypoints: {}\ncoarse: {}",
            "'coarse': expected .*, found keypoint-tiny, False",
        ),
        (
            "network: {checkpoint: a.pth, random: true}",
            "'network.checkpoint': expected .*checkpoint or random, found checkpoint: a.pth, random: True with vit",
        ),
        (
            "network: {backbone: keypoint-tiny, random: true}\nkeypoints: {}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: None, random: True",
        ),
        (
            "network: {backbone: keypoint-tiny, checkpoint: a.pth}\nkeypoints: {}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: a.pth, random: False",
        ),
        ("network: {decoder: 6}", "'network.decoder': expected one of .*, found an unknown key"),
    ],
)
def test_a_training_that_is_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(f"name: t\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_train_config(tmp_path / "t.yaml")
