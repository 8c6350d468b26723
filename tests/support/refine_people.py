"""People with known parameters and keypoints in their images, for tests of refinements."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.dofs import ROOT_DOFS, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.fitting.refinement.refinement_problem import BodyParameters, RefinementProblem

FOCAL, SIZE = 300.0, 256.0  # px


def make_people(count: int, seed: int = 0, betas: float = 1.0) -> BodyParameters:
    """People within their limits, upright or not, some metres from the camera; float32. betas: their deviation."""
    source = torch.Generator().manual_seed(seed)
    low, high = torch.from_numpy(dof_limits()).float().unbind(-1)
    low[list(ROOT_DOFS)], high[list(ROOT_DOFS)] = -1.0, 1.0
    share = 0.5 + 0.4 * (torch.rand(count, 46, generator=source) - 0.5)
    angles = low + (high - low) * share
    angles[:, 0] += torch.pi
    shape = betas * torch.randn(count, 10, generator=source)
    transl = torch.tensor([0.0, 0.0, 4.0]) + 0.3 * torch.randn(count, 3, generator=source)
    return BodyParameters(angles, shape, transl)


def camera_points(models: ModelSet, people: BodyParameters, female: Tensor) -> Tensor:
    """Keypoints (N, 44, 3) m in the camera's frame, float64."""
    points = torch.zeros(len(female), 44, 3, dtype=torch.float64)
    people = people.to(torch.float64)
    for of, gender in ((False, "male"), (True, "female")):
        if (rows := female == of).any():
            body = SkelKeypoints(models, gender, dtype=torch.float64)
            points[rows] = body(people.angles[rows], people.betas[rows]) + people.transl[rows, None]
    return points


def make_problem(
    models: ModelSet,
    count: int,
    shake: float = 0.15,
    noise: float = 1.0,
    seed: int = 0,
    betas: float = 1.0,
    label_betas: float | None = None,
) -> tuple[RefinementProblem, BodyParameters]:
    """People with shaken labels, and the truth; both genders in turn, a general camera, some keypoints unseen.

    label_betas: the deviation of the labels' betas; None: they are near those of the truth.
    """
    truth, source = make_people(count, seed, betas), torch.Generator().manual_seed(seed + 1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=source)

    female = torch.arange(count) % 2 == 1
    camera = torch.tensor([[FOCAL, 0.5, SIZE / 2], [0.0, 1.02 * FOCAL, SIZE / 2 + 3], [0.0, 0.0, 1.0]])
    cam_int = camera.expand(count, 3, 3).clone()
    image = camera_points(models, truth, female).float() @ camera.mT
    image = image[..., :2] / image[..., 2:] + noise * normal(count, 44, 2)
    confidence = torch.from_numpy(np.array([1.0, 0.9, 0.6, 0.0], np.float32))[
        torch.randint(0, 4, (count, 44), generator=source)
    ]
    start = BodyParameters(
        truth.angles + shake * normal(count, 46),
        (truth.betas + 0.3 * normal(count, 10)) if label_betas is None else label_betas * normal(count, 10),
        truth.transl + 0.1 * normal(count, 3),
    )
    keypoints = torch.cat((image, confidence[..., None]), 2)
    return RefinementProblem(start, female, keypoints, cam_int), truth


def with_anchor(problem: RefinementProblem, truth: BodyParameters) -> RefinementProblem:
    """The same people, held by other parameters than those they start from."""
    return replace(problem, anchor=truth)
