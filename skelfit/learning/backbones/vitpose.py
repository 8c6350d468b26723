"""ViTPose's backbones, and the checkpoints that users bring for them.

HMR2, HSMR and SKEL-CF have the same backbone under the same names, so their checkpoints need no others. What these
published files have in common is confirmed by their public code: names, shapes, the middle 192 of 256 columns, patches
padded by 2 px, and the share of stochastic depth.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from skelfit.errors import ModelError
from skelfit.learning.backbones.backbone import Backbone
from skelfit.learning.backbones.vit_block import EPS, VitBlock
from skelfit.learning.data.training_batch import CROP
from skelfit.storage.tensor_files import read_tensor_file

# Width, layers, heads, and how often a part of the last layer is left out in training; `tiny` is for tests.
SIZES: dict[str, tuple[int, int, int, float]] = {
    "vitpose-h": (1280, 32, 16, 0.55),
    "vitpose-l": (1024, 24, 16, 0.5),
    "vitpose-b": (768, 12, 12, 0.3),
    "vitpose-s": (384, 12, 12, 0.3),
    "tiny": (64, 2, 2, 0.0),
}
_WIDTH, _PATCH, _PADDING = 192, 16, 2  # px
_ROWS, _COLUMNS = CROP // _PATCH, _WIDTH // _PATCH
_SLOWEST = 0.01  # rad per patch, of the waves that encode positions; the fastest has 1
# From the names of `transformers` to ViTPose's own, but for the three of a block that are one `attn.qkv` here.
_NAMES = {
    "embeddings.position_embeddings": "pos_embed",
    "embeddings.patch_embeddings.projection": "patch_embed.proj",
    "encoder.layer.": "blocks.",
    "layernorm_before": "norm1",
    "layernorm_after": "norm2",
    "attention.output.dense": "attn.proj",
    "layernorm.": "last_norm.",
}
_QKV = ("query", "key", "value")


class VitPose(Backbone):
    """From the middle 256 x 192 px of crops to features of their 16 x 12 patches."""

    def __init__(self, size: str) -> None:
        super().__init__()
        self.size, self.crop = size, CROP
        self.width, layers, heads, drop_path = SIZES[size]
        self.patch_embed = nn.Sequential(OrderedDict(proj=nn.Conv2d(3, self.width, _PATCH, _PATCH, _PADDING)))
        # The first place was a class token's, before ViTPose; its vector is added to all.
        self.pos_embed = nn.Parameter(torch.zeros(1, 1 + _ROWS * _COLUMNS, self.width))
        with torch.no_grad():  # random ones would first have to be learnt
            self.pos_embed[0, 1:] = _waves(_ROWS, _COLUMNS, self.width)
        shares = torch.linspace(0, drop_path, layers, device="cpu").tolist()
        self.blocks = nn.ModuleList(VitBlock(self.width, heads, share) for share in shares)
        self.last_norm = nn.LayerNorm(self.width, EPS)

    def observe(self, image: Tensor) -> Tensor:
        """The patches (B, 192, width) of crops (B, 3, 256, 256), normalised; row by row."""
        aside = (image.shape[-1] - _WIDTH) // 2
        x = self.patch_embed(image[..., aside : aside + _WIDTH]).flatten(2).mT
        x = x + self.pos_embed[:, 1:] + self.pos_embed[:, :1]
        for block in self.blocks:
            x = block(x)
        return self.last_norm(x)

    def describe(self, observations: Tensor) -> Tensor:
        """The patches (B, 192, width) themselves."""
        return observations

    def load(self, path: str | Path) -> None:
        """Take the weights of a ViTPose checkpoint, without heads; it may be the original's or that of `transformers`.

        Raises ModelError when the file cannot be read or is of another backbone.
        """
        self.load_state_dict(self.weights_in(path))

    def weights_in(self, path: str | Path) -> dict[str, Tensor]:
        """The weights of a checkpoint, by our names and of our shapes. Raises ModelError, as `load`."""
        weights = backbone_weights(path)
        for name, tensor in self.state_dict().items():
            if name not in weights:
                raise ModelError(path, name, f"the weights of {self.size}", f"none{_looks_like(weights)}")
            if weights[name].shape != tensor.shape:
                expected = f"shape {tuple(tensor.shape)} of {self.size}"
                shape = f"shape {tuple(weights[name].shape)}{_looks_like(weights)}"
                raise ModelError(path, name, expected, shape)
        # The rest is heads, or layers that this size does not have.
        if _depth(weights) > len(self.blocks):
            raise ModelError(path, None, f"the layers of {self.size}", f"more{_looks_like(weights)}")
        return {name: weights[name] for name in self.state_dict()}


def _waves(rows: int, columns: int, width: int) -> Tensor:
    """Sines and cosines of the patches' positions, (rows * columns, width): first of rows, then of columns."""
    speed = _SLOWEST ** (torch.arange(width // 4) / (width // 4))
    positions = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    angles = [position.flatten()[:, None] * speed for position in positions]
    return torch.cat([wave(angle) for angle in angles for wave in (torch.sin, torch.cos)], 1)


def backbone_weights(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a ViTPose checkpoint under ViTPose's names, without `backbone.`, heads included.

    Raises ModelError. Nothing of the file is run.
    """
    return _renamed(_read(path), path)


def _read(path: str | Path) -> dict[str, Tensor]:
    """The named tensors of a checkpoint."""
    expected = "a ViTPose checkpoint (.pth or .safetensors)"
    content = read_tensor_file(path, expected, ModelError, objects=True)
    for key in ("state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not any(isinstance(value, Tensor) for value in content.values()):
        raise ModelError(path, None, expected, f"no tensors by name ({type(content).__name__})")
    return {str(name): value for name, value in content.items() if isinstance(value, Tensor)}


def _renamed(weights: dict[str, Tensor], path: str | Path) -> dict[str, Tensor]:
    """A checkpoint's tensors under ViTPose's own names."""
    renamed: dict[str, Tensor] = {}
    for given, tensor in weights.items():
        name = given.removeprefix("module.").removeprefix("backbone.")
        if ".experts." in name:
            raise ModelError(path, given, "a ViTPose backbone", "a mixture of experts (ViTPose+)")
        if name.startswith(("embeddings.", "encoder.", "layernorm.")):
            for theirs, own in _NAMES.items():
                name = name.replace(theirs, own)
        renamed[name] = tensor
    for name in [name for name in renamed if ".attention.attention.query." in name]:
        parts = [name.replace("query", part) for part in _QKV]
        if lacking := [part for part in parts if part not in renamed]:
            raise ModelError(path, lacking[0], "the weights of an attention", "none")
        own = name.replace("attention.attention.query", "attn.qkv")
        renamed[own] = torch.cat([renamed.pop(part) for part in parts])
    return renamed


def size_of(weights: Mapping[str, Tensor]) -> str | None:
    """The name of the backbone whose width and layers weights have, under ViTPose's names; None for another."""
    patches = weights.get("patch_embed.proj.weight")
    for size, (width, layers, *_) in SIZES.items():
        if patches is not None and patches.shape[0] == width and _depth(weights) == layers:
            return size
    return None


def _depth(weights: Mapping[str, Tensor]) -> int:
    return len({name.split(".")[1] for name in weights if name.startswith("blocks.")})


def _looks_like(weights: Mapping[str, Tensor]) -> str:
    """Which backbone the tensors are of, as the end of a message; nothing when it is none of ours."""
    size = size_of(weights)
    return f": it looks like {size}; give network.backbone: {size}" if size else ""
