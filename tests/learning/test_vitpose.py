"""ViTPose's backbones, and the checkpoints that users bring."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import published_shapes
import pytest
import torch
from plain_networks import plain_vitpose
from safetensors.torch import save_file
from torch import Tensor

from skelfit.errors import ModelError
from skelfit.learning.backbones.vit_block import VitBlock
from skelfit.learning.backbones.vitpose import SIZES, VitPose
from skelfit.learning.data.training_batch import TrainingBatch


def original_names(size: str, make: Any = torch.randn) -> dict[str, Tensor]:
    """A checkpoint with the published names and shapes of ViTPose's, heads included."""
    width, layers, *_ = SIZES[size]
    shapes = published_shapes.prefixed("backbone.", published_shapes.vitpose(width, layers))
    shapes |= {
        "keypoint_head.deconv_layers.0.weight": (width, 256, 4, 4),
        "keypoint_head.final_layer.bias": (17,),
    }
    return {name: 0.1 * make(*shape) for name, shape in shapes.items()}


def test_a_published_checkpoint_gives_the_published_features(tmp_path: Path, batch: TrainingBatch) -> None:
    weights = original_names("tiny")
    for name in weights:
        if ".attn.qkv." in name or ".norm1." in name:
            weights[name] *= 10  # so that attention matters
    torch.save({"state_dict": weights, "meta": Path("config.py")}, tmp_path / "vitpose.pth")
    backbone = VitPose("tiny")
    backbone.load(tmp_path / "vitpose.pth")
    bare = {name.removeprefix("backbone."): weight.double() for name, weight in weights.items()}
    expected = plain_vitpose(bare, batch.image[..., 32:-32].double(), heads=2)
    torch.testing.assert_close(backbone.double()(batch.image.double()), expected, rtol=0, atol=1e-9)


def of_transformers(name: str, weight: Tensor) -> dict[str, Tensor]:
    """A tensor of ViTPose under the names that `transformers` has for it."""
    parts = name.split(".")
    if parts[0] != "blocks":
        roots = {"pos_embed": "embeddings.position_embeddings", "last_norm": "layernorm"}
        roots["patch_embed"] = "embeddings.patch_embeddings.projection"
        return {".".join((roots[parts[0]], *(part for part in parts[1:] if part != "proj"))): weight}
    layer, rest = f"encoder.layer.{parts[1]}", ".".join(parts[2:-1])
    if rest == "attn.qkv":
        names = [f"{layer}.attention.attention.{part}.{parts[-1]}" for part in ("query", "key", "value")]
        return dict(zip(names, weight.chunk(3), strict=True))
    names_of = {
        "norm1": "layernorm_before",
        "norm2": "layernorm_after",
        "attn.proj": "attention.output.dense",
    }
    return {f"{layer}.{names_of.get(rest, rest)}.{parts[-1]}": weight}


@pytest.mark.parametrize("ending", [".safetensors", ".bin"])
def test_checkpoints_of_transformers_and_without_prefix(tmp_path: Path, ending: str) -> None:
    bare = {
        name.removeprefix("backbone."): weight
        for name, weight in original_names("tiny").items()
        if name.startswith("backbone.")
    }
    weights = {
        f"backbone.{other}": part.contiguous()
        for name, weight in bare.items()
        for other, part in of_transformers(name, weight).items()
    }
    weights["head.conv.weight"] = torch.zeros(17, 64, 3, 3)
    path = tmp_path / f"model{ending}"
    if ending == ".bin":
        torch.save(weights, path)
    else:
        save_file(weights, path)
    torch.save(bare, tmp_path / "bare.pth")
    for file in (path, tmp_path / "bare.pth"):
        backbone = VitPose("tiny")
        backbone.load(file)
        for name, tensor in backbone.state_dict().items():
            assert torch.equal(tensor, bare[name]), name
    del weights["backbone.encoder.layer.1.attention.attention.value.bias"]
    torch.save(weights, tmp_path / "incomplete.pth")
    with pytest.raises(
        ModelError, match="'blocks.1.attention.attention.value.bias': expected .*, found none"
    ):
        VitPose("tiny").load(tmp_path / "incomplete.pth")


def test_parts_of_late_blocks_are_left_out_in_training() -> None:
    """Stochastic depth: by person, more often the later the block, and with the same mean; never in evaluation."""
    torch.manual_seed(0)
    with torch.device("meta"):
        shares = [block.drop_path for block in VitPose("vitpose-h").blocks]
    assert shares == pytest.approx([0.55 * i / 31 for i in range(32)])
    block, x = VitBlock(8, 2, 0.4), torch.randn(1, 3, 8).expand(4000, -1, -1)
    attended = block.attn(block.norm1(x))[0]
    fed = [block.mlp(block.norm2(y))[0] for y in (x, x + attended, x + attended / 0.6)]
    torch.testing.assert_close(block.eval()(x)[0], x[0] + attended + fed[1])
    outcomes = [x[0], x[0] + fed[0] / 0.6, x[0] + attended / 0.6, x[0] + (attended + fed[2]) / 0.6]
    found = block.train()(x)
    same = torch.stack([(found - outcome).abs().amax((1, 2)) < 1e-5 for outcome in outcomes])
    assert (same.sum(0) == 1).all()
    torch.testing.assert_close(
        same.float().mean(1), torch.tensor([0.16, 0.24, 0.24, 0.36]), rtol=0, atol=0.03
    )


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
            assert backbone(torch.empty(2, 3, 256, 256)).shape == (2, 192, SIZES[size][0])
        count = sum(weight.numel() for weight in backbone.parameters())
        assert abs(count - weights) < 0.05 * weights and len(backbone.blocks) == layers


def changed(name: str, tensor: Tensor | None) -> dict[str, Tensor]:
    weights = original_names("tiny")
    if tensor is None:
        del weights[name]
    else:
        weights[name] = tensor
    return weights


MISFITS: list[tuple[Any, str]] = [
    (changed("backbone.last_norm.bias", None), "'last_norm.bias': expected the weights of tiny, found none"),
    (
        changed("backbone.pos_embed", torch.zeros(1, 197, 64)),
        r"'pos_embed': expected shape \(1, 193, 64\) of tiny, found shape \(1, 197, 64\)",
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
