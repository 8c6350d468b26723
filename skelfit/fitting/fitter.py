"""From SMPL parameters to SKEL parameters: target, warm start, stages, errors.

A person is fitted in the canonical frame: without global_orient and transl, which so cannot influence the fit. There
the pelvis stands at zero, unless the root is free to turn or to move, under a prior. SKEL's root angles and translation
are composed at the end in closed form.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import reduce
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.axis_rotations import blend_shapes
from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints, wrap_near
from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS, ROOT_DOFS, dof_limits, limits_middle
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.retraction_tables import make_balls
from skelfit.fitting.backends.skin_tables import SkinPlan, smpl_skin, stage_skin
from skelfit.fitting.fit_errors import PendingErrors, measure
from skelfit.fitting.fit_result import FitResult, better, better_sequences, map_results
from skelfit.fitting.parallel_batches import run_batches
from skelfit.fitting.passes import (
    DECREASE,
    VALUE,
    FitBatch,
    batch_of,
    chunks,
    new_batch,
    skinned,
    whole_groups,
)
from skelfit.fitting.schedule import Schedule, make_schedule
from skelfit.fitting.sequences.sequence_fit import fit_sequences
from skelfit.fitting.start.betas_transfer import beta_map, rest_distance, rest_form
from skelfit.fitting.start.warm_start import root_angles, root_translation
from skelfit.fitting.start.warm_start_tables import start_tables
from skelfit.fitting.terms.betas_prior import BetasPriorTerm
from skelfit.fitting.terms.joint_limits import JointLimitTerm
from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm
from skelfit.fitting.terms.root_prior import root_prior_terms
from skelfit.fitting.terms.shoulder_targets import make_locator
from skelfit.fitting.terms.spine_coupling import SpineCouplingTerm, spine_couplings
from skelfit.fitting.terms.vertex_weights import vertex_weights

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.fit_settings import FitConfig, TemporalConfig
    from skelfit.fitting.sequences.frame_index import FrameIndex

# The PVE after each stage but the last is measured on every 32nd vertex. It informs and decides nothing.
PROGRESS_STRIDE = 32


class Fitter:
    """Fits SKEL to SMPL labels on one device. The tables of a pair of genders are made once, at the first use."""

    def __init__(
        self, models: ModelSet, config: FitConfig, device: str = "cpu", backend: Backend | None = None
    ) -> None:
        """backend: None for that of the device."""
        self.models, self.config = models, config
        self.backend = backend or make_backend(device)
        self._pairs: dict[str, tuple[PairFitter, ...]] = {}

    def fit(
        self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor, frames: FrameIndex | None = None
    ) -> FitResult:
        """Fit N people: pose (N, 24, 3) rad axis-angle, betas (N, 10), transl (N, 3) m, as SMPL takes them.

        frames: which of the N rows are frames of one person, with their times; None: all rows are independent.
        Raises ValueError if frames are of another number of rows.

        A gendered SMPL label is fitted with the SKEL of its gender, a neutral one with the configured gender. `best`
        fits both, and `better` decides for each person. `neutral_target` says what the mesh of a neutral label is.
        """
        if len(pose) == 0:  # the result of one person, without the person
            one = self.fit(
                smpl_gender, torch.zeros(1, 24, 3), torch.zeros(1, betas.shape[1]), torch.zeros(1, 3)
            )
            return map_results(lambda x: x[:0], one)
        labels = pose, betas, transl
        if frames is not None and len(frames.sequence) != len(pose):
            raise ValueError(f"frames: expected those of {len(pose)} rows, found {len(frames.sequence)}")
        config = self.config.temporal
        if frames is None or config is None or not (frames.sequence >= 0).any():
            return self._fit_rows(smpl_gender, *labels)
        return self._fit_frames(smpl_gender, labels, frames, config)

    def _fit_rows(self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        pairs, size = self.prepare(smpl_gender), self.config.batch or self.backend.batch_size

        def fit_from(start: int) -> FitResult:
            # Contiguous: the layout of a tensor decides the order, and so the rounding, of sums over it.
            labels = [
                x[start : start + size].to("cpu", torch.float32).contiguous() for x in (pose, betas, transl)
            ]
            return reduce(better, (pair.fit(*labels) for pair in pairs))

        parts = self.run_batches(fit_from, range(0, len(pose), size))
        return map_results(lambda *x: torch.cat(x), *parts)

    def _fit_frames(
        self,
        smpl_gender: str,
        labels: tuple[Tensor, Tensor, Tensor],
        frames: FrameIndex,
        config: TemporalConfig,
    ) -> FitResult:
        """Each sequence as one problem, and rows that are in none as independent people."""
        sequences = frames.sequences()
        framed, single = np.concatenate(sequences), np.flatnonzero(frames.sequence < 0)
        ends = np.cumsum([0, *map(len, sequences)])
        chains = [np.arange(a, b) for a, b in pairwise(ends)]
        framed_labels = [x[torch.from_numpy(framed)].to("cpu", torch.float32).contiguous() for x in labels]
        shapes = [frames.shapes.get(int(frames.sequence[rows[0]])) for rows in sequences]
        by_gender = [
            fit_sequences(pair, config, framed_labels, chains, frames.time[framed], shapes)
            for pair in self.prepare(smpl_gender)
        ]
        results = [reduce(lambda a, b: better_sequences(a, b, chains), by_gender)]
        if len(single):
            rows = torch.from_numpy(single)
            results.append(self._fit_rows(smpl_gender, *(x[rows] for x in labels)))
        row_order = torch.from_numpy(np.argsort(np.concatenate((framed, single))))
        return map_results(lambda *x: torch.cat(x)[row_order], *results)

    def prepare(self, smpl_gender: str) -> tuple[PairFitter, ...]:
        """The fitters of labels of a gender, one for each SKEL gender that is tried; made at the first call.

        One thread makes the tables: the rounding of a matrix product may depend on the number of threads.
        """
        pairs = self._pairs.get(smpl_gender)
        if pairs is None:
            genders, threads = self.config.skel_genders(smpl_gender), torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                pairs = self._pairs[smpl_gender] = tuple(
                    self.make_pair(self.config.target_gender(smpl_gender, g), g) for g in genders
                )
            finally:
                torch.set_num_threads(threads)
        return pairs

    def make_pair(self, smpl_gender: str, skel_gender: str) -> PairFitter:
        """The fitter of one SKEL to meshes of one SMPL gender; another method of fitting overrides this."""
        return PairFitter(self.models, smpl_gender, skel_gender, self.config, self.backend)

    def run_batches(self, function: Callable[[int], FitResult], starts: Sequence[int]) -> list[FitResult]:
        """Call the function for the batches that start at these rows; another method of fitting overrides this."""
        return run_batches(self.backend, function, starts)


class PairFitter:
    """Fits one SKEL to the meshes that one SMPL makes of labels, and has the tables of both."""

    def __init__(
        self, models: ModelSet, smpl_gender: str, skel_gender: str, config: FitConfig, backend: Backend
    ) -> None:
        self.config, self.backend = config, backend
        self.smpl, self.skel = SmplModel(models.smpl_of(smpl_gender)), SkelModel(models.skel_of(skel_gender))
        first_betas = self.beta_offset, self.beta_matrix = beta_map(self.smpl, self.skel, config.betas)
        self.rest_form = rest_form(self.smpl, self.skel)
        self.dof_limits = dof_limits(config.limits)
        self.limits = torch.tensor(self.dof_limits, dtype=torch.float32)
        self.middle = torch.tensor(limits_middle(self.dof_limits), dtype=torch.float32)
        free_betas = smpl_gender != skel_gender
        couplings = torch.tensor(spine_couplings(config.spine), dtype=torch.float32)
        self.pose_terms: tuple[ObjectiveTerm, ...] = (
            JointLimitTerm(config.limit_weight, self.limits),
            SpineCouplingTerm(couplings),
            *([BetasPriorTerm(config.beta_weight)] if free_betas else []),
        )
        self.root_terms = root_prior_terms(config.root_prior)
        self.root_ball = ball_joints((0,), "cpu", torch.float32)
        self.locator = None
        if any(stage.joint_weight > 0 for stage in config.stages):
            self.locator = make_locator(self.skel, self.limits, config=config.locator)
        self.body = body_tables(self.skel, backend.device)
        self.start_tables = start_tables(self.smpl, self.skel, first_betas, backend.device, self.dof_limits)
        self.balls = make_balls(range(NUM_JOINTS), range(NUM_DOFS), backend.device, self.dof_limits)
        self.target_skin = smpl_skin(self.smpl, backend.block, backend.device)
        relative = vertex_weights(self.skel.asset, config.vertex_weights)

        def skin(dofs: str, vertices: str, stride: int) -> SkinPlan:
            return stage_skin(
                self.skel, dofs, vertices, stride, backend.block, backend.device, None, relative
            )

        located = self.locator.joints if self.locator else ()
        self.schedule: Schedule = make_schedule(
            backend, config, self.body, skin, self.dof_limits, located, free_betas
        )
        self.progress = stage_skin(self.skel, "all", "all", PROGRESS_STRIDE, backend.block, backend.device)
        self.whole = stage_skin(self.skel, "all", "all", 1, backend.block, backend.device, models.keypoints44)

    @torch.no_grad()
    def fit(self, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit one batch; arguments as `Fitter.fit` takes them, float32 on the host."""
        batch = self.start(pose, betas)
        progress: list[PendingErrors] = []
        status = self.run(batch, lambda: progress.append(self.progress_of(batch)))
        return self.result(batch, status, progress, pose, betas, transl)

    def run(self, batch: FitBatch, between: Callable[[], None]) -> Tensor:
        """All stages, and a call between them. Returns the status, on the host; another method overrides this."""
        return self.schedule.run(batch, between)

    def progress_of(self, batch: FitBatch) -> PendingErrors:
        """The errors so far."""
        return measure(self.backend, self.progress, self.body, batch)

    def transferred(self, betas: Tensor) -> Tensor:
        """SKEL's betas (B, K) of labels' betas (B, 10), in closed form."""
        return self.beta_offset + (betas[:, None] * self.beta_matrix).sum(-1)

    def result(
        self,
        batch: FitBatch,
        status: Tensor,
        progress: list[PendingErrors],
        pose: Tensor,
        betas: Tensor,
        transl: Tensor,
    ) -> FitResult:
        """The result of a batch that has been fitted to these labels."""
        skel_betas = self.transferred(betas)
        measured = [*progress, measure(self.backend, self.whole, self.body, batch)]
        q, fitted, moved, located, *distances = self.backend.read_all(
            batch.q, batch.betas, batch.trans, batch.located, *(m.array for m in measured)
        )
        stage_errors = [m.errors(x) for m, x in zip(measured, distances, strict=True)]
        errors = stage_errors[-1]
        q = wrap_near(q, self.middle)
        value, decrease = status[:, VALUE], status[:, DECREASE]

        rot = roma.rotvec_to_rotmat(pose[:, 0])
        # (B, 3, 3) of the pelvis, in its own frame; moved (B, 3) m is in the canonical frame.
        turned = angles_to_rotation(self.root_ball, q[:, None, list(ROOT_DOFS)])[:, 0]
        skel_root = self.skel.j_template[0] + blend_shapes(self.skel.j_shapedirs[:1], fitted)[:, 0]
        frozen = root_translation(transl, rot, self.smpl.root_joint(betas), skel_root)

        def to_label_frame(points: Tensor) -> Tensor:
            """From the canonical frame to the label's: rotated about SKEL's root, then translated."""
            return (points - skel_root[:, None]) @ rot.mT + (skel_root + frozen)[:, None]

        state = BodyState(q, fitted, errors.joints, turned, moved)
        objective = self._objective(errors.mean_square, state, located)
        rest = [rest_distance(self.rest_form, betas, b) for b in (skel_betas, fitted)]
        q[:, list(ROOT_DOFS)] = root_angles(self.skel.frames(fitted[:1]).frame[0, 0], rot, turned)
        trans = frozen + (rot @ moved[..., None])[..., 0]
        finite = q.isfinite().all(1) & trans.isfinite().all(1) & errors.largest.isfinite()
        return FitResult(
            poses=q,
            betas=fitted,
            trans=trans,
            converged=finite & self.schedule.converged(status),
            gain=decrease / value,
            finite=finite,
            pve_mm=1000 * errors.mean,
            max_vertex_mm=1000 * errors.largest,
            stage_pve_mm=1000 * torch.stack([e.mean for e in stage_errors], 1),
            objective=objective,
            female=torch.full_like(finite, self.skel.gender == "female"),
            betas_mm=1000 * torch.stack(rest, 1),
            joints=to_label_frame(errors.joints),
            keypoints3d=to_label_frame(errors.points) if self.whole.num_points else None,
        )

    def _objective(self, mean_square: Tensor, state: BodyState, located: Tensor) -> Tensor:
        """The objective (B,) m^2: the mean squared vertex error (B,) m^2 and all terms; located (B, R, 3) m."""
        weight = self.config.stages[-1].joint_weight
        shoulders: tuple[ObjectiveTerm, ...] = ()
        if self.locator and weight:
            shoulders = (self.locator.targets(located, self.schedule.last_joints, weight),)
        objective = mean_square
        for terms in (self.pose_terms, shoulders, self.root_terms):  # the order decides the rounding
            objective = objective + sum(term.cost(state) for term in terms)
        return objective

    def start(self, pose: Tensor, betas: Tensor) -> FitBatch:
        """The batch of labels' pose (B, 24, 3) and betas (B, 10) where the fit starts, on the device."""
        backend, k, count = self.backend, self.backend.kernels, len(pose)
        rows = whole_groups(np.arange(count), backend.lanes)
        groups, parts = len(rows), chunks(backend, len(rows))
        target = backend.target_skins(groups, len(self.smpl.v_template))
        people = skinned(backend, self.target_skin, target, rows)
        skel_betas, q = (
            torch.zeros(count, n, device=backend.device) for n in (self.skel.num_betas, NUM_DOFS)
        )
        labels = [backend.array(backend.upload(x)) for x in (pose.flatten(1), betas)]
        backend.launch(
            k.closed_form_start.start,
            groups,
            [
                *labels, people.rows, self.start_tables, self.body, self.balls,
                backend.scratch(k.joint_frames.make_joint_frames, groups),
                backend.scratch(k.smpl_joints.make_smpl_frames, groups),
                backend.scratch(k.closed_form_start.make_start_scratch, groups),
                people.transforms, people.coefficients, backend.array(skel_betas), backend.array(q),
            ],
        )  # fmt: skip
        room = backend.scratch(k.skinning.make_skin_scratch, parts, backend.block, 0)
        backend.launch(k.skin_errors.target_skin, parts, [self.target_skin.skin, people, backend.chunk, room])
        located = self._located(target, count)
        return new_batch(backend, target, located, q, skel_betas, self.config.solver.damping)

    def solve(self, meshes: Tensor, q: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All stages towards meshes (B, V, 3) m, from q (B, 46) and betas (B, 10).

        Returns q, betas, trans (B, 3) m and status, on the host.
        """
        backend = self.backend
        no_targets = backend.array(torch.zeros(len(q), 0, 3, device=backend.device))
        batch = batch_of(backend, meshes, q, betas, no_targets, self.config.solver.damping)
        batch = replace(batch, located=self._located(batch.target, len(q)))
        status = self.schedule.run(batch, lambda: None)
        return backend.read(batch.q), backend.read(batch.betas), backend.read(batch.trans), status

    def _located(self, target: Any, count: int) -> Any:
        """The targets of joints on the target meshes, (B, R, 3) m."""
        backend, locator = self.backend, self.locator
        joints = torch.zeros(count, len(locator.joints) if locator else 0, 3, device=backend.device)
        if locator:
            vertices = backend.ints(locator.vertices.numpy())
            weights = backend.array(locator.weights.to(backend.device))
            inputs = [vertices, weights, target, backend.array(joints)]
            backend.launch(backend.kernels.regressed_points.locate, -(-count // backend.lanes), inputs)
        return backend.array(joints)
