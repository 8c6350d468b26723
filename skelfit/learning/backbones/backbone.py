"""What a backbone provides: from the crop of a person to features of its parts, in two steps.

`observe` looks at the pixels, `describe` makes features of what it saw. A part that has learnt can thus observe every
person once, and the rest of the network trains on the cached observations.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from torch import Tensor, nn

from skelfit.errors import ModelError


class Backbone(nn.Module, ABC):
    """Base class of the backbones; `backbone_registry` lists them by the name in `network.backbone`."""

    crop: int  # side of the crops, px
    width: int  # numbers of a patch

    @property
    def detector(self) -> nn.Module | None:
        """The part that first learns heatmaps of keypoints, by itself; None where there is no such part."""
        return None

    def forward(self, image: Tensor) -> Tensor:
        """Patches (B, N, width) of crops (B, 3, crop, crop), normalised."""
        return self.describe(self.observe(image))

    @abstractmethod
    def observe(self, image: Tensor) -> Tensor:
        """What the backbone sees in crops (B, 3, crop, crop), normalised: (B, N, n)."""

    @abstractmethod
    def describe(self, observations: Tensor) -> Tensor:
        """Patches (B, N, width) of observations (B, N, n): features of parts of the crop, or of keypoints.

        A decoder attends to them, and their mean has to say enough for a first estimate.
        """

    def load(self, path: str | Path) -> None:
        """Take the weights of a checkpoint. Raises ModelError where the file does not fit this backbone."""
        raise ModelError(path, None, "no checkpoint, since this backbone learns from nothing", "one")
