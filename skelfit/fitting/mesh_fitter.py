"""Fitting SKEL to bare meshes: vertices in SMPL's topology, without SMPL parameters.

The start aligns each body part with the target by itself. Then come the passes of a label's fit, but with a free root,
and with free betas if they are not known. People are fitted in the frame of the start's pelvis, where the root's angles
stay small. A mesh that is missed gets retries, which begin with some passes without joint limits: near a shoulder's
Euler pole the limits are a wall between two descriptions of one rotation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.axis_rotations import blend_shapes
from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, wrap_near
from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS, dof_limits, limits_middle
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.skin_tables import stage_skin
from skelfit.fitting.fit_errors import measure
from skelfit.fitting.parallel_batches import run_batches
from skelfit.fitting.passes import (
    DAMPING,
    DECREASE,
    VALUE,
    FitBatch,
    StageTables,
    make_rules,
    make_tables,
    new_batch,
    run_pass,
)
from skelfit.fitting.start.mesh_start import MeshStart, mesh_start, mesh_start_tables
from skelfit.fitting.start.restarts import retry_failed, unchanged
from skelfit.fitting.start.warm_start import root_angles

if TYPE_CHECKING:
    from skelfit.config.fit_settings import FitConfig

_SIZES = (NUM_DOFS, 3, 10, 6)  # parts of an answer: angles, translation, betas, status


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
    points: Tensor  # (N, K, 3) m, regressed from the fitted skin
    retries: Tensor  # (N,) int64, retries made


@dataclass(frozen=True)
class _MeshPass:
    tables: StageTables
    steps: int
    limit_weight: float
    late: bool = False  # only for people who have not converged


class MeshFitter:
    """Fits SKEL of one gender to meshes."""

    def __init__(
        self,
        model: SkelModel,
        config: FitConfig,
        retry_above_mm: float = 0.1,
        beta_weight: float = 0.0,
        backend: Backend | None = None,
        points: np.ndarray | None = None,
        couplings: np.ndarray | None = None,
    ) -> None:
        """Use the batch, limit weight, step bound and all of `meshes` of the config; its stages are not used.

        A mesh missed by more than retry_above_mm (RMS) gets retries, each of the cost of the fit itself. 0.1 suits
        meshes that SKEL can make; for others give the error of a good fit. beta_weight is in m^2 per squared beta;
        points (K, V) regresses points from the skin; couplings (F, 46) m per rad are those of `spine_couplings`.
        """
        self.model, self.config = model, config
        self.retry_above_mm, self.beta_weight = retry_above_mm, beta_weight
        self.backend = backend or make_backend("cpu")
        self.dof_limits = dof_limits(config.limits)
        self.middle = torch.tensor(limits_middle(self.dof_limits), dtype=torch.float32)
        self.root_ball = ball_joints((0,), "cpu", torch.float32)
        body = body_tables(model, self.backend.device)
        self.start_tables = mesh_start_tables(model, body, self.backend.device, self.dof_limits)
        coarse, fine = (
            make_tables(
                self.backend,
                body,
                stage_skin(
                    model, "with_root", "all", stride, self.backend.block, self.backend.device, regressor
                ),
                "with_root",
                self.dof_limits,
                (),
                np.zeros((0, NUM_DOFS)) if couplings is None else couplings,
            )
            for stride, regressor in ((config.meshes.coarse_stride, None), (1, points))
        )
        self.coarse, self.fine = coarse, fine
        random = torch.Generator().manual_seed(config.meshes.seed)
        noise = torch.randn(NUM_DOFS, generator=random, dtype=torch.float64)
        self.noise = (config.meshes.perturbation * noise).float()

    def fit(self, target: Tensor, betas: Tensor | None = None) -> MeshFit:
        """Fit N meshes: target (N, V, 3) m, SKEL's betas (N, 10), or None to fit them too.

        A mesh that is not finite gets finite = False. Raises ValueError for a wrong shape.
        """
        vertices, count = len(self.model.v_template), self.model.num_betas
        if target.ndim != 3 or target.shape[1:] != (vertices, 3):
            raise ValueError(f"target: expected shape (N, {vertices}, 3), found {tuple(target.shape)}")
        if betas is not None and betas.shape != (len(target), count):
            raise ValueError(f"betas: expected shape ({len(target)}, {count}), found {tuple(betas.shape)}")
        if len(target) == 0:  # the result of one mesh, without the mesh
            one = self.fit(self.model.v_template[None], self.model.v_template.new_zeros(1, count))
            return MeshFit(**{f.name: getattr(one, f.name)[:0] for f in fields(MeshFit)})
        size = self.config.batch or self.backend.batch_size

        def fit_from(start: int) -> MeshFit:
            rows = slice(start, start + size)
            return self._fit_batch(target[rows].float(), None if betas is None else betas[rows].float())

        parts = run_batches(self.backend, fit_from, range(0, len(target), size))
        return MeshFit(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(MeshFit)})

    @torch.no_grad()
    def _fit_batch(self, target: Tensor, betas: Tensor | None) -> MeshFit:
        meshes, free_betas = self.config.meshes, betas is None
        target, betas, finite = self._finite(target, betas)
        start = mesh_start(self.backend, self.start_tables, target, betas)
        backend, damping = self.backend, self.config.solver.damping
        no_targets = backend.array(torch.zeros(len(betas), 0, 3, device=backend.device))
        batch = new_batch(backend, start.target, no_targets, start.q, backend.upload(betas), damping)
        first = torch.cat((batch.q, batch.trans, batch.betas, batch.status), 1).cpu()

        weight = self.config.limit_weight
        fine = [_MeshPass(self.fine, n, weight) for n in meshes.fine_steps]
        fine += [_MeshPass(self.fine, n, weight, late=True) for n in meshes.late_steps]
        coarse = [_MeshPass(self.coarse, n, weight) for n in meshes.coarse_steps]
        free = [_MeshPass(self.coarse, n, 0.0) for n in meshes.free_steps]

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return self._run(batch, rows, x, free + fine, free_betas)

        def perturbed(rows: Tensor, x: Tensor) -> Tensor:
            return torch.cat((first[rows, :NUM_DOFS] + self.noise, first[rows, NUM_DOFS:]), 1)

        x, value = self._run(batch, torch.arange(len(target)), first, coarse + fine, free_betas)
        goal = (self.retry_above_mm / 1000) ** 2
        best = retry_failed(attempt, x, value, goal, [unchanged, perturbed])
        self._write(batch, torch.arange(len(target)), best.x)
        return self._result(batch, best.x, best.retries, start, finite)

    def _finite(self, target: Tensor, betas: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Meshes, betas, and which (N,) are finite. Those that are not are replaced by the template and zeros."""
        low, high = target.flatten(1).aminmax(dim=1)
        finite = low.isfinite() & high.isfinite()
        if betas is None:
            betas = target.new_zeros(len(target), self.model.num_betas)
        finite &= betas.isfinite().all(1)
        if not finite.all():
            target = torch.where(finite[:, None, None], target, self.model.v_template)
            betas = torch.where(finite[:, None], betas, torch.zeros_like(betas))
        return target, betas, finite

    def _result(
        self, batch: FitBatch, x: Tensor, retries: Tensor, start: MeshStart, finite: Tensor
    ) -> MeshFit:
        """The result, moved back from the frame of the start's pelvis."""
        q, shift, betas, status = x.split(_SIZES, 1)
        q = wrap_near(q, self.middle)
        measured = measure(self.backend, self.fine.skin, self.fine.body, batch)
        errors = measured.errors(self.backend.read(measured.array))
        frame = self.model.frames(betas[:1]).frame[0, 0]  # the pelvis', the same for all shapes
        turned = angles_to_rotation(self.root_ball, q[:, None, list(ROOT_DOFS)])[:, 0]
        q[:, list(ROOT_DOFS)] = root_angles(frame, start.turn, turned)

        def to_mesh_frame(points: Tensor) -> Tensor:
            return (points - start.rest[:, None]) @ start.turn.mT + start.position[:, None]

        pelvis = self.model.j_template[0] + blend_shapes(self.model.j_shapedirs[:1], betas)[:, 0]
        trans = to_mesh_frame((pelvis + shift)[:, None])[:, 0] - pelvis

        finite = finite & q.isfinite().all(1) & trans.isfinite().all(1) & errors.largest.isfinite()
        return MeshFit(
            poses=q,
            betas=betas,
            trans=trans,
            converged=finite & self._converged(status),
            finite=finite,
            pve_mm=1000 * errors.mean,
            max_vertex_mm=1000 * errors.largest,
            joints=to_mesh_frame(errors.joints),
            points=to_mesh_frame(errors.points),
            retries=retries,
        )

    def _write(self, batch: FitBatch, rows: Tensor, x: Tensor) -> None:
        """Write answers x (K, n) of rows (K,) into the batch."""
        index = rows.to(batch.q.device)
        parts = zip((batch.q, batch.trans, batch.betas, batch.status), x.split(_SIZES, 1), strict=True)
        for target, answer in parts:
            target[index] = answer.to(target.device)

    def _run(
        self, batch: FitBatch, rows: Tensor, x: Tensor, passes: Sequence[_MeshPass], free_betas: bool
    ) -> tuple[Tensor, Tensor]:
        """Passes of the people of rows (K,) from answers x (K, n): better answers, and their objectives (K,)."""
        self._write(batch, rows, x)
        for one in passes:
            active = rows[~self._converged(self.backend.read(batch.status)[rows])] if one.late else rows
            if len(active) == 0:
                continue
            rules = make_rules(self.backend, self.config, one.steps, self.config.meshes.tolerance, 0.0)
            rules.free_root, rules.free_betas = 1, int(free_betas)
            rules.limit_weight, rules.beta_weight = one.limit_weight, self.beta_weight
            batch.status[active.to(batch.q.device), DAMPING] = self.config.solver.damping
            run_pass(self.backend, one.tables, batch, active.numpy(), rules)
        answers = self.backend.read(torch.cat((batch.q, batch.trans, batch.betas, batch.status), 1))[rows]
        return answers, answers[:, -6 + VALUE]

    def _converged(self, status: Tensor) -> Tensor:
        """Who has converged, (K,), of a status (K, 6)."""
        meshes = self.config.meshes
        return status[:, DECREASE] < meshes.converged_gain * status[:, VALUE] + meshes.converged_floor
