"""A block of ViTPose's vision transformer (Xu et al., NeurIPS 2022), with the parameter names of its checkpoints.

Stochastic depth (Huang et al., ECCV 2016) leaves out the parts of a block for some of the people.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

EPS = 1e-6  # of all normalisations


class VitBlock(nn.Module):
    """Self-attention of the patches, and a feed-forward part."""

    def __init__(self, width: int, heads: int, drop_path: float) -> None:
        """drop_path: how often a part is left out in training."""
        super().__init__()
        self.drop_path = drop_path
        self.norm1, self.norm2 = nn.LayerNorm(width, EPS), nn.LayerNorm(width, EPS)
        self.attn, self.mlp = _Attention(width, heads), _Mlp(width)

    def forward(self, x: Tensor) -> Tensor:
        """Of patches (B, N, width), the same shape."""
        x = x + self._for_some(self.attn(self.norm1(x)))
        return x + self._for_some(self.mlp(self.norm2(x)))

    def _for_some(self, x: Tensor) -> Tensor:
        """In training: 0 for a share of the people, and as much more for the others."""
        if not self.training or self.drop_path == 0:
            return x
        kept = x.new_empty(len(x), 1, 1).bernoulli_(1 - self.drop_path)
        return x * (kept / (1 - self.drop_path))


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class _Mlp(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.fc1, self.act, self.fc2 = nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))
