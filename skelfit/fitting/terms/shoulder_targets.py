"""Anatomical targets for the shoulders: where the target mesh has SKEL's scapula and humerus joints.

The skin around a shoulder hardly tells how scapula and humerus share a motion. A fit to vertices alone can collapse the
shoulder. So the two joints are also located on the target mesh and drawn there. A located joint is an affine
combination of the vertices near it, learned from SKEL itself: ridge regression over random people in random poses
within the limits. The ridge keeps coefficients small, and the answer steady on a mesh that SKEL cannot make.

A joint's position is linear in its skinning transform, p = A_k [J_k; 1], so weight |p - t|^2 just adds to the moments'
M, D0 and E0.
"""

from __future__ import annotations

from collections.abc import Container
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import LocatorConfig
from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm

SHOULDERS: tuple[int, ...] = (14, 15, 19, 20)  # scapula and humerus, right and left
_BLOCK = 50  # random people at a time
_DEFAULTS = LocatorConfig()


@dataclass(frozen=True)
class JointTargets(ObjectiveTerm):
    """Draws some joints of B people to targets."""

    joints: tuple[int, ...]  # (K,) SKEL joints
    targets: Tensor  # (B, K, 3) m
    weight: float  # m^2 per m^2
    rule: ClassVar[str | None] = "joint_weight"

    def residuals(self, state: BodyState) -> Tensor:
        """The joints' offsets from their targets, (B, 3 K) m."""
        return (state.joints[:, list(self.joints)] - self.targets).flatten(1)


@dataclass(frozen=True)
class JointLocator:
    """Locates joints on a mesh; made by `make_locator`."""

    joints: tuple[int, ...]  # (K,) SKEL joints
    vertices: Tensor  # (n,) int64, all that have a weight for some joint
    weights: Tensor  # (K, n), each row sums to 1

    def __call__(self, meshes: Tensor) -> Tensor:
        """Joints (B, K, 3) m of meshes (B, V, 3) m."""
        return self.weights @ meshes[:, self.vertices]

    def targets(self, located: Tensor, moved: Container[int], weight: float) -> JointTargets:
        """The term of the joints that a stage moves; located (B, K, 3) m."""
        rows = [k for k, joint in enumerate(self.joints) if joint in moved]
        return JointTargets(tuple(self.joints[k] for k in rows), located[:, rows], weight)


@torch.no_grad()
def make_locator(
    model: SkelModel,
    limits: Tensor,
    joints: tuple[int, ...] = SHOULDERS,
    config: LocatorConfig = _DEFAULTS,
) -> JointLocator:
    """Learn where joints are from the skin around them; limits (46, 2) rad."""
    skins, positions = _random_people(model, limits, list(joints), config)
    nearest = [
        (model.v_template - model.j_template[j]).norm(dim=-1).argsort()[: config.vertices] for j in joints
    ]
    vertices = torch.cat(nearest).unique()
    weights = torch.zeros(len(joints), len(vertices), dtype=torch.float64, device=vertices.device)
    for row, near, position in zip(weights, nearest, positions.unbind(1), strict=True):
        # About the mean of the vertices, so that weights sum to 1 and the joint moves along with the mesh.
        points = skins[:, near]
        mean = points.mean(1, keepdim=True)
        table = (points - mean).transpose(1, 2).flatten(0, 1)
        target = (position - mean[:, 0]).flatten()
        ridge = config.ridge * torch.eye(len(near), dtype=table.dtype, device=table.device)
        solution = torch.linalg.solve(table.mT @ table / len(skins) + ridge, table.mT @ target / len(skins))
        row[torch.searchsorted(vertices, near)] = solution - solution.mean() + 1 / len(near)
    return JointLocator(joints, vertices, weights.to(model.v_template.dtype))


def _random_people(
    model: SkelModel, limits: Tensor, joints: list[int], config: LocatorConfig
) -> tuple[Tensor, Tensor]:
    """Skins (N, V, 3) and joints (N, K, 3) of SKEL people in random poses, m, float64; the same at each call."""
    source = torch.Generator().manual_seed(config.seed)
    low, high = limits.unbind(-1)
    skins, positions = [], []
    for start in range(0, config.people, _BLOCK):
        count = min(_BLOCK, config.people - start)
        share = torch.rand(count, NUM_DOFS, generator=source).to(low)
        betas = torch.randn(count, model.num_betas, generator=source).to(low)
        q = (low + (high - low) * share).index_fill(1, torch.tensor(ROOT_DOFS, device=low.device), 0.0)
        posed = model.forward(model.shape(betas), q)
        skins.append(posed.vertices.double())
        positions.append(posed.joints[:, joints].double())
    return torch.cat(skins), torch.cat(positions)
