"""A decoder layer of HMR2, HSMR and SKEL-CF, with the parameter names of their checkpoints.

Three parts, each after a normalisation and added to the tokens: the tokens attend to each other, then to the patches;
then a feed-forward part. The names are those of the public code of 4D-Humans (Goel et al., ICCV 2023), which the others
share: `0.fn.to_qkv`, `1.fn.to_kv`, `2.fn.net.3` and so on.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention


class DecoderLayer(nn.ModuleList):
    """From tokens and patches to tokens."""

    def __init__(self, dim: int, context: int, heads: int, head_dim: int, feed_forward: int) -> None:
        """dim, context: numbers of a token and of a patch; feed_forward: width of the hidden layer."""
        parts = (
            _SelfAttention(dim, heads, head_dim),
            _CrossAttention(dim, context, heads, head_dim),
            _FeedForward(dim, feed_forward),
        )
        super().__init__(_AfterNorm(dim, part) for part in parts)

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        """Tokens (B, T, dim) after this layer; patches: (B, N, context)."""
        to_each_other, to_patches, feed_forward = self
        tokens = tokens + to_each_other(tokens)
        tokens = tokens + to_patches(tokens, patches)
        return tokens + feed_forward(tokens)


class _AfterNorm(nn.Module):
    def __init__(self, dim: int, part: nn.Module) -> None:
        super().__init__()
        self.norm, self.fn = nn.LayerNorm(dim), part

    def forward(self, tokens: Tensor, *patches: Tensor) -> Tensor:
        return self.fn(self.norm(tokens), *patches)


class _SelfAttention(nn.Module):
    def __init__(self, dim: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_qkv = nn.Linear(dim, 3 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.to_out(_attend(*self.to_qkv(tokens).chunk(3, -1), heads=self.heads))


class _CrossAttention(nn.Module):
    def __init__(self, dim: int, context: int, heads: int, head_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(dim, heads * head_dim, bias=False)
        self.to_kv = nn.Linear(context, 2 * heads * head_dim, bias=False)
        self.to_out = nn.Sequential(nn.Linear(heads * head_dim, dim))

    def forward(self, tokens: Tensor, patches: Tensor) -> Tensor:
        return self.to_out(_attend(self.to_q(tokens), *self.to_kv(patches).chunk(2, -1), heads=self.heads))


class _FeedForward(nn.Module):
    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        # Dropouts of 0 are the published layers 2 and 4.
        self.net = nn.Sequential(nn.Linear(dim, hidden), nn.GELU(), nn.Identity(), nn.Linear(hidden, dim))

    def forward(self, tokens: Tensor) -> Tensor:
        return self.net(tokens)


def _attend(q: Tensor, k: Tensor, v: Tensor, *, heads: int) -> Tensor:
    """Attention (B, T, heads * head_dim) of queries (B, T, ...) to keys and values (B, N, ...)."""
    by_head = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (q, k, v))
    return scaled_dot_product_attention(*by_head).transpose(1, 2).flatten(2)
