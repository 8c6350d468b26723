"""From a published checkpoint to one of ours: read without running anything, checked name by name, and renamed.

What is missing, of another shape, or unknown is said at once. What a file holds beside the network (body models, other
networks) is left, and named.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skelfit.errors import ModelError
from skelfit.learning.backbones.vitpose import VitPose, backbone_weights, size_of
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.networks.network import NetworkConfig
from skelfit.learning.networks.network_registry import make_network
from skelfit.learning.published.published_kinds import KINDS, VITPOSE, PublishedKind, kind_of, own_name
from skelfit.learning.training.training_config import TrainConfig
from skelfit.storage.tensor_files import read_tensor_file

HEAD_DIM = 64  # width of an attention head of the decoders; shapes do not say it
_EXPECTED = "a checkpoint of a published network (.ckpt, .pth, .pt or .safetensors)"
# Where files keep their weights, the better ones first: SKEL-CF's running mean; Lightning; training scripts.
_PLACES = ("ema_model", "state_dict", "model")
_LAYERS = {"skel-cf": "decoder.transformer.layers.", "hsmr": "head.transformer.transformer.layers."}
_SHOWN = 4  # names of a kind in a message


@dataclass(frozen=True)
class ImportedCheckpoint:
    """What a published checkpoint became."""

    kind: str  # of KINDS
    content: dict[str, Any]  # of one of our checkpoints
    place: str  # the key of the file under which its weights were; '' where they were not under one
    beside: Mapping[str, int]  # what was left -> how many tensors of it
    missing: tuple[str, ...]  # our weights that it has nothing for: it can begin a training, no more

    @property
    def network(self) -> NetworkConfig:
        """The network that it is of."""
        return NetworkConfig(**self.content["config"]["network"])


def import_checkpoint(path: Path, kind: str | None = None) -> ImportedCheckpoint:
    """Our checkpoint of a published one; kind: of KINDS, by default the one that the names say.

    Raises ModelError: for a file that cannot be read, of another kind, or whose names and shapes are not those of its
    kind; and for a backbone alone, which needs no import.
    """
    place, weights = _weights(path)
    kind = _checked_kind(path, kind, weights)
    if kind == VITPOSE:
        raise _backbone_alone(path)
    published = KINDS[kind]
    taken = _renamed(weights, published)
    config = _network_config(path, published, taken)
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in make_network(config).state_dict().items()}
    others = [name for name in weights if not name.startswith(tuple(published.taken))]
    beside = Counter(_first(published.beside, name) for name in others)
    unknown = [name for name in others if not _first(published.beside, name)]
    unknown += [name for name in taken if name not in shapes]
    missing = [name for name in shapes if name not in taken]
    lacking = [name for name in missing if name.startswith(published.lacks)]
    expected = f"the {len(shapes)} weights of {published.title} with {config.backbone}"
    _check(
        path, expected, [name for name in missing if name not in lacking], _misfits(shapes, taken), unknown
    )
    if wrong := [name for name, tensor in taken.items() if not _is_finite(tensor)]:
        raise ModelError(path, wrong[0], "finite numbers", f"others, and in {len(wrong) - 1} more weights")
    data = DataConfig(held_out=0.0, widen=published.widen)
    training = asdict(TrainConfig(published.title, data=data, network=config))
    del training["data"]["subsets"]  # there are none
    content = {
        "step": 0,
        "config": training,
        "models": "",
        "measured": None,
        "weights": {name: tensor.detach().float() for name, tensor in taken.items()},
        "training": None,
        "imported": {"kind": kind, "file": path.name, "missing": lacking},
    }
    return ImportedCheckpoint(kind, content, place, beside, tuple(lacking))


def _weights(path: Path) -> tuple[str, dict[str, Tensor]]:
    """The tensors of a file by their names, without wrappers, and the key of the file under which they are."""
    content, place = read_tensor_file(path, _EXPECTED, ModelError, mapped=True, objects=True), ""
    for key in _PLACES:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content, place = content[key], key
            break
    tensors = content.items() if isinstance(content, dict) else ()
    weights = {own_name(str(name)): value for name, value in tensors if isinstance(value, Tensor)}
    if not weights:
        raise ModelError(path, place or None, _EXPECTED, f"no tensors by name ({type(content).__name__})")
    return place, weights


def _checked_kind(path: Path, kind: str | None, weights: Mapping[str, Tensor]) -> str:
    """The kind of a file. Raises ModelError where its names are of no kind, or of another than was asked for."""
    if kind is None:
        return kind_of(weights, path)
    for published in (KINDS[other] for other in KINDS if other != kind):
        if published.mark in weights:
            raise ModelError(path, None, f"the weights of {KINDS[kind].title}", f"those of {published.title}")
    return kind


def _backbone_alone(path: Path) -> ModelError:
    """What to say of ViTPose's weights. Raises ModelError where they are not those of one of its sizes."""
    size = size_of(backbone_weights(path))
    if size is None:
        raise ModelError(path, None, "one of ViTPose's sizes", "another")
    with torch.device("meta"):
        VitPose(size).weights_in(path)
    how = f"give network.backbone: {size} and the file as network.checkpoint, or by --checkpoint"
    return ModelError(path, None, "a network", f"a backbone alone, which needs no import: {how}")


