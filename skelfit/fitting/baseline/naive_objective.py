"""A stage's objective, written down naively: for the first-order baseline, and for tests to compare kernels with.

    E(x) = sum_v om |skin_v - target_v|^2 + limit_weight |excess|^2 + beta_weight |betas|^2
           + joint_weight sum_j |joint_j - place_j|^2 + |couplings q|^2
           + turn_weight |G - I|^2 / 2 + move_weight |t|^2

in m^2, per person; x are the active DoFs, and the betas after them where they are free. G is how far the pelvis is
turned, t how far the person is moved: zero, or where it is free the one that is best, as the objective is quadratic in
it. Everything is computed by
`SkelModel` and differentiated by torch, in the float type of the model; people have nothing in common.

Kernels expand the vertex errors about the skin of the last vertex pass. `NaiveObjective.hold` gives that objective:
the rest skin v keeps the pose correctives of the pass. A change of betas moves a vertex by its shape vectors, rotated
as at the pass, and by what it changes of the transforms A:

    skin_v = A(q, betas) [v; 1] + turned (betas - betas of the pass).

A joint that is drawn to a place is a point like a vertex: A(q, betas) [its rest place at the pass; 1].
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints
from skelfit.bodies.dofs import ROOT_DOFS
from skelfit.bodies.skel import SkelModel, skinning_transforms

if TYPE_CHECKING:
    from skelfit.fitting.terms.shoulder_targets import JointTargets

_DIRECTIONS = 16  # of the derivative, at a time: that many skins are in memory


@dataclass(frozen=True)
class Evaluation:
    """An objective of B people at variables (B, n)."""

    value: Tensor  # (B,)
    gradient: Tensor  # (B, n)
    matrix: Tensor  # (B, n, n) Gauss-Newton's model of the Hessian, positive semi-definite
    hessian: Tensor | None = None  # (B, n, n); None: not asked for


@dataclass(frozen=True)
class HeldSkin:
    """What a vertex pass knows and holds until the next."""

    rest: Tensor  # (B, V, 3) m, rest skin, pose correctives included
    joints: Tensor  # (B, 24, 3) m, at rest
    betas: Tensor  # (B, K)
    turned: Tensor  # (B, V, 3, K) m, what each beta moves a vertex by, the joints held


@dataclass(frozen=True)
class NaiveObjective:
    """A stage's objective of B people; `start` are the variables at q and betas."""

    model: SkelModel  # of the stage's V vertices alone, as `SkelModel.with_vertices` gives it
    om: Tensor  # (V,) weights of the vertices; they sum to 1
    target: Tensor  # (B, V, 3) m
    dofs: Tensor  # (n,) int64, the active DoFs
    q: Tensor  # (B, 46) rad; the other DoFs stay here
    betas: Tensor  # (B, K); they stay here unless they are free
    limits: Tensor  # (46, 2) rad
    limit_weight: float  # m^2 / rad^2 beyond a limit
    beta_weight: float | None = None  # m^2 per squared beta; None: betas are not free
    joints: JointTargets | None = None
    held: HeldSkin | None = None  # None: correctives follow the pose, and the skin the betas
    couplings: Tensor | None = None  # (K, 46) m per rad, forms that tie active DoFs alone
    free_translation: bool = False  # the minimum over a translation of each person
    turn_weight: float = 0.0  # m^2 per rad^2 that the root turns
    move_weight: float = 0.0  # m^2 per m^2 that this translation moves it

    @property
    def start(self) -> Tensor:
        """The variables (B, n), or (B, n + K) with betas, at q and betas."""
        x = self.q[:, self.dofs]
        return x if self.beta_weight is None else torch.cat((x, self.betas), 1)

    def hold(self) -> NaiveObjective:
        """The objective that a vertex pass at q and betas gives."""
        model, shape = self.model, self.model.shape(self.betas)
        posed = model.joints(shape.frames, self.q)
        blended = _blended(model, skinning_transforms(posed, shape.frames.joints))
        held = HeldSkin(
            rest=shape.v_rest + model.correctives(posed.local_rot),
            joints=shape.frames.joints,
            betas=self.betas,
            turned=blended[..., :3] @ model.shapedirs,
        )
        return replace(self, held=held)

    def take(self, rows: Tensor) -> NaiveObjective:
        """The same objective of some people; rows (k,) int64."""
        held, joints = self.held, self.joints
        if held is not None:
            held = HeldSkin(**{name: x[rows] for name, x in vars(held).items()})
        if joints is not None:
            joints = replace(joints, place=joints.place[rows])
        people = {name: getattr(self, name)[rows] for name in ("target", "q", "betas")}
        return replace(self, **people, held=held, joints=joints)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Angles (B, 46) and betas (B, K) at variables x."""
        n = len(self.dofs)
        return self.q.index_copy(1, self.dofs, x[:, :n]), self.betas if self.beta_weight is None else x[:, n:]

    def offsets(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Where vertices, and joints with a goal, are off by (B, P, 3) m, the weights (P,) of their squares, and how
        far people are moved for it, (B, 3) m."""
        q, betas = self.parts(x)
        if self.held is None:
            found = self.model.forward(self.model.shape(betas), q)
            skin, positions = found.vertices, found.joints
        else:
            skin, positions = _held_skin(self.model, self.held, q, betas)
        off, weights = skin - self.target, self.om
        if self.joints is not None:
            away = positions[:, list(self.joints.joints)] - self.joints.place
            off = torch.cat((off, away), 1)
            weights = torch.cat((weights, weights.new_full((away.shape[1],), self.joints.weight)))
        moved = off.new_zeros(len(off), 3)
        if self.free_translation:
            moved = -(weights[:, None] * off).sum(1) / (weights.sum() + self.move_weight)
        return off + moved[:, None], weights, moved

    def translation(self, x: Tensor) -> Tensor:
        """How far people are moved, (B, 3) m: where it is free, as far as makes the objective least."""
        return self.offsets(x)[2]

    def residuals(self, x: Tensor) -> Tensor:
        """(B, m) m, whose squares sum up to the objective."""
        off, weights, moved = self.offsets(x)
        low, high = self.limits[self.dofs].unbind(-1)
        angles, betas = x[:, : len(self.dofs)], x[:, len(self.dofs) :]
        excess = torch.relu(angles - high) + torch.relu(low - angles)
        found = [(weights.sqrt()[:, None] * off).flatten(1), self.limit_weight**0.5 * excess]
        found += [(self.turn_weight / 2) ** 0.5 * self._turn(x), self.move_weight**0.5 * moved]
        if self.couplings is not None:
            found.append(angles @ self.couplings[:, self.dofs].mT)
        return torch.cat(found if self.beta_weight is None else [*found, self.beta_weight**0.5 * betas], 1)

    def _turn(self, x: Tensor) -> Tensor:
        """How far the root's rotation is from the label's, entry by entry, (B, 9)."""
        angles = self.parts(x)[0][:, None, list(ROOT_DOFS)]
        turned = angles_to_rotation(ball_joints((0,), x.device, x.dtype), angles)[:, 0]
        return (turned - torch.eye(3, dtype=x.dtype, device=x.device)).flatten(1)

    def value(self, x: Tensor) -> Tensor:
        """The objective (B,) m^2; differentiable."""
        return self.residuals(x).square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """Its gradient (B, n)."""
        found: Tensor = torch.func.grad(lambda x: self.value(x).sum())(x)
        return found

    def matrix(self, x: Tensor) -> Tensor:
        """Twice J^T J (B, n, n) of the residuals' Jacobian J: Gauss-Newton's model of the Hessian."""
        jacobian = _slopes(self.residuals, x)
        return 2 * jacobian.mT @ jacobian

    def hessian(self, x: Tensor) -> Tensor:
        """Second derivatives (B, n, n)."""
        return _slopes(self.gradient, x)

    def evaluate(self, x: Tensor, exact: bool = False) -> Evaluation:
        """All of it at once; exact: with the Hessian."""
        return Evaluation(self.value(x), self.gradient(x), self.matrix(x), self.hessian(x) if exact else None)


