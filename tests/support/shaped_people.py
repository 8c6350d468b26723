"""People with free betas, and the moments of their skins by definition in float64."""

from __future__ import annotations

from copy import copy
from typing import Any

import numpy as np
import torch
import warp as wp
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel, skinning_transforms
from skelfit.fitting.backends.kernels import kernels_for
from skelfit.fitting.backends.variable_tables import JointTree, make_tree

PRODUCTS = ((0, 0), (0, 1), (0, 2), (1, 1), (1, 2), (2, 2), (0, 3), (1, 3), (2, 3), (3, 3))
DOUBLE = torch.float64


class ShapedPeople:
    """People of any shape and pose with another target; every `stride`-th vertex counts."""

    def __init__(self, models: ModelSet, part: str, count: int, stride: int = 20) -> None:
        generator = torch.Generator().manual_seed(0)
        self.model = SkelModel(models.skel_of("male"), dtype=DOUBLE)
        self.chosen = torch.arange(0, len(self.model.v_template), stride)
        self.betas = torch.randn(count, 10, dtype=DOUBLE, generator=generator)
        self.q = 0.5 * torch.randn(count, NUM_DOFS, dtype=DOUBLE, generator=generator)
        if part == "all":
            self.q[:, :3] = 0
        target = self.model.forward(self.model.shape(self.betas + 0.3), self.q + 0.05).vertices
        self.target = target[:, self.chosen]
        self.weights = self.model.weights[self.chosen]
        self.tree = self._tree(part)
        self.dofs, self.n = torch.tensor(self.tree.dofs), len(self.tree.dofs)
        self.free_root = part == "with_root"

    def _tree(self, part: str) -> JointTree:
        active = self.weights[:, list(make_tree(part, np.zeros((0, 2), dtype=np.int64)).joints)] > 0
        shared = (active.double().T @ active.double()).triu() > 0
        return make_tree(part, np.argwhere(shared.numpy()))

    def take(self, rows: Tensor) -> ShapedPeople:
        """The people of rows (k,) int64."""
        few = copy(self)
        few.betas, few.q, few.target = self.betas[rows], self.q[rows], self.target[rows]
        return few

    @property
    def x(self) -> Tensor:
        """(B, n + 10) the variables at the vertex pass."""
        return torch.cat((self.q[:, self.dofs], self.betas), 1)

    def pose_of(self, x: Tensor) -> Tensor:
        """(B, 46) at x."""
        return self.q.index_copy(1, self.dofs, x[:, : self.n])

    def transforms(self, x: Tensor) -> Tensor:
        """(B, 24, 3, 4) at x."""
        frames = self.model.frames(x[:, self.n :])
        return skinning_transforms(self.model.joints(frames, self.pose_of(x)), frames.joints)

    def rest(self) -> Tensor:
        """(B, V, 4) the rest skin at the pass, correctives included, and 1."""
        shape = self.model.shape(self.betas)
        rest = shape.v_rest + self.model.correctives(self.model.joints(shape.frames, self.q).local_rot)
        return torch.cat((rest, torch.ones_like(rest[..., :1])), -1)[:, self.chosen]

    def moves(self) -> Tensor:
        """(B, V, 3, 10) m per beta: motion of the skin at the pass, the joints held."""
        turned = torch.einsum("vj,bjrc->bvrc", self.weights, self.transforms(self.x)[..., :3])
        return turned @ self.model.shapedirs[self.chosen]

    def residuals(self, x: Tensor) -> Tensor:
        """(B, 3 V) m of the model that the moments are of: correctives held, shape vectors turned as at the pass."""
        blended = torch.einsum("vj,bjrc->bvrc", self.weights, self.transforms(x))
        posed = (blended @ self.rest()[..., None])[..., 0]
        moved = posed + torch.einsum("bvrk,bk->bvr", self.moves(), x[:, self.n :] - self.betas)
        off = moved - self.target
        if self.free_root:  # for the best translation
            off = off - off.mean(1, keepdim=True)
        return off.flatten(1) / len(self.chosen) ** 0.5

    def moments(self) -> dict[str, Tensor]:
        """The moments of the vertex pass, by their names in `QuadraticForm` and `BetaMoments`."""
        a, b = (list(k) for k in self.tree.pairs.T)
        h, f = self.rest(), self.moves()
        active = self.weights[:, list(self.tree.joints)] / len(self.chosen) ** 0.5
        off = (torch.einsum("vj,bjrc->bvrc", self.weights, self.transforms(self.x)) @ h[..., None])[..., 0]
        off, one = off - self.target, 1 / len(self.chosen) ** 0.5
        squares = torch.stack([h[..., i] * h[..., j] for i, j in PRODUCTS], -1)
        return {
            "start": self.transforms(self.x)[:, list(self.tree.joints)].flatten(2),
            "pairs": torch.einsum("vp,bvc->bpc", active[:, a] * active[:, b], squares),
            "d": one * torch.einsum("vj,bvr,bvc->bjrc", active, off, h).flatten(2),
            "energy": one * one * off.square().sum((1, 2)),
            "cross": one * torch.einsum("vj,bvrk,bvc->bjrck", active, f, h).flatten(2, 3),
            "products": one * one * torch.einsum("bvrk,bvrl->bkl", f, f),
            "residual": one * one * torch.einsum("bvrk,bvr->bk", f, off),
        }


def lanes_of(x: Tensor, lanes: int) -> Any:
    """(B, ...) as lane vectors (B / lanes, ...)."""
    array = np.moveaxis(x.numpy().astype(np.float32).reshape(-1, lanes, *x.shape[1:]), 1, -1)
    return wp.array(np.ascontiguousarray(array), dtype=kernels_for(lanes).lanes.V, device="cpu")


def people_of(x: Any) -> Tensor:
    """Lane vectors (G, ...) as (B, ...)."""
    array = np.moveaxis(np.array(x.numpy()), -1, 1)
    return torch.from_numpy(array.reshape(-1, *array.shape[2:])).double()
