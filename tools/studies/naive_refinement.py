"""The objective of a refinement, written naively, and plain steps on it: what kernels and the first-order twin share.

    E(x) = reprojection^2 sum_k c_k^2 rho(|image_k - given_k| / unit) + depth^2 (z - z_start)^2 + shape^2 |betas|^2
           + angles^2 sum_i (exp(2 (low_i - q_i)) + exp(2 (q_i - high_i))) + limit_weight |excess|^2
           + spine_weight |couplings q|^2 + focal.weight p^2
           + anchor (pose sum_j (3 - tr(L_j^T R_j)) + root (3 - tr(L_0^T R_0)) + skin mean_k |y_k - l_k|^2
                     + betas |betas - betas_l|^2 + move |t - t_l|^2),

    rho(d) = sigma^2 d^2 / (sigma^2 + d^2),

in squared units, per person, within |betas| <= beta_bound. x are the translation t (3), the angles q (46) and the
betas (10). Image points are those of a pinhole with the intrinsics of the image. The unit is the person's shoulder-hip
length at the depth of the start, in px, so that it is never foreshortened. c_k are confidences, 0 for keypoints that
do not count; a keypoint that is nearer than `nearest` to the camera costs sigma^2. R_j is the rotation of joint j in
its own frame, y_k keypoint k of the skin without the translation; L_j, l_k, betas_l, t_l are the anchor's. 44
keypoints stand for the skin: they lie all over it, and what they do not see, turns about a limb's own axis, is what
`pose` holds. People whose focal length is not known have one variable more, p: they are seen with e^p times that of the
camera, from e^p times the depth of t.

The matrix is Gauss-Newton's of the residuals whose weights, rho'(d^2), are held; that of exp is the second derivative.
`SkelKeypoints` computes and torch differentiates, in the float type of the body. People are independent.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.ball_joints import BALL_JOINTS, ball_joints
from skelfit.bodies.dofs import NUM_DOFS, dof_limits, dofs_of_joint
from skelfit.bodies.keypoint_names import HIP_POINTS, SHOULDER_POINTS, TORSO_POINTS, UNFITTED_POINTS
from skelfit.bodies.kinematics import dof_rotations
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.baseline.naive_step import damped_step, promised_decrease
from skelfit.fitting.refinement.refinement_problem import RefinementProblem, beta_bound
from skelfit.fitting.terms.spine_coupling import spine_couplings
from tools.studies.ball_steps import apply_step, ball_step

if TYPE_CHECKING:
    from skelfit.config.refine_settings import RefineConfig, RefinePhase

CAMERA_VARIABLES = 6  # translation and the root's orientation come first
_ANGLES = slice(3, 3 + NUM_DOFS)
_BETAS = slice(3 + NUM_DOFS, 3 + NUM_DOFS + 10)
_DIRECTIONS = 60


@dataclass(frozen=True)
class NaiveRefinement:
    """The objective of B people in one phase."""

    body: SkelKeypoints
    config: RefineConfig
    phase: RefinePhase
    problem: RefinementProblem  # of people who can be refined, in the body's float type
    unit: Tensor  # (B,) px
    start_depth: Tensor  # (B,) m
    zooms: bool = False  # whether the focal length is a variable, the last one

    @property
    def count(self) -> int:
        """The number of variables that the phase moves, the first ones."""
        return CAMERA_VARIABLES if self.phase.moves == "camera" else _BETAS.stop + self.zooms

    def of(self, phase: RefinePhase) -> NaiveRefinement:
        """The objective of another phase."""
        return replace(self, phase=phase)

    def take(self, rows: Tensor) -> NaiveRefinement:
        """That of some people; rows (K,) int64."""
        return replace(
            self, problem=self.problem.take(rows), unit=self.unit[rows], start_depth=self.start_depth[rows]
        )

    def residuals(self, x: Tensor, held: Tensor | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Residuals (B, m) with the weights of `held`, None: of x (B, 59 or 60); then what keypoints cost beyond their
        squares (B,), and the exponentials of limits (B, 92)."""
        phase, config, problem = self.phase, self.config, self.problem
        keypoints, rotations = self._posed(x)
        with torch.no_grad():
            share, left = self._shares(*self._image(x if held is None else held))
        distance, _ = self._image(x, keypoints)
        seen = self._confidence() * phase.reprojection
        image = (seen * share.sqrt())[..., None] * distance
        q, betas, label = x[:, _ANGLES], x[:, _BETAS], problem.anchored
        low, high = self._limits(q)
        excess = torch.relu(q - high) + torch.relu(low - q)
        exponents = torch.cat((low - q, q - high), 1)
        exponents = exponents[:, torch.isfinite(torch.cat((low, high)))]
        forms = torch.tensor(spine_couplings(config.spine), dtype=q.dtype, device=q.device)
        anchor, weights = self._anchored(), config.anchor
        turns = (rotations - anchor[1]) * 0.5**0.5
        parts = [
            image.flatten(1),
            phase.depth * (x[:, 2:3] - self.start_depth[:, None]),
            phase.shape * betas,
            config.limit_weight**0.5 * excess,
            config.spine_weight**0.5 * (q[:, None] * forms).sum(2),
            (phase.anchor * weights.root) ** 0.5 * turns[:, 0].flatten(1),
            (phase.anchor * weights.pose) ** 0.5 * turns[:, 1:].flatten(1),
            (phase.anchor * weights.skin / keypoints.shape[1]) ** 0.5 * (keypoints - anchor[0]).flatten(1),
            (phase.anchor * weights.betas) ** 0.5 * (betas - label.betas),
            (phase.anchor * weights.move) ** 0.5 * (x[:, :3] - label.transl),
            config.focal.weight**0.5 * x[:, _BETAS.stop :],
        ]
        return torch.cat(parts, 1), (seen.square() * left).sum(1), phase.angles * exponents.exp()

    def value(self, x: Tensor) -> Tensor:
        """The objective (B,); differentiable."""
        seen = (self._confidence() * self.phase.reprojection).square()
        distance, behind = self._image(x)
        square, sigma2 = distance.square().sum(-1), self.phase.sigma**2
        cost = torch.where(behind, sigma2, sigma2 * square / (sigma2 + square))
        residuals, _, exponentials = self.residuals(x)
        others = residuals[:, 2 * seen.shape[1] :]
        return (seen * cost).sum(1) + others.square().sum(1) + exponentials.square().sum(1)

    def bounded(self, x: Tensor) -> Tensor:
        """Variables (B, 59 or 60) with betas within their bound; differentiable."""
        bound = beta_bound(self.problem, self.config.max_abs_beta)[:, None]
        betas = x[:, _BETAS].clamp(-bound, bound)
        return torch.cat((x[:, : _BETAS.start], betas, x[:, _BETAS.stop :]), 1)

    def free(self, x: Tensor, state: Evaluation) -> Evaluation:
        """An evaluation at x without the betas that are at their bound, and that would leave it downhill.

        Their gradient is 0, and the matrix has their diagonal alone, so that no step moves them.
        """
        if self.count <= _BETAS.start:
            return state
        bound = beta_bound(self.problem, self.config.max_abs_beta)[:, None]
        held = torch.zeros_like(state.gradient, dtype=torch.bool)
        betas, slope = x[:, _BETAS], state.gradient[:, _BETAS]
        held[:, _BETAS] = (betas.abs() >= bound) & (betas * slope < 0)
        diagonal = torch.diag_embed(state.matrix.diagonal(dim1=-2, dim2=-1))
        crossed = held[:, None] | held[:, :, None]
        gradient = torch.where(held, 0.0, state.gradient)
        return Evaluation(state.value, gradient, torch.where(crossed, diagonal, state.matrix))

    def evaluate(self, x: Tensor) -> Evaluation:
        """Value, gradient and matrix of the variables that the phase moves."""
        n, held = self.count, x.detach()

        def of(moved: Tensor) -> Tensor:
            residuals, _, exponentials = self.residuals(torch.cat((moved, held[:, n:]), 1), held)
            return torch.cat((residuals, 2**0.5 * exponentials), 1)

        directions = torch.eye(n, dtype=x.dtype, device=x.device)

        def along(direction: Tensor) -> Tensor:
            return torch.func.jvp(of, (held[:, :n],), (direction.expand(len(x), n),))[1]

        jacobian = torch.func.vmap(along, out_dims=-1, chunk_size=_DIRECTIONS)(directions)
        residuals, _, exponentials = self.residuals(held, held)
        gradient = 2 * (jacobian.mT @ torch.cat((residuals, 0.5**0.5 * exponentials), 1)[..., None])[..., 0]
        return Evaluation(self.value(held), gradient, 2 * jacobian.mT @ jacobian)

    def pixels(self, x: Tensor) -> Tensor:
        """How far the keypoints (B, 44) are from those given, px."""
        return self._image(x)[0].norm(dim=-1) * self.unit[:, None]

    def _posed(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Keypoints without translation, and the rotations of the joints in their own frames."""
        q, rig = x[:, _ANGLES], self.body.model.rig
        turns = dof_rotations(rig, q)
        first, second, third = (turns[:, rig.slots[:, k]] for k in range(3))
        return self.body(q, x[:, _BETAS]), third @ second @ first

    def _anchored(self) -> tuple[Tensor, Tensor]:
        label = self.problem.anchored
        with torch.no_grad():
            return self._posed(torch.cat((label.transl, label.angles, label.betas), 1))

    def _image(self, x: Tensor, keypoints: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Offsets in the image (B, 44, 2) in units, and which keypoints (B, 44) are behind the camera: offset 0."""
        keypoints = self._posed(x)[0] if keypoints is None else keypoints
        zoom = x[:, _BETAS.stop :].sum(1).exp()[:, None]
        points = torch.cat(
            (keypoints[..., :2] + x[:, None, :2], keypoints[..., 2:] + (zoom * x[:, 2:3])[..., None]), 2
        )
        depth = points[..., 2]
        behind = depth < self.config.nearest
        flat = points / torch.where(behind, 1.0, depth)[..., None]
        camera = self.problem.cam_int[:, :2]
        image = flat[..., :2] @ camera[..., :2].mT * zoom[..., None] + camera[:, None, :, 2]
        given = torch.nan_to_num(self.problem.keypoints2d[..., :2])
        off = (image - given) / self.unit[:, None, None]
        return torch.where((behind | (self._confidence() == 0))[..., None], 0.0, off), behind

    def _shares(self, distance: Tensor, behind: Tensor) -> tuple[Tensor, Tensor]:
        """rho'(d^2) (B, 44) of offsets, 0 behind the camera; and what rho is beyond that times d^2."""
        sigma2 = self.phase.sigma**2
        square = distance.square().sum(-1)
        share = torch.where(behind, 0.0, (sigma2 / (sigma2 + square)).square())
        cost = torch.where(behind, sigma2, sigma2 * square / (sigma2 + square))
        return share, cost - share * square

    def _confidence(self) -> Tensor:
        """(B, 44), 0 for keypoints that the phase does not fit."""
        confidence = self.problem.keypoints2d[..., 2].clamp(0.0, 1.0)
        counts = torch.ones(confidence.shape[-1], dtype=torch.bool, device=confidence.device)
        counts[list(UNFITTED_POINTS)] = False
        if self.phase.points == "torso":
            counts[:] = False
            counts[list(TORSO_POINTS)] = True
        return torch.where(counts & (confidence >= self.config.keypoints.min_confidence), confidence, 0.0)

    def _limits(self, q: Tensor) -> tuple[Tensor, Tensor]:
        low, high = torch.tensor(dof_limits(), dtype=q.dtype, device=q.device).unbind(-1)
        return low, high


@dataclass(frozen=True)
class NaiveSequence:
    """The objective of B frames of one person as one problem: their own, and the ties between consecutive frames.

    Each tie adds weight / dt^2 (sum_j |D_g,j - D_f,j|^2 / 2 + move |d_g - d_f|^2), with D the rotations of the joints
    seen from the anchor's, and d the translations away from it.
    """

    goal: NaiveRefinement
    weight: Tensor  # (B - 1,) over dt^2, of each tie

    def value(self, x: Tensor) -> Tensor:
        """The objective of all frames (B, 59); differentiable."""
        goal = self.goal
        _, rotations = goal._posed(x)
        deviation = goal._anchored()[1].mT @ rotations
        shift = x[:, :3] - goal.problem.anchored.transl
        turns = 0.5 * (deviation[1:] - deviation[:-1]).square().flatten(1).sum(1)
        moves = goal.config.ties.move * (shift[1:] - shift[:-1]).square().sum(1)
        return goal.value(x).sum() + (self.weight * (turns + moves)).sum()


def naive_refinement(
    body: SkelKeypoints, config: RefineConfig, problem: RefinementProblem
) -> NaiveRefinement:
    """The objective of the last phase, of people who can be refined; tensors are of the body's float type."""
    start = problem.start
    keypoints = body(start.angles, start.betas)
    shoulders, hips = (keypoints[:, list(pair)].mean(1) for pair in (SHOULDER_POINTS, HIP_POINTS))
    length = (shoulders - hips).norm(dim=-1)
    unit = problem.cam_int[:, 0, 0] * length / start.transl[:, 2].clamp(min=config.nearest)
    return NaiveRefinement(body, config, config.phases[-1], problem, unit, start.transl[:, 2])


def moved(x: Tensor, step: Tensor, config: RefineConfig) -> Tensor:
    """Variables after a step (B, n) of the first n, bounded: ball joints follow rotations, others add it."""
    step = torch.nn.functional.pad(step, (0, x.shape[1] - step.shape[1]))
    ball = ball_joints(BALL_JOINTS, x.device, x.dtype)
    index = torch.tensor(np.array([dofs_of_joint(j) for j in BALL_JOINTS]), device=x.device)
    others = [i for i in range(NUM_DOFS) if i not in index]
    q, turn = x[:, _ANGLES], step[:, _ANGLES]
    rotation = ball_step(ball, q[:, index], turn[:, index])
    longest = torch.cat((rotation.rotvec.norm(dim=-1), turn[:, others].abs()), 1).amax(1)
    share = config.max_angle_step / longest.clamp(min=config.max_angle_step)
    angles = q + share[:, None] * turn
    turned = turn[:, index].abs().amax(2, keepdim=True) > 0
    balls = torch.where(turned, apply_step(ball, rotation, share), q[:, index])
    angles = angles.index_copy(1, index.flatten(), balls.flatten(1))
    largest = math.log(config.focal.range)
    zoom = (x[:, _BETAS.stop :] + step[:, _BETAS.stop :]).clamp(-largest, largest)
    return torch.cat(
        (
            x[:, :3] + _bounded(step[:, :3], config.max_move_step),
            angles,
            x[:, _BETAS] + _bounded(step[:, _BETAS], config.solver.max_beta_step),
            zoom,
        ),
        1,
    )


def _bounded(step: Tensor, largest: float) -> Tensor:
    return step * (largest / step.abs().amax(-1, keepdim=True).clamp(min=largest))


def naive_steps(goal: NaiveRefinement, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Damped steps of a phase from variables x: variables, objective (B,) and the decrease that one more promises."""
    config, solver = goal.config, goal.config.solver
    state = goal.free(x, goal.evaluate(x))
    damping = torch.full_like(state.value, solver.damping)
    for _ in range(goal.phase.steps):
        step, predicted = damped_step(state, damping)
        resting = (predicted <= config.tolerance * state.value) & (damping <= solver.damping_at_rest)
        if bool(resting.all()):
            break
        trial_x = goal.bounded(moved(x, step, config))
        trial = goal.free(trial_x, goal.evaluate(trial_x))
        noise = solver.noise * torch.finfo(x.dtype).eps * state.value
        better = (trial.value <= state.value + noise) & ~resting
        x = torch.where(better[:, None], trial_x, x)
        state = _chosen(better, trial, state)
        scaled = damping * torch.where(better, solver.damping_down, solver.damping_up)
        damping = torch.where(resting, damping, scaled.clamp(solver.damping_min, solver.damping_max))
    return x, state.value, promised_decrease(state, solver)


def _chosen(better: Tensor, trial: Evaluation, state: Evaluation) -> Evaluation:
    return Evaluation(
        *(
            torch.where(better.view(-1, *(1,) * (a.dim() - 1)), a, b)
            for a, b in (
                (trial.value, state.value),
                (trial.gradient, state.gradient),
                (trial.matrix, state.matrix),
            )
        )
    )