def _slopes(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Each person's derivative (B, m, n) of function(x), (B, m)."""

    def along(direction: Tensor) -> Tensor:
        # All people go the same way at once: they do not mix, so that a row is a person's own derivative.
        found: Tensor = torch.func.jvp(function, (x,), (direction.expand_as(x),))[1]
        return found

    directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    found: Tensor = torch.func.vmap(along, out_dims=-1, chunk_size=_DIRECTIONS)(directions)
    return found


def _held_skin(model: SkelModel, held: HeldSkin, q: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Skin (B, V, 3) and joints (B, 24, 3) at angles q (B, 46), m."""
    frames = model.frames(betas)
    transforms = skinning_transforms(model.joints(frames, q), frames.joints)
    reshaped = (held.turned @ (betas - held.betas)[:, None, :, None])[..., 0]
    return _moved(_blended(model, transforms), held.rest) + reshaped, _moved(transforms, held.joints)


def _moved(transforms: Tensor, points: Tensor) -> Tensor:
    """Points (B, P, 3) m, each by its transform (B, P, 3, 4)."""
    return (transforms[..., :3] @ points[..., None])[..., 0] + transforms[..., 3]


def _blended(model: SkelModel, transforms: Tensor) -> Tensor:
    """Each vertex' transform (B, V, 3, 4), from the joints' (B, 24, 3, 4)."""
    return torch.einsum("vj,bjrc->bvrc", model.weights, transforms)
