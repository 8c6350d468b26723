"""Fitting SKEL to bare meshes: vertices in SMPL's topology, without any SMPL parameters.

The start lays each body part onto the target by itself. From there, the passes of a label's fit, but with a free root,
and with betas beside the pose where they are not known. People are fitted in the frame of the start's pelvis, where its
angles stay small. Who does not meet the mesh gets a second chance with the joint limits off for some passes: near a
shoulder's Euler pole the limits are a wall between two descriptions of one rotation.
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
    Batch,
    Tables,
    make_rules,
    make_tables,
    new_status,
    run_pass,
)
from skelfit.fitting.start.mesh_start import MeshStart, mesh_start, mesh_start_tables
from skelfit.fitting.start.retry import retry_failed
from skelfit.fitting.start.warm_start import root_angles

if TYPE_CHECKING:
    from skelfit.config.fit_settings import FitConfig

_SIZES = (NUM_DOFS, 3, 10, 6)  # of an answer: angles, translation, betas, status


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
    retries: Tensor  # (N,) int64, second chances taken


@dataclass(frozen=True)
class _Pass:
    tables: Tables
    steps: int
    limit_weight: float
    late: bool = False  # only for those who have not converged


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
        """config gives the batch, the limits' weight, the step bound and all of `meshes`; its stages play no part.

        A mesh missed by more than retry_above_mm (RMS) gets a second chance: 0.1 suits meshes that SKEL can make,
        others should give what they expect of a good fit, as each chance costs as much as the fit itself. beta_weight
        is what a squared beta costs, m^2; points (K, V) regresses points from the skin; couplings (F, 46) tie angles
        (`fit.couplings`): meshes that SKEL can make have none.
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
        source = torch.Generator().manual_seed(config.meshes.seed)
        noise = torch.randn(NUM_DOFS, generator=source, dtype=torch.float64)
        self.noise = (config.meshes.perturbation * noise).float()

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
        size = self.config.batch or self.backend.people

        def fit_from(start: int) -> MeshFit:
            rows = slice(start, start + size)
            return self._fit_batch(target[rows].float(), None if betas is None else betas[rows].float())

        parts = run_batches(self.backend, fit_from, range(0, len(target), size))
        return MeshFit(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(MeshFit)})

    @torch.no_grad()
    def _fit_batch(self, target: Tensor, betas: Tensor | None) -> MeshFit:
        meshes, seek = self.config.meshes, betas is None
        target, betas, finite = self._finite(target, betas)
        start = mesh_start(self.backend, self.start_tables, target, betas)
        batch = self._batch(start, betas)
        first = torch.cat((batch.q, batch.trans, batch.betas, batch.status), 1).cpu()

        weight = self.config.limit_weight
        fine = [_Pass(self.fine, n, weight) for n in meshes.fine_steps]
        fine += [_Pass(self.fine, n, weight, late=True) for n in meshes.late_steps]
        coarse = [_Pass(self.coarse, n, weight) for n in meshes.coarse_steps]
        free = [_Pass(self.coarse, n, 0.0) for n in meshes.free_steps]

        def attempt(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            return self._run(batch, rows, x, free + fine, seek)

        def as_found(rows: Tensor, x: Tensor) -> Tensor:
            return x

        def perturbed(rows: Tensor, x: Tensor) -> Tensor:
            return torch.cat((first[rows, :NUM_DOFS] + self.noise, first[rows, NUM_DOFS:]), 1)

        x, value = self._run(batch, torch.arange(len(target)), first, coarse + fine, seek)
        goal = (self.retry_above_mm / 1000) ** 2
        found = retry_failed(attempt, x, value, goal, [as_found, perturbed])
        self._place(batch, torch.arange(len(target)), found.x)
        return self._result(batch, found.x, found.retries, start, finite)

    def _finite(self, target: Tensor, betas: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Meshes and betas without what is not finite, and who is. Who is not is the template."""
        low, high = target.flatten(1).aminmax(dim=1)
        finite = low.isfinite() & high.isfinite()
        if betas is None:
            betas = target.new_zeros(len(target), self.model.num_betas)
        finite &= betas.isfinite().all(1)
        if not finite.all():
            target = torch.where(finite[:, None, None], target, self.model.v_template)
            betas = torch.where(finite[:, None], betas, torch.zeros_like(betas))
        return target, betas, finite

    def _result(self, batch: Batch, x: Tensor, retries: Tensor, start: MeshStart, finite: Tensor) -> MeshFit:
        """Back from the frame of the start's pelvis."""
        q, shift, betas, status = x.split(_SIZES, 1)
        q = wrap_near(q, self.middle)
        measured = measure(self.backend, self.fine.skin, self.fine.body, batch)
        errors = measured.errors(self.backend.read(measured.array))
        frame = self.model.frames(betas[:1]).frame[0, 0]  # the pelvis', the same for all shapes
        turned = angles_to_rotation(self.root_ball, q[:, None, list(ROOT_DOFS)])[:, 0]
        q[:, list(ROOT_DOFS)] = root_angles(frame, start.turn, turned)

        def place(points: Tensor) -> Tensor:
            return (points - start.rest[:, None]) @ start.turn.mT + start.there[:, None]

        pelvis = self.model.j_template[0] + blend_shapes(self.model.j_shapedirs[:1], betas)[:, 0]
        trans = place((pelvis + shift)[:, None])[:, 0] - pelvis

        finite = finite & q.isfinite().all(1) & trans.isfinite().all(1) & errors.largest.isfinite()
        return MeshFit(
            poses=q,
            betas=betas,
            trans=trans,
            converged=finite & self._converged(status),
            finite=finite,
            pve_mm=1000 * errors.mean,
            max_vertex_mm=1000 * errors.largest,
            joints=place(errors.joints),
            points=place(errors.points),
            retries=retries,
        )

    def _batch(self, start: MeshStart, betas: Tensor) -> Batch:
        """People on the device, where they start."""
        backend, count = self.backend, len(betas)
        return Batch(
            count=count,
            target=start.target,
            located=backend.array(torch.zeros(count, 0, 3, device=backend.device)),
            q=start.q,
            betas=backend.put(betas),
            trans=torch.zeros_like(start.q[:, :3]),
            origin=start.q.clone(),
            status=backend.put(new_status(count, self.config.solver.damping)),
        )

    def _place(self, batch: Batch, rows: Tensor, x: Tensor) -> None:
        """Put people of rows (K,) where answers x (K, n) have them."""
        q, trans, betas, status = x.split(_SIZES, 1)
        index = rows.to(batch.q.device)
        for there, here in ((batch.q, q), (batch.trans, trans), (batch.betas, betas), (batch.status, status)):
            there[index] = here.to(there.device)

    def _run(
        self, batch: Batch, rows: Tensor, x: Tensor, passes: Sequence[_Pass], seek_betas: bool
    ) -> tuple[Tensor, Tensor]:
        """Passes of some people from the answers x (K, n): better answers, and their objective."""
        self._place(batch, rows, x)
        for each in passes:
            few = rows[~self._converged(self.backend.read(batch.status)[rows])] if each.late else rows
            if len(few) == 0:
                continue
            rules = make_rules(self.backend, self.config, each.steps, self.config.meshes.tolerance, 0.0)
            rules.free_root, rules.free_betas = 1, int(seek_betas)
            rules.limit_weight, rules.beta_weight = each.limit_weight, self.beta_weight
            batch.status[few.to(batch.q.device), DAMPING] = self.config.solver.damping
            run_pass(self.backend, each.tables, batch, few.numpy(), rules)
        found = torch.cat((batch.q, batch.trans, batch.betas, batch.status), 1)
        answers = self.backend.read(found)[rows]
        return answers, answers[:, -6 + VALUE]

    def _converged(self, status: Tensor) -> Tensor:
        """Who has, of a status (K, 6)."""
        meshes = self.config.meshes
        return status[:, DECREASE] < meshes.converged_gain * status[:, VALUE] + meshes.converged_floor
