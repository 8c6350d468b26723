"""What a refinement takes and gives: people, their keypoints and cameras, and what became of each of them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor

from skelfit.fitting.sequences.frame_index import FrameIndex


class RefinementStatus(IntEnum):
    """What became of a person. All but REFINED leave the parameters as they were, to the bit."""

    REFINED = 0
    UNCHANGED = 1  # no step lowered the objective
    NOT_FINITE = 2  # of parameters, intrinsics, confidences, or keypoints with a confidence
    NO_CAMERA = 3  # focal lengths that are not above 0, and no size of the image to estimate them
    FEW_KEYPOINTS = 4  # too few are seen
    BEHIND_CAMERA = 5  # a keypoint of the start is behind the camera, or nearer than `nearest`
    SWAPPED = 6  # left and right of the keypoints seem to be exchanged
    UNLIKELY_FOCAL = 7  # the estimated focal length ends at an end of its range


VARIABLES = 59  # of a person with a camera: translation, angles, betas


@dataclass(frozen=True)
class BodyParameters:
    """SKEL parameters of N people in the frame of their camera."""

    angles: Tensor  # (N, 46) rad; the first three are the root's orientation
    betas: Tensor  # (N, 10)
    transl: Tensor  # (N, 3) m

    def take(self, rows: Tensor) -> BodyParameters:
        """Those of some people; rows (K,) int64."""
        return BodyParameters(self.angles[rows], self.betas[rows], self.transl[rows])

    def to(self, dtype: torch.dtype) -> BodyParameters:
        """The same in another float type."""
        return BodyParameters(*(x.to(dtype) for x in vars(self).values()))

    def on_host(self) -> BodyParameters:
        """The same on the host, without gradients."""
        return BodyParameters(*(x.detach().cpu() for x in vars(self).values()))


@dataclass(frozen=True)
class RefinementProblem:
    """N people to be refined."""

    start: BodyParameters
    female: Tensor  # (N,) bool, of the SKEL body
    keypoints2d: Tensor  # (N, 44, 3) px of the image, and confidences
    cam_int: Tensor  # (N, 3, 3) px, intrinsics of the image; all 0: not known
    anchor: BodyParameters | None = None  # what holds the people; None: the start
    # (N, 2) px, width and height; where the camera is not known, it is estimated with it. 0, or None: not known
    image_size: Tensor | None = None
    frames: FrameIndex | None = None  # which people are frames of one person; None: each is by themselves

    def __len__(self) -> int:
        return len(self.female)

    @property
    def anchored(self) -> BodyParameters:
        """The anchor, or the start in its place."""
        return self.start if self.anchor is None else self.anchor

    def to(self, dtype: torch.dtype) -> RefinementProblem:
        """The same in another float type."""
        return RefinementProblem(
            self.start.to(dtype),
            self.female,
            self.keypoints2d.to(dtype),
            self.cam_int.to(dtype),
            None if self.anchor is None else self.anchor.to(dtype),
            None if self.image_size is None else self.image_size.to(dtype),
            self.frames,
        )

    def on_host(self) -> RefinementProblem:
        """The same on the host, without gradients."""
        return RefinementProblem(
            self.start.on_host(),
            self.female.cpu(),
            self.keypoints2d.detach().cpu(),
            self.cam_int.detach().cpu(),
            None if self.anchor is None else self.anchor.on_host(),
            None if self.image_size is None else self.image_size.detach().cpu(),
            self.frames,
        )

    def take(self, rows: Tensor) -> RefinementProblem:
        """That of some people; rows (K,) int64."""
        return RefinementProblem(
            self.start.take(rows),
            self.female[rows],
            self.keypoints2d[rows],
            self.cam_int[rows],
            None if self.anchor is None else self.anchor.take(rows),
            None if self.image_size is None else self.image_size[rows],
            None if self.frames is None else self.frames.take(rows.numpy()),
        )


@dataclass(frozen=True)
class RefinementResult:
    """What became of N people, on the host. Columns of pairs: before, after. NaN: cannot be measured."""

    refined: BodyParameters
    status: Tensor  # (N,) int64, of `RefinementStatus`
    objective: Tensor  # (N, 2) of the last phase, in squared shoulder-hip lengths
    reprojection_px: Tensor  # (N, 2) mean distance of the seen keypoints
    reprojection: Tensor  # (N, 2) the same in shoulder-hip lengths
    seen: Tensor  # (N,) int64, keypoints that count
    gain: Tensor  # (N,) the gain that one more step promises, as a share of the objective
    prior_focal: Tensor  # (N,) px, with which the estimate of a camera began; NaN: it was not tried
    cam_int: Tensor  # (N, 3, 3) px, the camera that sees the refined people
    # (N, 3) m, where people began; those without a camera where that of the prior sees them as in the picture
    begin: Tensor
    chain: Tensor  # (N,) int64, the sequence with which a person was refined as one problem; -1: by itself


def unrefined(problem: RefinementProblem, status: Tensor) -> RefinementResult:
    """The result of N people who stay as they are, for reasons (N,)."""
    pair, count = torch.full((len(problem), 2), torch.nan), torch.zeros(len(problem), dtype=torch.int64)
    one, people = pair[:, 0], problem.start
    alone = torch.full((len(problem),), -1)
    return RefinementResult(
        people, status, pair, pair, pair, count, one, one, problem.cam_int, people.transl, alone
    )


def map_refinements(function: Callable[..., Tensor], *results: RefinementResult) -> RefinementResult:
    """Apply a function to each tensor of some results."""

    def over(parts: Sequence[Any], names: Iterable[str]) -> dict[str, Any]:
        return {name: function(*(getattr(part, name) for part in parts)) for name in names}

    bodies = BodyParameters(**over([r.refined for r in results], vars(results[0].refined)))
    return RefinementResult(refined=bodies, **over(results, [n for n in vars(results[0]) if n != "refined"]))


def beta_bound(problem: RefinementProblem, largest: float) -> Tensor:
    """What |betas| of N people may be: the largest of start and anchor (N,), and at least `largest`; 0: anything."""
    if largest == 0:
        return torch.full_like(problem.start.betas[:, 0], torch.inf)
    betas = torch.cat((problem.start.betas, problem.anchored.betas), 1)
    return betas.abs().amax(1).clamp(min=largest)


def variables_of(people: BodyParameters) -> Tensor:
    """The solver's variables (B, 59): translation, angles, betas."""
    return torch.cat((people.transl, people.angles, people.betas), 1)


def parameters_of(x: Tensor) -> BodyParameters:
    """Parameters of variables (B, 59)."""
    return BodyParameters(x[:, 3:49], x[:, 49:VARIABLES], x[:, :3])
