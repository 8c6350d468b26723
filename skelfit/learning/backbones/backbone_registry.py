"""All backbones, by the name that `network.backbone` gives them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from skelfit.learning.backbones.backbone import Backbone
from skelfit.learning.backbones.keypoint_cnn import KeypointBackbone
from skelfit.learning.backbones.vitpose import SIZES, VitPose


@dataclass(frozen=True)
class BackboneKind:
    """How to make a backbone, and what it begins with."""

    make: Callable[[], Backbone]
    pretrained: bool = True  # begins with the weights of a checkpoint
    keypoints_first: bool = False  # learns keypoints in a stage of its own, see `Backbone.detector`


BACKBONES: dict[str, BackboneKind] = {
    **{size: BackboneKind(partial(VitPose, size)) for size in SIZES},
    "keypoint-tiny": BackboneKind(KeypointBackbone, pretrained=False, keypoints_first=True),
}
