"""What a backbone provides: from the crop of a person to features, in two steps.

`observe` looks at the pixels, `describe` makes features of what it saw. A part that has learnt can thus observe every
person once, and the rest of the network trains on the cached observations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import NamedTuple

from torch import Tensor, nn

from skelfit.errors import ModelError


class Features(NamedTuple):
    """Features of B crops."""

    patches: Tensor  # (B, N, width) of parts of the crop, or of keypoints: what a decoder attends to
    whole: Tensor  # (B, summary) of the whole crop, for the first estimate
    mirrored: Features | None = None  # of the mirrored crops, where a network averages both


class Backbone(nn.Module, ABC):
    """Base class of the backbones; `backbone_registry` lists them by the name in `network.backbone`."""

    crop: int  # side of the crops, px
    width: int  # numbers of a patch
    summary: int  # numbers of `Features.whole`
    hidden: int  # normalised layers that the first estimate puts before its own

    @property
    def detector(self) -> nn.Module | None:
        """The part that first learns heatmaps of keypoints, by itself; None where there is no such part."""
        return None

    def forward(self, image: Tensor) -> Features:
        """Features of crops (B, 3, crop, crop), normalised."""
        return self.describe(self.observe(image))

    @abstractmethod
    def observe(self, image: Tensor) -> Tensor:
        """What the backbone sees in crops (B, 3, crop, crop), normalised: (B, N, n)."""

    @abstractmethod
    def describe(self, observations: Tensor) -> Features:
        """Features of observations (B, N, n)."""

    def load(self, path: str | Path) -> None:
        """Take the weights of a checkpoint. Raises ModelError where the file does not fit this backbone."""
        raise ModelError(path, None, "no checkpoint, since this backbone learns from nothing", "one")
