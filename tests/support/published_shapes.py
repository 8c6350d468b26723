"""Names and shapes of the weights of published checkpoints, written down from their public code; nothing of skelfit's.

ViTPose: width, layers. SKEL-CF: `decoder.*` of its state dict; a file has `backbone.*` beside it, and a frozen camera
network and body model.
"""

from __future__ import annotations

Shapes = dict[str, tuple[int, ...]]


def linear(name: str, inputs: int, outputs: int, *, bias: bool = True) -> Shapes:
    return {f"{name}.weight": (outputs, inputs)} | ({f"{name}.bias": (outputs,)} if bias else {})


def norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vitpose(width: int, layers: int, patches: int = 192) -> Shapes:
    """Of ViTPose's backbone, without a prefix."""
    shapes: Shapes = {"pos_embed": (1, 1 + patches, width), "patch_embed.proj.weight": (width, 3, 16, 16)}
    shapes |= {"patch_embed.proj.bias": (width,)} | norm("last_norm", width)
    for i in range(layers):
        block = f"blocks.{i}"
        shapes |= norm(f"{block}.norm1", width) | norm(f"{block}.norm2", width)
        shapes |= linear(f"{block}.attn.qkv", width, 3 * width) | linear(f"{block}.attn.proj", width, width)
        shapes |= linear(f"{block}.mlp.fc1", width, 4 * width) | linear(f"{block}.mlp.fc2", 4 * width, width)
    return shapes


def decoder_layer(layer: str, dim: int, context: int, inner: int = 512, hidden: int = 1024) -> Shapes:
    """Of a decoder layer of 4D-Humans, HSMR and SKEL-CF; inner: heads times their width."""
    shapes = {name: shape for part in range(3) for name, shape in norm(f"{layer}.{part}.norm", dim).items()}
    shapes |= linear(f"{layer}.0.fn.to_qkv", dim, 3 * inner, bias=False)
    shapes |= linear(f"{layer}.0.fn.to_out.0", inner, dim)
    shapes |= linear(f"{layer}.1.fn.to_kv", context, 2 * inner, bias=False)
    shapes |= linear(f"{layer}.1.fn.to_q", dim, inner, bias=False) | linear(
        f"{layer}.1.fn.to_out.0", inner, dim
    )
    return shapes | linear(f"{layer}.2.fn.net.0", dim, hidden) | linear(f"{layer}.2.fn.net.3", hidden, dim)


def skel_cf_decoder(
    width: int = 1280, layers: int = 6, inner: int = 512, feed_forward: int = 1024, hidden: int = 256
) -> Shapes:
    """Of what SKEL-CF puts on its backbone, without a prefix; three of these are no weights but the start."""
    shapes: Shapes = {"mean_poses": (1, 144), "mean_betas": (1, 10), "mean_cam": (1, 3)}
    shapes |= {"transformer.pos_embedding": (1, 1, width)}
    for i in range(layers):
        shapes |= decoder_layer(f"transformer.layers.{i}", width, width, inner, feed_forward)
    for head, numbers in (("cam", 3), ("betas", 10), ("poses", 144)):
        shapes |= linear(f"{head}_decoder.0", width, hidden) | linear(f"{head}_decoder.2", hidden, numbers)
    for embedding, numbers in (("pose", 144), ("betas", 10), ("cam", 3)):
        shapes |= linear(f"to_{embedding}_embedding", numbers + 3, width)
    return shapes


def prefixed(prefix: str, shapes: Shapes) -> Shapes:
    return {prefix + name: shape for name, shape in shapes.items()}
