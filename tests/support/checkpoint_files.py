"""Checkpoint files like those that others published: their names, shapes and what they hold beside weights; no weights.

All is written down from the public code of SKEL-CF, HSMR, 4D-Humans and ViTPose. Sizes are those that are asked for.
"""

from __future__ import annotations

import os
import random
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from published_shapes import Shapes, decoder_layer, linear, prefixed, skel_cf_decoder, vitpose
from torch import Tensor

Weights = dict[str, Tensor]


class Sizes(NamedTuple):
    """Of a network; HEADS heads of 64 numbers in the tiny one."""

    width: int = 64  # of the backbone
    depth: int = 2
    layers: int = 2  # of the decoder
    inner: int = 128
    feed_forward: int = 48
    hidden: int = 24  # SKEL-CF
    dim: int = 40  # HSMR, 4D-Humans


class Harmful:
    """Makes a folder `harm` when it is unpickled."""

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, ("harm",))


HEADS = 2
TINY = Sizes()
FULL = Sizes(1280, 32, 6, 512, 1024, 256, 1024)


def hsmr_head(sizes: Sizes) -> Shapes:
    """Of what HSMR puts on its backbone, without a prefix."""
    shapes: Shapes = {"init_poses": (1, 144), "init_betas": (1, 10), "init_cam": (1, 3)}
    shapes |= prefixed("transformer.", cross_attention(sizes))
    for head, numbers in (("poses", 144), ("betas", 10), ("cam", 3)):
        shapes |= linear(f"{head}_decoder", sizes.dim, numbers)
    return shapes


def smpl_head(sizes: Sizes) -> Shapes:
    """Of what 4D-Humans puts on its backbone, without a prefix."""
    shapes: Shapes = {"init_body_pose": (1, 144), "init_betas": (1, 10), "init_cam": (1, 3)}
    shapes |= prefixed("transformer.", cross_attention(sizes))
    for head, numbers in (("decpose", 144), ("decshape", 10), ("deccam", 3)):
        shapes |= linear(head, sizes.dim, numbers)
    return shapes


def cross_attention(sizes: Sizes) -> Shapes:
    """Of the decoder that 4D-Humans and HSMR share, without a prefix."""
    shapes: Shapes = linear("to_token_embedding", 1, sizes.dim) | {"pos_embedding": (1, 1, sizes.dim)}
    for i in range(sizes.layers):
        layer = f"transformer.layers.{i}"
        shapes |= decoder_layer(layer, sizes.dim, sizes.width, sizes.inner, sizes.feed_forward)
    return shapes


SKEL_MODEL: Shapes = {
    "skel_model.skin_template_v": (6890, 3),
    "skel_model.shapedirs": (6890, 3, 10),
    "skel_model.J_regressor_extra": (19, 6890),
    "skel_model.parent": (23,),
}
CAM_MODEL: Shapes = {
    "cam_model.backbone.conv1.weight": (64, 3, 3, 3),
    "cam_model.fc1.weight": (1024, 720),
    "cam_model.fc3.bias": (2,),
}
DISCRIMINATOR: Shapes = {"discriminator.D_conv1.weight": (32, 9, 1, 1), "discriminator.pose_out.0.bias": (1,)}


def shapes_of(kind: str, sizes: Sizes = TINY) -> Shapes:
    """All tensors of a kind's state dict, but for what wrappers put before names."""
    backbone = prefixed("backbone.", vitpose(sizes.width, sizes.depth))
    if kind == "skel-cf":
        decoder = skel_cf_decoder(sizes.width, sizes.layers, sizes.inner, sizes.feed_forward, sizes.hidden)
        return backbone | prefixed("decoder.", decoder) | CAM_MODEL | SKEL_MODEL
    if kind == "hsmr":
        return SKEL_MODEL | backbone | prefixed("head.", hsmr_head(sizes)) | DISCRIMINATOR
    if kind == "4d-humans":
        smpl: Shapes = {"smpl.v_template": (6890, 3), "smpl.J_regressor_extra": (19, 6890), "initialized": ()}
        return backbone | prefixed("smpl_head.", smpl_head(sizes)) | DISCRIMINATOR | smpl
    assert kind == "vitpose"
    head: Shapes = {"keypoint_head.deconv_layers.0.weight": (sizes.width, 256, 4, 4)}
    return backbone | head | {"keypoint_head.final_layer.bias": (17,)}


