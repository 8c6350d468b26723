"""The published networks whose checkpoints can be imported: the names of their weights, and what those are here.

The facts are those of the public code of SKEL-CF (Li et al., 2025), HSMR (Xia et al., CVPR 2025), 4D-Humans (Goel et
al., ICCV 2023) and ViTPose (Xu et al., NeurIPS 2022). Names are compared without `module.` and `model.`, which wrappers
put before them. Our networks have the names and the pose numbers of the published ones, so nothing is permuted and no
sign changes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from skelfit.errors import ModelError

VITPOSE = "vitpose"
_WRAPPERS = ("module.", "model.")


@dataclass(frozen=True)
class PublishedKind:
    """A kind of published checkpoints."""

    title: str  # as its authors write it
    mark: str  # a name that no other kind has
    network: str  # network.kind that its weights are of; '': of a backbone alone
    taken: Mapping[str, str]  # beginnings of names -> what they are here
    beside: Mapping[str, str]  # beginnings of the names of all else that its files hold -> what that is
    lacks: tuple[str, ...] = ()  # beginnings of our names that it has no weights for
    widen: bool = False  # data.widen of its crops


KINDS = {
    "skel-cf": PublishedKind(
        "SKEL-CF",
        "decoder.to_pose_embedding.weight",
        "skel-cf",
        {"backbone.": "backbone.", "decoder.": "decoder."},
        {
            "cam_model.": "the network of the camera",
            "skel_model.": "the body model",
            "updates": "the number of updates",
        },
    ),
    "hsmr": PublishedKind(
        "HSMR",
        "head.poses_decoder.weight",
        "hsmr",
        {"backbone.": "backbone.", "head.": "head."},
        {"skel_model.": "the body model", "discriminator.": "the discriminator"},
        widen=True,
    ),
    "4d-humans": PublishedKind(
        "4D-Humans",
        "smpl_head.decpose.weight",
        "hsmr",
        {
            "backbone.": "backbone.",
            "smpl_head.transformer.": "head.transformer.",
            "smpl_head.deccam.": "head.cam_decoder.",
            "smpl_head.init_cam": "head.init_cam",
        },
        {
            "smpl_head.": "the heads and the mean of SMPL's pose and betas",
            "smpl.": "the body model",
            "discriminator.": "the discriminator",
            "initialized": "a flag",
        },
        lacks=("head.poses_decoder.", "head.betas_decoder.", "head.init_poses", "head.init_betas"),
        widen=True,
    ),
    VITPOSE: PublishedKind("ViTPose", "pos_embed", "", {}, {}),
}


def own_name(name: str) -> str:
    """A name without those of wrappers."""
    while name.startswith(_WRAPPERS):
        name = name.partition(".")[2]
    return name


def kind_of(names: Iterable[str], path: Path) -> str:
    """The kind of a file by the names of its weights. Raises ModelError where they are of no kind."""
    known = set(names)
    for kind, published in KINDS.items():
        if published.mark in known:
            return kind
    if known & {
        "backbone.pos_embed",
        "backbone.embeddings.position_embeddings",
        "embeddings.position_embeddings",
    }:
        return VITPOSE
    marks = ", ".join(f"{published.mark} ({published.title})" for published in KINDS.values())
    few = sorted(known)[:3]
    raise ModelError(path, None, f"one of the names {marks}", f"{len(known)} others ({', '.join(few)} ...)")