def _is_finite(tensor: Tensor) -> bool:
    return tensor.is_meta or bool(tensor.isfinite().all())


def _first(beginnings: Mapping[str, str], name: str) -> str:
    """The value of the beginning that a name has; '' without one."""
    return next((value for begin, value in beginnings.items() if name.startswith(begin)), "")


def _renamed(weights: Mapping[str, Tensor], published: PublishedKind) -> dict[str, Tensor]:
    """The weights that are taken, under our names."""
    taken = {}
    for name, tensor in weights.items():
        for theirs, ours in published.taken.items():
            if name.startswith(theirs):
                taken[ours + name.removeprefix(theirs)] = tensor
    return taken


def _network_config(path: Path, published: PublishedKind, taken: Mapping[str, Tensor]) -> NetworkConfig:
    """The network that weights are of, by their shapes; as published where a shape is missing."""
    backbone = {
        name.removeprefix("backbone."): w for name, w in taken.items() if name.startswith("backbone.")
    }
    size = size_of(backbone)
    if size is None:
        raise ModelError(path, "backbone", "one of ViTPose's sizes", "another")
    config, stem = NetworkConfig(kind=published.network, backbone=size), _LAYERS[published.network]

    def rows(name: str, default: int) -> int:
        return taken[name].shape[0] if name in taken and taken[name].ndim else default

    return NetworkConfig(
        kind=published.network,
        backbone=size,
        layers=len({name.split(".")[stem.count(".")] for name in taken if name.startswith(stem)})
        or config.layers,
        heads=max(1, rows(f"{stem}0.1.fn.to_q.weight", config.heads * HEAD_DIM) // HEAD_DIM),
        head_dim=HEAD_DIM,
        feed_forward=rows(f"{stem}0.2.fn.net.0.weight", config.feed_forward),
        hidden=rows("decoder.poses_decoder.0.weight", config.hidden),
        dim=rows("head.transformer.to_token_embedding.weight", config.dim),
    )


def _misfits(shapes: Mapping[str, torch.Size], taken: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{name} of shape {tuple(taken[name].shape)} in place of {tuple(shape)}"
        for name, shape in shapes.items()
        if name in taken and taken[name].shape != shape
    ]


def _check(path: Path, expected: str, missing: list[str], misfits: list[str], unknown: list[str]) -> None:
    """Raises ModelError where names or shapes are wrong; it says all of it."""
    wrong = (("no ", missing), ("", misfits), ("besides ", unknown))
    if found := "; ".join(title + _few(names) for title, names in wrong if names):
        raise ModelError(path, None, expected, found)


def _few(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