def without_bytes(shapes: Shapes) -> Weights:
    """Tensors of any size, each of one number in the file."""
    return {name: torch.tensor(0.5).expand(shape) for name, shape in shapes.items()}


def weights_of(kind: str, sizes: Sizes = TINY, seed: int = 0) -> Weights:
    """Random weights in which every part counts; all that is no part of the network holds one number."""
    generator = torch.Generator().manual_seed(seed)
    shapes = shapes_of(kind, sizes)
    weights = without_bytes(shapes)
    for name, shape in shapes.items():
        if name.startswith(("backbone.", "decoder.", "head.", "smpl_head.")):
            values = torch.randn(shape, generator=generator)
            weights[name] = values if len(shape) == 3 or "to_q" in name else 0.1 * values
    return weights


def content_of(kind: str, weights: Weights) -> dict[str, Any]:
    """The content of a file of a kind. Save it while `foreign_classes` are there."""
    made = {name: cls() for name, cls in FOREIGN.items()}
    config = made["omegaconf.dictconfig.DictConfig"]
    config.__dict__.update(
        _content={"lr": 1e-5}, _parent=None, _metadata=made["omegaconf.base.ContainerMetadata"]
    )
    if kind == "skel-cf":
        raw = {name: torch.tensor(0.0).expand(w.shape) for name, w in weights.items()}
        averaged = {"updates": torch.tensor(7)} | {f"model.{name}": w for name, w in weights.items()}
        states = {"random_state": random.getstate(), "numpy_state": np.random.get_state()}
        return {"model": raw, "ema_model": OrderedDict(averaged), "epoch": 3, "cfg": config, **states}
    if kind == "hsmr":
        about = {
            "epoch": 9,
            "global_step": 1000,
            "pytorch-lightning_version": "2.2.1",
            "hyper_parameters": config,
        }
        return {
            **about,
            "state_dict": OrderedDict(weights),
            "callbacks": {"best": Path("x.ckpt")},
            "loops": {},
        }
    if kind == "4d-humans":
        settings = made["yacs.config.CfgNode"]
        settings["MODEL"] = made["yacs.config.CfgNode"]
        settings.__dict__["__immutable__"] = True
        return {
            "state_dict": OrderedDict(weights),
            "hyper_parameters": {"cfg": settings},
            "optimizer_states": [],
        }
    return {"meta": {"config": config}, "state_dict": OrderedDict(weights), "optimizer": {"lr": 1}}


# Classes of packages that files name and that are not installed here.
FOREIGN: dict[str, Any] = {
    name: type(name.rpartition(".")[2], (base,), {"__module__": name.rpartition(".")[0]})
    for name, base in {
        "omegaconf.dictconfig.DictConfig": object,
        "omegaconf.base.ContainerMetadata": object,
        "yacs.config.CfgNode": dict,
    }.items()
}


@contextmanager
def foreign_classes() -> Iterator[None]:
    """Let pickle find these classes for a while."""
    before = set(sys.modules)
    for name, cls in FOREIGN.items():
        parts = name.split(".")[:-1]
        for i in range(1, len(parts) + 1):
            sys.modules.setdefault(".".join(parts[:i]), ModuleType(".".join(parts[:i])))
        setattr(sys.modules[".".join(parts)], cls.__name__, cls)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]


def write_published(kind: str, path: Path, weights: Weights | None = None, **more: Any) -> Weights:
    """Write a file of a kind; returns its weights under their names there. more: what else it holds."""
    weights = weights_of(kind) if weights is None else weights
    with foreign_classes():
        torch.save(content_of(kind, weights) | more, path)
    return weights
