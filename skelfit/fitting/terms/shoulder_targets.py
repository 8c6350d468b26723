"""Anatomical targets for the shoulders: where a mesh says that SKEL's scapula and humerus joints are.

The skin around a shoulder tells little about how blade and arm share a motion, so a fit to vertices alone may collapse
the shoulder. The two joints are therefore also located on the target mesh, as an affine combination of the vertices
around them, and drawn there. The combination is learned from SKEL itself, by ridge regression over random people in
random poses within the limits: small coefficients keep its answer steady on a mesh that SKEL cannot make.

A joint's position is linear in its skinning transform, p = A_k [J_k; 1], so weight |p - t|^2 just adds to the moments'
M, D0 and E0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import LocatorConfig

SHOULDERS: tuple[int, ...] = (14, 15, 19, 20)  # scapula and humerus, right and left
_BLOCK = 50  # random people at a time
_DEFAULTS = LocatorConfig()


@dataclass(frozen=True)
class JointLocator:
    """Finds joints on a mesh; made by `make_locator`."""

    joints: tuple[int, ...]  # (K,) SKEL joints
    vertices: Tensor  # (n,) int64, those that count for any of them
    weights: Tensor  # (K, n), each row sums to 1

    def __call__(self, meshes: Tensor) -> Tensor:
        """Joints (B, K, 3) m of meshes (B, V, 3) m."""
        return self.weights @ meshes[:, self.vertices]


@torch.no_grad()
def make_locator(
    model: SkelModel,
    limits: Tensor,
    joints: tuple[int, ...] = SHOULDERS,
    config: LocatorConfig = _DEFAULTS,
) -> JointLocator:
    """Learn where joints are from the skin around them; limits (46, 2) rad."""
    skins, places = _random_people(model, limits, list(joints), config)
    near = [
        (model.v_template - model.j_template[j]).norm(dim=-1).argsort()[: config.vertices] for j in joints
    ]
    vertices = torch.cat(near).unique()
    weights = torch.zeros(len(joints), len(vertices), dtype=torch.float64, device=vertices.device)
    for row, mine, place in zip(weights, near, places.unbind(1), strict=True):
        # About the mean of the vertices, so that the combination moves along with the mesh: its weights sum to 1.
        points = skins[:, mine]
        mean = points.mean(1, keepdim=True)
        table = (points - mean).transpose(1, 2).flatten(0, 1)
        goal = (place - mean[:, 0]).flatten()
        ridge = config.ridge * torch.eye(len(mine), dtype=table.dtype, device=table.device)
        found = torch.linalg.solve(table.mT @ table / len(skins) + ridge, table.mT @ goal / len(skins))
        row[torch.searchsorted(vertices, mine)] = found - found.mean() + 1 / len(mine)
    return JointLocator(joints, vertices, weights.to(model.v_template.dtype))


def _random_people(
    model: SkelModel, limits: Tensor, joints: list[int], config: LocatorConfig
) -> tuple[Tensor, Tensor]:
    """Skins (N, V, 3) and joints (N, K, 3) of SKEL people in random poses, m, float64; always the same ones."""
    source = torch.Generator().manual_seed(config.seed)
    low, high = limits.unbind(-1)
    skins, places = [], []
    for start in range(0, config.people, _BLOCK):
        count = min(_BLOCK, config.people - start)
        share = torch.rand(count, NUM_DOFS, generator=source).to(low)
        betas = torch.randn(count, model.num_betas, generator=source).to(low)
        q = (low + (high - low) * share).index_fill(1, torch.tensor(ROOT_DOFS, device=low.device), 0.0)
        found = model.forward(model.shape(betas), q)
        skins.append(found.vertices.double())
        places.append(found.joints[:, joints].double())
    return torch.cat(skins), torch.cat(places)


@dataclass(frozen=True)
class JointGoal:
    """Where some joints of people should be; adds weight |p - place|^2 for each to an objective in m^2."""

    joints: tuple[int, ...]  # (K,) SKEL joints
    place: Tensor  # (B, K, 3) m
    weight: float

    def cost(self, positions: Tensor) -> Tensor:
        """What it adds, (B,) m^2, for joints at positions (B, 24, 3) m."""
        off = positions[:, list(self.joints)] - self.place
        return self.weight * off.square().sum((1, 2))
