"""A stage's objective, written naively: for the first-order baseline, and for tests to compare kernels with.

    E(x) = sum_v om |skin_v - target_v|^2 + limit_weight |excess|^2 + beta_weight |betas|^2
           + joint_weight sum_j |joint_j - target_j|^2 + |couplings q|^2
           + turn_weight |G - I|^2 / 2 + move_weight |t|^2

in m^2, per person. x are the active DoFs, then the betas if they are free. G is the rotation of the pelvis. t is the
translation: zero, or the best one if it is free, as the objective is quadratic in it. `SkelModel` computes and torch
differentiates it, in the float type of the model. People are independent.

Kernels expand the vertex errors about the skin of the last vertex pass. `NaiveObjective.hold` gives that objective:
the rest skin v keeps the pose correctives of the pass. A change of betas moves a vertex by its shape vectors, rotated
as at the pass, and by what it changes of the transforms A:

    skin_v = A(q, betas) [v; 1] + beta_slopes (betas - betas of the pass).

A joint with a target is a point like a vertex: A(q, betas) [its rest position at the pass; 1].
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
from skelfit.fitting.terms.joint_limits import JointLimitTerm
from skelfit.fitting.terms.objective_term import BodyState
from skelfit.fitting.terms.root_prior import RootTurnTerm

if TYPE_CHECKING:
    from skelfit.fitting.terms.shoulder_targets import JointTargets

_DIRECTIONS = 16  # of a derivative at a time: as many skins are in memory


@dataclass(frozen=True)
class Evaluation:
    """An objective of B people at variables (B, n)."""

    value: Tensor  # (B,)
    gradient: Tensor  # (B, n)
    matrix: Tensor  # (B, n, n) Gauss-Newton's model of the Hessian, positive semi-definite
    hessian: Tensor | None = None  # (B, n, n); None: not asked for


@dataclass(frozen=True)
class HeldSkin:
    """What a vertex pass computes once and the steps after it keep."""

    rest: Tensor  # (B, V, 3) m, rest skin, pose correctives included
    joints: Tensor  # (B, 24, 3) m, at rest
    betas: Tensor  # (B, K)
    beta_slopes: Tensor  # (B, V, 3, K) m, by which each beta moves a vertex while the joints stay


@dataclass(frozen=True)
class NaiveObjective:
    """A stage's objective of B people; `start` has the variables at q and betas."""

    model: SkelModel  # of the stage's V vertices alone, as `SkelModel.with_vertices` gives it
    om: Tensor  # (V,) weights of the vertices; they sum to 1
    target: Tensor  # (B, V, 3) m
    dofs: Tensor  # (n,) int64, the active DoFs
    q: Tensor  # (B, 46) rad; the other DoFs stay here
    betas: Tensor  # (B, K); they stay here if they are not free
    limits: Tensor  # (46, 2) rad
    limit_weight: float  # m^2 / rad^2 beyond a limit
    beta_weight: float | None = None  # m^2 per squared beta; None: betas are not free
    joints: JointTargets | None = None
    held: HeldSkin | None = None  # None: the skin with its correctives follows pose and betas
    couplings: Tensor | None = None  # (K, 46) m per rad, forms of active DoFs only
    free_translation: bool = False  # take the best translation of each person
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
            beta_slopes=blended[..., :3] @ model.shapedirs,
        )
        return replace(self, held=held)

    def take(self, rows: Tensor) -> NaiveObjective:
        """The same objective of some people; rows (k,) int64."""
        held, joints = self.held, self.joints
        if held is not None:
            held = HeldSkin(**{name: x[rows] for name, x in vars(held).items()})
        if joints is not None:
            joints = replace(joints, targets=joints.targets[rows])
        people = {name: getattr(self, name)[rows] for name in ("target", "q", "betas")}
        return replace(self, **people, held=held, joints=joints)

    def parts(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Angles (B, 46) and betas (B, K) at variables x."""
        n = len(self.dofs)
        return self.q.index_copy(1, self.dofs, x[:, :n]), self.betas if self.beta_weight is None else x[:, n:]

    def offsets(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Offsets (B, P, 3) m of vertices and joints from their targets, the weights (P,) of their squares, and the
        translations (B, 3) m that they include."""
        q, betas = self.parts(x)
        if self.held is None:
            posed = self.model.forward(self.model.shape(betas), q)
            skin, positions = posed.vertices, posed.joints
        else:
            skin, positions = _held_skin(self.model, self.held, q, betas)
        off, weights = skin - self.target, self.om
        if self.joints is not None:
            away = positions[:, list(self.joints.joints)] - self.joints.targets
            off = torch.cat((off, away), 1)
            weights = torch.cat((weights, weights.new_full((away.shape[1],), self.joints.weight)))
        moved = off.new_zeros(len(off), 3)
        if self.free_translation:
            moved = -(weights[:, None] * off).sum(1) / (weights.sum() + self.move_weight)
        return off + moved[:, None], weights, moved

    def translation(self, x: Tensor) -> Tensor:
        """The translations (B, 3) m: the best ones if they are free, else zero."""
        return self.offsets(x)[2]

    def residuals(self, x: Tensor) -> Tensor:
        """(B, m) m; the sum of their squares is the objective."""
        off, weights, moved = self.offsets(x)
        q, betas = self.parts(x)
        ball = ball_joints((0,), x.device, x.dtype)
        turn = angles_to_rotation(ball, q[:, None, list(ROOT_DOFS)])[:, 0]
        state = BodyState(q, betas, off, turn, moved)
        limits, root = JointLimitTerm(self.limit_weight, self.limits), RootTurnTerm(self.turn_weight / 2)
        parts = [
            (weights.sqrt()[:, None] * off).flatten(1),
            limits.weight**0.5 * limits.residuals(state)[:, self.dofs],
            root.weight**0.5 * root.residuals(state),
            self.move_weight**0.5 * moved,
        ]
        if self.couplings is not None:
            parts.append(q[:, self.dofs] @ self.couplings[:, self.dofs].mT)
        if self.beta_weight is not None:
            parts.append(self.beta_weight**0.5 * betas)
        return torch.cat(parts, 1)

    def value(self, x: Tensor) -> Tensor:
        """The objective (B,) m^2; differentiable."""
        return self.residuals(x).square().sum(1)

    def gradient(self, x: Tensor) -> Tensor:
        """Its gradient (B, n)."""
        gradient: Tensor = torch.func.grad(lambda x: self.value(x).sum())(x)
        return gradient

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
        # One direction for all people: they are independent, so a row is a person's own derivative.
        slope: Tensor = torch.func.jvp(function, (x,), (direction.expand_as(x),))[1]
        return slope

    directions = torch.eye(x.shape[1], dtype=x.dtype, device=x.device)
    slopes: Tensor = torch.func.vmap(along, out_dims=-1, chunk_size=_DIRECTIONS)(directions)
    return slopes


def _held_skin(model: SkelModel, held: HeldSkin, q: Tensor, betas: Tensor) -> tuple[Tensor, Tensor]:
    """Skin (B, V, 3) and joints (B, 24, 3) at angles q (B, 46), m."""
    frames = model.frames(betas)
    transforms = skinning_transforms(model.joints(frames, q), frames.joints)
    reshaped = (held.beta_slopes @ (betas - held.betas)[:, None, :, None])[..., 0]
    return _moved(_blended(model, transforms), held.rest) + reshaped, _moved(transforms, held.joints)


def _moved(transforms: Tensor, points: Tensor) -> Tensor:
    """Points (B, P, 3) m, each by its transform (B, P, 3, 4)."""
    return (transforms[..., :3] @ points[..., None])[..., 0] + transforms[..., 3]


def _blended(model: SkelModel, transforms: Tensor) -> Tensor:
    """The transform of each vertex (B, V, 3, 4), from the joints' (B, 24, 3, 4)."""
    return torch.einsum("vj,bjrc->bvrc", model.weights, transforms)
