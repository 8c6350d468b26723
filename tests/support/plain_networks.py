"""Published networks, written down from their papers and public code with nothing but sums: twins to compare with.

Weights are those of a state dict, under their published names, of any precision.
"""

from __future__ import annotations

from math import sqrt
from typing import Any

import torch
from torch import Tensor

from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import Estimate, Network

Weights = dict[str, Tensor]


def part_of(weights: Weights, prefix: str) -> Weights:
    """The weights of a part, in double precision."""
    return {n.removeprefix(prefix): w.double() for n, w in weights.items() if n.startswith(prefix)}


def flat(estimate: Estimate) -> Tensor:
    """All numbers of an estimate, (B, 157)."""
    return torch.cat((estimate.pose.flatten(1), estimate.betas, estimate.camera), 1)


def predict(network: Network, batch: TrainingBatch) -> Any:
    """What a network that is compared with these says of a batch."""
    size = network.backbone.crop
    return network(batch.image[..., :size, :size], batch.cam_int, batch.center, batch.box_size)


def plain_linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    out = torch.einsum("...i,oi->...o", x, weights[f"{name}.weight"])
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def plain_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    off = x - x.mean(-1, keepdim=True)
    scaled = off / (off.square().mean(-1, keepdim=True) + eps).sqrt()
    return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def plain_gelu(x: Tensor) -> Tensor:
    return x / 2 * (1 + torch.erf(x / sqrt(2)))


def plain_attention(q: Tensor, k: Tensor, v: Tensor, *, heads: int) -> Tensor:
    """One head and one query after another."""
    width = q.shape[-1] // heads
    out = torch.empty_like(q)
    for h in range(heads):
        own = slice(h * width, (h + 1) * width)
        for t in range(q.shape[1]):
            scores = torch.einsum("bi,bni->bn", q[:, t, own], k[..., own]) / sqrt(width)
            share = torch.exp(scores - scores.amax(-1, keepdim=True))
            out[:, t, own] = torch.einsum("bn,bni->bi", share, v[..., own]) / share.sum(-1, keepdim=True)
    return out


def plain_vitpose(weights: Weights, image: Tensor, heads: int) -> Tensor:
    """Features (B, N, width) of the patches of images (B, 3, H, W), whose border of 2 px is black."""
    padded = torch.nn.functional.pad(image, (2, 2, 2, 2))
    patches = padded.unfold(2, 16, 16).unfold(3, 16, 16)  # (B, 3, rows, columns, 16, 16)
    x = torch.einsum("bcyxij,ocij->byxo", patches, weights["patch_embed.proj.weight"])
    x = x.flatten(1, 2) + weights["patch_embed.proj.bias"]
    x = x + weights["pos_embed"][:, 1:] + weights["pos_embed"][:, :1]
    for i in range(sum(name.endswith("norm1.bias") for name in weights)):
        block = f"blocks.{i}"
        qkv = plain_linear(weights, f"{block}.attn.qkv", plain_norm(weights, f"{block}.norm1", x, 1e-6))
        x = x + plain_linear(weights, f"{block}.attn.proj", plain_attention(*qkv.chunk(3, -1), heads=heads))
        hidden = plain_linear(weights, f"{block}.mlp.fc1", plain_norm(weights, f"{block}.norm2", x, 1e-6))
        x = x + plain_linear(weights, f"{block}.mlp.fc2", plain_gelu(hidden))
    return plain_norm(weights, "last_norm", x, 1e-6)


def plain_decoder_layer(weights: Weights, layer: str, x: Tensor, patches: Tensor, heads: int) -> Tensor:
    """Tokens (B, T, dim) after a layer of 4D-Humans, HSMR and SKEL-CF."""

    def apply(name: str, inputs: Tensor) -> Tensor:
        return plain_linear(weights, f"{layer}.{name}", inputs)

    q, k, v = apply("0.fn.to_qkv", plain_norm(weights, f"{layer}.0.norm", x, 1e-5)).chunk(3, -1)
    x = x + apply("0.fn.to_out.0", plain_attention(q, k, v, heads=heads))
    q = apply("1.fn.to_q", plain_norm(weights, f"{layer}.1.norm", x, 1e-5))
    k, v = apply("1.fn.to_kv", patches).chunk(2, -1)
    x = x + apply("1.fn.to_out.0", plain_attention(q, k, v, heads=heads))
    hidden = plain_gelu(apply("2.fn.net.0", plain_norm(weights, f"{layer}.2.norm", x, 1e-5)))
    return x + apply("2.fn.net.3", hidden)


def plain_skel_cf(weights: Weights, patches: Tensor, box: Tensor, layers: int, heads: int) -> list[Tensor]:
    """The estimates (B, 157) of SKEL-CF's decoder, of the encoder and of each layer; box: (B, 3)."""

    def mlp(name: str, x: Tensor) -> Tensor:
        return plain_linear(weights, f"{name}.2", plain_gelu(plain_linear(weights, f"{name}.0", x)))

    def tokens() -> Tensor:
        pose_token = plain_linear(weights, "to_pose_embedding", torch.cat((pose, box), 1))
        betas_token = plain_linear(weights, "to_betas_embedding", torch.cat((betas, box), 1))
        cam_token = plain_linear(weights, "to_cam_embedding", torch.cat((cam, box), 1))
        return torch.stack((pose_token, betas_token, cam_token), 1)

    mean = patches.sum(1) / patches.shape[1]
    pose = weights["mean_poses"] + mlp("poses_decoder", mean)
    betas = weights["mean_betas"] + mlp("betas_decoder", mean)
    cam = weights["mean_cam"] + mlp("cam_decoder", mean)
    estimates = [torch.cat((pose, betas, cam), 1)]
    x = tokens() + weights["transformer.pos_embedding"]
    for i in range(layers):
        x = plain_decoder_layer(weights, f"transformer.layers.{i}", x, patches, heads)
        pose = pose + mlp("poses_decoder", x[:, 0])
        betas = betas + mlp("betas_decoder", x[:, 1])
        cam = cam + mlp("cam_decoder", x[:, 2])
        estimates.append(torch.cat((pose, betas, cam), 1))
        x = tokens()
    return estimates


def plain_hsmr(weights: Weights, patches: Tensor, layers: int, heads: int) -> Tensor:
    """The estimate (B, 157) of HSMR's head, of patches (B, N, width)."""
    x = weights["transformer.to_token_embedding.bias"] + weights["transformer.pos_embedding"]
    x = x.expand(len(patches), 1, -1)
    for i in range(layers):
        x = plain_decoder_layer(weights, f"transformer.transformer.layers.{i}", x, patches, heads)
    heads_of = (("init_poses", "poses_decoder"), ("init_betas", "betas_decoder"), ("init_cam", "cam_decoder"))
    parts = [weights[mean] + plain_linear(weights, head, x[:, 0]) for mean, head in heads_of]
    return torch.cat(parts, 1)
