"""Fitting SKEL to bare meshes: vertices in SMPL's topology, without any SMPL parameters.

The start lays each body part onto the target by itself. From there, passes of moment space as for labels, but with a
free root (`free_root`), and with betas beside the pose where they are not known. People are fitted in the frame of the
start's pelvis, where its angles stay small. Who does not meet the mesh gets a second chance with the joint limits off
for some passes: near a shoulder's Euler pole the limits are a wall between two descriptions of one rotation.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.body.ball import nearest_turn
from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS, ROOT_DOFS, dof_limits, limits_middle
from skelfit.body.skel import SkelModel, skinning_transforms
from skelfit.fit.chart import joint_move
from skelfit.fit.fitter import batch_size
from skelfit.fit.free_root import best_translation, centred, free_plan
from skelfit.fit.mesh_betas import betas_from_mesh
from skelfit.fit.mesh_start import make_mesh_parts, mesh_start
from skelfit.fit.moments import People, errors, moments, side_by_side
from skelfit.fit.objective import PoseObjective, to_quadratic
from skelfit.fit.plans import Plan
from skelfit.fit.second_chance import retry_failed
from skelfit.fit.solver import levenberg_marquardt
from skelfit.fit.warm_start import root_angles

if TYPE_CHECKING:
    from skelfit.config import FitConfig

# (vertices, people) of a tile of the vertex pass: on a CPU it has to stay in the cache of one core.
_CPU_TILE, _GPU_TILE = (128, 128), (1024, 4096)
_COARSE_STRIDE = 8
# Solver steps of each pass. The coarse passes come near, the fine ones, with all vertices, finish.
_COARSE_STEPS, _FINE_STEPS = (8, 8, 8), (4, 4)
_FREE_STEPS = (10, 10)  # a second chance's coarse passes, joint limits off
_SHAPE_PASSES, _SHAPE_STEPS = 2, 4  # coarse passes more where betas are sought too
_BETA_STRIDE = 16  # betas are read off every 16th vertex
_PERTURBATION = 0.3  # rad, of the last chance's start
# Converged: the next step would gain less than 0.1 % of the objective, or move the skin by less than 10 um (RMS).
_RELATIVE_GAIN, _ABSOLUTE_GAIN = 1e-3, 1e-10


@dataclass(frozen=True)
class MeshFit:
    """SKEL parameters of N meshes and how well they fit; CPU tensors, a row per mesh."""

    poses: Tensor  # (N, 46) rad
    betas: Tensor  # (N, 10)
    trans: Tensor  # (N, 3) m
    converged: Tensor  # (N,) bool
    finite: Tensor  # (N,) bool; False: the other fields of the row mean nothing
    pve_mm: Tensor  # (N,) mean vertex error, all vertices
    max_vertex_mm: Tensor  # (N,)
    joints: Tensor  # (N, 24, 3) m
    retries: Tensor  # (N,) int64, second chances taken


@dataclass(frozen=True)
class _Pass:
    plan: Plan
    steps: int
    limit_weight: float


class MeshFitter:
    """Fits SKEL of one gender to meshes, on the model's device."""

    def __init__(
        self, model: SkelModel, config: FitConfig, retry_above_mm: float = 0.1, beta_weight: float = 0.0
    ) -> None:
        """config gives the batch, the limits' weight, the step bound and the weight of betas; its stages play no part.

        A mesh missed by more than retry_above_mm (RMS) gets a second chance: 0.1 suits meshes that SKEL can make,
        others should give what they expect of a good fit, as each chance costs as much as the fit itself.
        """
        self.model, self.config = model, config
        self.retry_above_mm, self.beta_weight = retry_above_mm, beta_weight
        device, dtype = model.v_template.device, model.v_template.dtype
        tile = _CPU_TILE if device.type == "cpu" else _GPU_TILE
        self.coarse = free_plan(model, _COARSE_STRIDE, tile)
        self.fine = free_plan(model, 1, tile)
        self.parts = make_mesh_parts(model)
        self.some = torch.arange(0, len(model.v_template), _BETA_STRIDE, device=device)
        self.dof_limits = limits = dof_limits(config.limits)
        self.limits = torch.tensor(limits, device=device, dtype=dtype)
        self.middle = torch.tensor(limits_middle(limits), device=device, dtype=dtype)
        self.move = joint_move(list(range(NUM_JOINTS)), list(range(NUM_DOFS)), device, dtype, limits)
        noise = torch.randn(NUM_DOFS, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self.noise = (_PERTURBATION * noise).to(
            device, dtype
        )  # the same for everybody: nothing couples two people

    def fit(self, target: Tensor, betas: Tensor | None = None) -> MeshFit:
        """Fit N meshes: target (N, V, 3) m, betas (N, 10) SKEL's, or None to seek them too.

        A mesh that is not finite gets finite = False. Raises ValueError for a wrong shape.
        """
        vertices, count = len(self.model.v_template), self.model.num_betas
        if target.ndim != 3 or target.shape[1:] != (vertices, 3):
            raise ValueError(f"target: expected shape (N, {vertices}, 3), found {tuple(target.shape)}")
        if betas is not None and betas.shape != (len(target), count):
            raise ValueError(f"betas: expected shape ({len(target)}, {count}), found {tuple(betas.shape)}")
        if len(target) == 0:  # the shapes of one mesh's result, without the mesh
            one = self.fit(self.model.v_template[None], self.model.v_template.new_zeros(1, count))
            return MeshFit(**{f.name: getattr(one, f.name)[:0] for f in fields(MeshFit)})
        parts = []
        size = batch_size(self.config, self.limits.device)
        for start in range(0, len(target), size):
            rows = slice(start, start + size)
            few = None if betas is None else betas[rows].to(self.limits)
            parts.append(self._fit_batch(target[rows].to(self.limits), few))
        return MeshFit(
            **{f.name: torch.cat([getattr(p, f.name) for p in parts]).cpu() for f in fields(MeshFit)}
        )

    @torch.no_grad()
    def _fit_batch(self, target: Tensor, betas: Tensor | None) -> MeshFit:
        model = self.model
        finite = target.isfinite().flatten(1).all(1)
        seek = betas is None
        if betas is None:
            betas = target.new_zeros(len(target), model.num_betas)
        finite &= betas.isfinite().all(1)
        # A decomposition of one matrix that is not finite fails for the whole batch: such a mesh is replaced.
        target = torch.where(finite[:, None, None], target, model.v_template)
        betas = torch.where(finite[:, None], betas, torch.zeros_like(betas))

        start = mesh_start(model, target, betas, self.parts, self.dof_limits)
        frames = model.frames(betas)
        root, pivot = model.joints(frames, start.q).rot[:, 0], frames.joints[:, 0]
        still = (target - (pivot + start.trans)[:, None]) @ root + pivot[:, None]
        still = still.permute(1, 2, 0).contiguous()  # (V, 3, B), people innermost
        q = start.q.clone()
        q[:, list(ROOT_DOFS)] = 0
        # An answer of the fit: angles, translation, betas, and what one more step would gain.
        first = torch.cat((q, torch.zeros_like(start.trans), betas, torch.full_like(q[:, :1], torch.inf)), 1)

        weight = self.config.limit_weight
        fine = [_Pass(self.fine, n, weight) for n in _FINE_STEPS]
        coarse = [_Pass(self.coarse, n, weight) for n in _COARSE_STEPS]
        if seek:
            coarse = [_Pass(self.coarse, _SHAPE_STEPS, weight)] * _SHAPE_PASSES + coarse
        free = [_Pass(self.coarse, n, 0.0) for n in _FREE_STEPS]

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return self._run(still[..., rows], x, free + fine, seek)

        def as_found(rows: Tensor, x: Tensor) -> Tensor:
            return x

        def perturbed(rows: Tensor, x: Tensor) -> Tensor:
            return torch.cat((first[rows, :NUM_DOFS] + self.noise, first[rows, NUM_DOFS:]), 1)

        x, value = self._run(still, first, coarse + fine, seek)
        goal = (self.retry_above_mm / 1000) ** 2
        found = retry_failed(attempt, x, value, goal, [as_found, perturbed])

        q, shift, betas, gain = self._split(found.x)
        frames = model.frames(betas)
        q = nearest_turn(q, self.middle)
        distance = errors(self.fine, model, People(betas, frames, still - shift.mT), q)
        turned = root @ model.joints(frames, q).rot[:, 0]
        q[:, list(ROOT_DOFS)] = root_angles(frames.frame[:, 0], turned)
        moved = frames.joints[:, 0] + shift - pivot
        trans = (root @ moved[..., None])[..., 0] + pivot + start.trans - frames.joints[:, 0]
        finite &= q.isfinite().all(1) & trans.isfinite().all(1) & distance.max_vertex.isfinite()
        return MeshFit(
            poses=q,
            betas=betas,
            trans=trans,
            converged=finite & (gain[:, 0] < _RELATIVE_GAIN * found.score + _ABSOLUTE_GAIN),
            finite=finite,
            pve_mm=1000 * distance.pve,
            max_vertex_mm=1000 * distance.max_vertex,
            joints=model.joints(frames, q).pos + trans[:, None],
            retries=found.retries,
        )

    def _split(self, x: Tensor) -> tuple[Tensor, ...]:
        """An answer's angles (B, 46), translation (B, 3), betas (B, 10) and gain (B, 1)."""
        return x.split((NUM_DOFS, 3, self.model.num_betas, 1), 1)

    def _run(self, still: Tensor, x: Tensor, passes: list[_Pass], seek_betas: bool) -> tuple[Tensor, Tensor]:
        """Passes from the answers x (B, n) towards meshes still (V, 3, B): better answers, and their objective."""
        model, config = self.model, self.config
        q, shift, betas, _ = self._split(x)
        people = People(betas, model.frames(betas), still - shift.mT)
        for each in passes:
            if seek_betas:
                some = people.target[self.some].permute(2, 0, 1)
                betas = betas_from_mesh(model, some, q, betas, self.some, self.beta_weight, False)
                people = People(betas, model.frames(betas), people.target)
            state = to_quadratic(each.plan, moments(each.plan, model, people, q))
            goal = PoseObjective(
                each.plan, model, people.frames, q, centred(state), self.limits, each.limit_weight
            )
            solution = levenberg_marquardt(goal, q, each.steps, config.max_angle_step, self.move)
            q = solution.x
            transforms = skinning_transforms(model.joints(people.frames, q), people.frames.joints)
            step = best_translation(state, side_by_side(transforms))
            shift = shift + step
            people = People(betas, people.frames, people.target - step.mT)
        return torch.cat((q, shift, betas, solution.decrease[:, None]), 1), solution.value
