"""ViTPose's backbones, by `transformers`, and the checkpoints that users bring for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skelfit.errors import ModelError, SkelfitError
from skelfit.learning.backbones.backbone import Backbone, Features
from skelfit.learning.data.training_batch import CROP
from skelfit.storage.tensor_files import read_tensor_file

# Width, layers and heads; `tiny` is for tests.
SIZES: dict[str, tuple[int, int, int]] = {
    "vitpose-h": (1280, 32, 16),
    "vitpose-l": (1024, 24, 16),
    "vitpose-b": (768, 12, 12),
    "vitpose-s": (384, 12, 12),
    "tiny": (64, 2, 2),
}
_HEIGHT, _WIDTH, _PATCH = 256, 192, 16
_SLOWEST = 0.01  # rad per patch, of the waves that encode positions; the fastest has 1
# From ViTPose's own names to those of `transformers`, but for a block's `attn.qkv`, which is three there.
_NAMES = {
    "pos_embed": "embeddings.position_embeddings",
    "patch_embed.proj": "embeddings.patch_embeddings.projection",
    "last_norm": "layernorm",
    "blocks": "encoder.layer",
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attn.proj": "attention.output.dense",
}


class VitPose(Backbone):
    """From the middle 256 x 192 px of crops to features of their 16 x 12 patches."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size, self.crop = size, CROP
        self.width, layers, heads = SIZES[size]
        self.summary, self.hidden = self.width, 0
        try:
            from transformers import VitPoseBackbone, VitPoseBackboneConfig
        except ImportError as error:
            raise SkelfitError(f"training needs: pip install 'skelfit[train]' ({error})") from None
        config = VitPoseBackboneConfig(
            image_size=(_HEIGHT, _WIDTH),
            patch_size=(_PATCH, _PATCH),
            hidden_size=self.width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            layer_norm_eps=1e-6,
        )
        self.vit = VitPoseBackbone(config)
        embeddings: Any = self.vit.embeddings
        with torch.no_grad():  # random ones would first have to be learnt
            embeddings.position_embeddings[:, :1] = 0
            embeddings.position_embeddings[0, 1:] = _waves(_HEIGHT // _PATCH, _WIDTH // _PATCH, self.width)

    def observe(self, image: Tensor) -> Tensor:
        """The patches (B, 192, width) of crops (B, 3, 256, 256), normalised."""
        aside = (image.shape[-1] - _WIDTH) // 2
        return self.vit(image[..., aside : aside + _WIDTH]).feature_maps[0]

    def describe(self, observations: Tensor) -> Features:
        """Features of patches (B, 192, width)."""
        return Features(observations, observations.mean(1))

    def load(self, path: str | Path) -> None:
        """Take the weights of a ViTPose checkpoint, without heads; it may be the original's or that of `transformers`.

        Raises ModelError when the file cannot be read or is of another backbone.
        """
        weights = _renamed(_read(path), path)
        for name, tensor in self.vit.state_dict().items():
            if name not in weights:
                raise ModelError(path, name, f"the weights of {self.size}", f"none{_looks_like(weights)}")
            if weights[name].shape != tensor.shape:
                expected = f"shape {tuple(tensor.shape)} of {self.size}"
                shape = f"shape {tuple(weights[name].shape)}{_looks_like(weights)}"
                raise ModelError(path, name, expected, shape)
        # The rest is heads, or layers that this size does not have.
        layers = [name for name in weights if name.startswith("encoder.layer.")]
        if len(layers) > sum(name.startswith("encoder.layer.") for name in self.vit.state_dict()):
            raise ModelError(path, None, f"the layers of {self.size}", f"more{_looks_like(weights)}")
        self.vit.load_state_dict({name: weights[name] for name in self.vit.state_dict()})


def _waves(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the patches' positions, (rows * columns, width): first of rows, then of columns."""
    speed = _SLOWEST ** (torch.arange(width // 4) / (width // 4))
    positions = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [position.flatten()[:, None] * speed for position in positions]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def _read(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint; nothing in it is executed."""
    expected = "a ViTPose checkpoint (.pth or .safetensors)"
    content = read_tensor_file(path, expected, ModelError, objects=True)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(path, None, expected, f"no tensors by name ({type(content).__name__})")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(weights: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """A checkpoint's tensors under the names of `transformers`."""
    renamed: dict[str, Tensor] = {}
    for original, tensor in weights.items():
        name = original.removeprefix("module.").removeprefix("backbone.")
        if ".experts." in name:
            raise ModelError(path, original, "a ViTPose backbone", "a mixture of experts (ViTPose+)")
        if not name.startswith(("embeddings.", "encoder.", "layernorm.")):
            for theirs, ours in _NAMES.items():
                name = name.replace(theirs, ours)
        if ".attn.qkv." in name:
            parts = tensor.chunk(3)
            for part, values in zip(("query", "key", "value"), parts, strict=True):
                renamed[name.replace("attn.qkv", f"attention.attention.{part}")] = values
        else:
            renamed[name] = tensor
    return renamed


def _looks_like(weights: dict[str, Tensor]) -> str:
    """Which backbone the tensors are of, as the end of a message; nothing when it is none of ours."""
    patches = weights.get("embeddings.patch_embeddings.projection.weight")
    depth = len({name.split(".")[2] for name in weights if name.startswith("encoder.layer.")})
    for size, (width, layers, _) in SIZES.items():
        if patches is not None and patches.shape[0] == width and depth == layers:
            return f": it looks like {size}; give network.backbone: {size}"
    return ""
