"""ViTPose's backbones, and the checkpoints that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import gelu, layer_norm, linear

from skelfit.errors import ModelError
from skelfit.learning.backbones.vitpose import SIZES, VitPose
from skelfit.learning.data.training_batch import TrainingBatch


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

    kernel, bias = (weights[f"backbone.patch_embed.proj.{name}"] for name in ("weight", "bias"))
    x = torch.nn.functional.conv2d(image, kernel, bias, stride=16, padding=2).flatten(2).mT
    positions = weights["backbone.pos_embed"]
    x = x + positions[:, 1:] + positions[:, :1]
    for i in range(len([n for n in weights if n.endswith("norm1.bias")])):
        block = f"blocks.{i}"
        qkv = apply(f"{block}.attn.qkv", apply(f"{block}.norm1", x))
        q, k, v = (p.unflatten(-1, (heads, -1)).transpose(1, 2) for p in qkv.chunk(3, -1))
        attended = torch.softmax(q @ k.mT / q.shape[-1] ** 0.5, -1) @ v
        x = x + apply(f"{block}.attn.proj", attended.transpose(1, 2).flatten(2))
        x = x + apply(f"{block}.mlp.fc2", gelu(apply(f"{block}.mlp.fc1", apply(f"{block}.norm2", x))))
    return apply("last_norm", x)


def test_a_published_checkpoint_gives_the_published_features(tmp_path: Path, batch: TrainingBatch) -> None:
    weights = original_names("tiny")
    for name in weights:
        if ".attn.qkv." in name or ".norm1." in name:
            weights[name] *= 10  # so that attention matters
    torch.save({"state_dict": weights, "meta": Path("config.py")}, tmp_path / "vitpose.pth")
    backbone = VitPose("tiny")
    backbone.load(tmp_path / "vitpose.pth")
    expected = naive_vit(weights, batch.image[..., 32:-32], heads=2)
    features = backbone(batch.image)
    torch.testing.assert_close(features.patches, expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(features.whole, expected.mean(1), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_checkpoints_of_transformers_and_without_prefix(tmp_path: Path, ending: str) -> None:
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


def test_full_sizes_load_their_checkpoints(tmp_path: Path) -> None:
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
    ({"state_dict": Path("x"), "meta": 1}, r"found no tensors by name \(dict\)"),
]


@pytest.mark.parametrize(("content", "message"), MISFITS)
def test_checkpoints_that_do_not_fit_are_refused(tmp_path: Path, content: Any, message: str) -> None:
    torch.save(content, tmp_path / "vitpose.pth")
    with pytest.raises(ModelError, match=message) as caught:
        VitPose("tiny").load(tmp_path / "vitpose.pth")
    assert str(tmp_path / "vitpose.pth") in str(caught.value)


@pytest.mark.parametrize("name", ["a.pth", "a.safetensors"])
def test_files_that_are_no_checkpoint_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelError, match="expected a ViTPose checkpoint .*, found no such file"):
        VitPose("tiny").load(tmp_path / name)
    (tmp_path / name).write_bytes(b"<html>not found</html>")
    with pytest.raises(ModelError, match="expected a ViTPose checkpoint"):
        VitPose("tiny").load(tmp_path / name)
