"""From SMPL parameters to SKEL parameters: target, warm start, stages, errors.

A person is fitted in the canonical frame, with the global orientation and translation taken off, so that they cannot
influence the fit. There the pelvis stands at zero, unless the root is free to turn or to move, which it then does under
a prior. The root's own SKEL angles and translation are put together at the end in closed form.
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
from skelfit.fitting.fit_errors import Measured, measure
from skelfit.fitting.fit_result import FitResult, better, better_sequences, map_results
from skelfit.fitting.parallel_batches import run_batches
from skelfit.fitting.passes import Batch, batch_of, chunks, new_status, skinned, whole_groups
from skelfit.fitting.schedule import Schedule, make_schedule
from skelfit.fitting.sequences.sequence_fit import fit_sequences
from skelfit.fitting.start.warm_start import beta_map, root_angles, root_translation
from skelfit.fitting.start.warm_start_tables import start_tables
from skelfit.fitting.terms.betas_transfer import rest_distance, rest_form
from skelfit.fitting.terms.shoulder_targets import make_locator
from skelfit.fitting.terms.spine_coupling import spine_couplings
from skelfit.fitting.terms.vertex_weights import vertex_weights

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.fit_settings import FitConfig, TemporalConfig
    from skelfit.fitting.sequences.frame_index import Frames

# PVE after the stages before the last is measured on every 32nd vertex: it informs, it decides nothing.
PROGRESS_STRIDE = 32


class Fitter:
    """Fits SKEL to SMPL labels on one device. Tables are made at the first use of a pair of genders, then kept."""

    def __init__(
        self, models: ModelSet, config: FitConfig, device: str = "cpu", backend: Backend | None = None
    ) -> None:
        """backend: None: that of the device."""
        self.models, self.config = models, config
        self.backend = backend or make_backend(device)
        self._pairs: dict[str, tuple[PairFitter, ...]] = {}

    def fit(
        self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor, frames: Frames | None = None
    ) -> FitResult:
        """Fit N people: pose (N, 24, 3) rad axis-angle, betas (N, 10), transl (N, 3) m, as SMPL takes them.

        frames: which of the N rows are frames of one person, and when; None: none are.

        A gendered SMPL label is fitted with the SKEL of its gender, a neutral one with the configured gender; `best`
        fits both and takes, person by person, what `better` says. `neutral_target` says what a neutral label's mesh is.
        """
        if len(pose) == 0:  # the shapes of one person's result, without the person
            one = self.fit(
                smpl_gender, torch.zeros(1, 24, 3), torch.zeros(1, betas.shape[1]), torch.zeros(1, 3)
            )
            return map_results(lambda x: x[:0], one)
        labels = pose, betas, transl
        if frames is not None and len(frames.sequence) != len(pose):
            raise ValueError(f"frames: expected those of {len(pose)} rows, found {len(frames.sequence)}")
        config = self.config.temporal
        if frames is None or config is None or not (frames.sequence >= 0).any():
            return self._fit_alone(smpl_gender, *labels)
        return self._fit_frames(smpl_gender, labels, frames, config)

    def _fit_alone(self, smpl_gender: str, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        pairs, size = self.prepare(smpl_gender), self.config.batch or self.backend.people

        def fit_from(start: int) -> FitResult:
            # Sums over tensors are rounded in an order that follows their layout.
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
        frames: Frames,
        config: TemporalConfig,
    ) -> FitResult:
        """Sequences each as one problem, and rows that are in none by themselves."""
        sequences = frames.sequences()
        framed, alone = np.concatenate(sequences), np.flatnonzero(frames.sequence < 0)
        ends = np.cumsum([0, *map(len, sequences)])
        chains = [np.arange(a, b) for a, b in pairwise(ends)]
        few = [x[torch.from_numpy(framed)].to("cpu", torch.float32).contiguous() for x in labels]
        shapes = [frames.shapes.get(int(frames.sequence[rows[0]])) for rows in sequences]
        found = [
            fit_sequences(pair, config, few, chains, frames.time[framed], shapes)
            for pair in self.prepare(smpl_gender)
        ]
        results = [reduce(lambda a, b: better_sequences(a, b, chains), found)]
        if len(alone):
            rows = torch.from_numpy(alone)
            results.append(self._fit_alone(smpl_gender, *(x[rows] for x in labels)))
        back = torch.from_numpy(np.argsort(np.concatenate((framed, alone))))
        return map_results(lambda *x: torch.cat(x)[back], *results)

    def prepare(self, smpl_gender: str) -> tuple[PairFitter, ...]:
        """The tables for labels of a gender, one for each SKEL that is tried; made at the first call.

        By one thread: how a matrix product rounds may depend on how many share it, and people's answers with it.
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
        """What fits one SKEL to meshes of one SMPL gender; another method of fitting overrides this."""
        return PairFitter(self.models, smpl_gender, skel_gender, self.config, self.backend)

    def run_batches(self, function: Callable[[int], FitResult], starts: Sequence[int]) -> list[FitResult]:
        """The batches that start at these rows; another method of fitting overrides this."""
        return run_batches(self.backend, function, starts)


class PairFitter:
    """Fits one SKEL to the meshes that one SMPL makes of labels; holds the tables of both."""

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
        self.couplings = torch.tensor(spine_couplings(config.spine), dtype=torch.float32)
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
        free_betas = smpl_gender != skel_gender
        self.schedule: Schedule = make_schedule(
            backend, config, self.body, skin, self.dof_limits, located, free_betas
        )
        self.progress = stage_skin(self.skel, "all", "all", PROGRESS_STRIDE, backend.block, backend.device)
        self.whole = stage_skin(self.skel, "all", "all", 1, backend.block, backend.device, models.keypoints44)

    @torch.no_grad()
    def fit(self, pose: Tensor, betas: Tensor, transl: Tensor) -> FitResult:
        """Fit one batch; arguments as `Fitter.fit` takes them, float32 on the host."""
        batch = self.start(pose, betas)
        progress: list[Measured] = []
        status = self.run(batch, lambda: progress.append(self.progress_of(batch)))
        return self.result(batch, status, progress, pose, betas, transl)

    def run(self, batch: Batch, between: Callable[[], None]) -> Tensor:
        """All stages; between them a call. Returns the status, on the host; another method overrides this."""
        return self.schedule.run(batch, between)

    def progress_of(self, batch: Batch) -> Measured:
        """Where it is, so far."""
        return measure(self.backend, self.progress, self.body, batch)

    def transferred(self, betas: Tensor) -> Tensor:
        """SKEL's betas (B, K) of a label's (B, 10), in closed form."""
        return self.beta_offset + (betas[:, None] * self.beta_matrix).sum(-1)

    def result(
        self,
        batch: Batch,
        status: Tensor,
        progress: list[Measured],
        pose: Tensor,
        betas: Tensor,
        transl: Tensor,
    ) -> FitResult:
        """What is known of a batch that has been fitted to these labels."""
        skel_betas = self.transferred(betas)
        measured = [*progress, measure(self.backend, self.whole, self.body, batch)]
        q, fitted, moved, located, *distances = self.backend.read_all(
            batch.q, batch.betas, batch.trans, batch.located, *(m.array for m in measured)
        )
        errors = [m.errors(x) for m, x in zip(measured, distances, strict=True)]
        found = errors[-1]
        q = wrap_near(q, self.middle)
        value, decrease = status[:, 1], status[:, 2]

        rot = roma.rotvec_to_rotmat(pose[:, 0])
        # (B, 3, 3): how far the pelvis is turned, in its own frame; moved (B, 3) m is in the canonical one.
        turned = angles_to_rotation(self.root_ball, q[:, None, list(ROOT_DOFS)])[:, 0]
        skel_root = self.skel.j_template[0] + blend_shapes(self.skel.j_shapedirs[:1], fitted)[:, 0]
        frozen = root_translation(transl, rot, self.smpl.root_joint(betas), skel_root)

        def place(points: Tensor) -> Tensor:
            """From the canonical frame to the label's: turned about SKEL's root, then moved."""
            return (points - skel_root[:, None]) @ rot.mT + (skel_root + frozen)[:, None]

        objective = found.mean_square + self._priors(q, fitted) + self._drawn(located, found.joints)
        objective = objective + self._root_prior(turned, moved)
        rest = [rest_distance(self.rest_form, betas, b) for b in (skel_betas, fitted)]
        q[:, list(ROOT_DOFS)] = root_angles(self.skel.frames(fitted[:1]).frame[0, 0], rot, turned)
        trans = frozen + (rot @ moved[..., None])[..., 0]
        finite = q.isfinite().all(1) & trans.isfinite().all(1) & found.largest.isfinite()
        return FitResult(
            poses=q,
            betas=fitted,
            trans=trans,
            converged=finite & self.schedule.converged(status),
            gain=decrease / value,
            finite=finite,
            pve_mm=1000 * found.mean,
            max_vertex_mm=1000 * found.largest,
            stage_pve_mm=1000 * torch.stack([e.mean for e in errors], 1),
            objective=objective,
            female=torch.full_like(finite, self.skel.gender == "female"),
            betas_mm=1000 * torch.stack(rest, 1),
            joints=place(found.joints),
            keypoints3d=place(found.points) if self.whole.num_points else None,
        )

    def _priors(self, q: Tensor, betas: Tensor) -> Tensor:
        """What the objective adds to the mean squared vertex error, (B,) m^2."""
        low, high = self.limits.unbind(-1)
        excess = torch.relu(q - high) + torch.relu(low - q)
        priors = self.config.limit_weight * excess.square().sum(1)
        priors = priors + (q[:, None] * self.couplings).sum(2).square().sum(1)
        if self.smpl.gender != self.skel.gender:
            priors = priors + self.config.beta_weight * betas.square().sum(1)
        return priors

    def _root_prior(self, turned: Tensor, moved: Tensor) -> Tensor:
        """What turning (B, 3, 3) and moving (B, 3) m the root adds to it; nothing where it is frozen."""
        prior, away = self.config.root_prior, turned - torch.eye(3)
        return prior.turn / 2 * away.square().sum((1, 2)) + prior.move * moved.square().sum(1)

    def _drawn(self, located: Tensor, joints: Tensor) -> Tensor | float:
        """What drawing joints (B, 24, 3) to their places (B, R, 3) adds to it."""
        weight = self.config.stages[-1].joint_weight
        if self.locator is None or not weight:
            return 0.0
        mine = [k for k, j in enumerate(self.locator.joints) if j in self.schedule.last_joints]
        off = joints[:, [self.locator.joints[k] for k in mine]] - located[:, mine]
        return weight * off.square().sum((1, 2))

    def start(self, pose: Tensor, betas: Tensor) -> Batch:
        """People of labels' pose (B, 24, 3) and betas (B, 10) where the fit starts, on the device."""
        backend, k, count = self.backend, self.backend.kernels, len(pose)
        rows = whole_groups(np.arange(count), backend.lanes)
        groups, parts = len(rows), chunks(backend, len(rows))
        target = backend.skins(groups, len(self.smpl.v_template))
        people = skinned(backend, self.target_skin, target, rows)
        skel_betas, q = (
            torch.zeros(count, n, device=backend.device) for n in (self.skel.num_betas, NUM_DOFS)
        )
        labels = [backend.array(backend.put(x)) for x in (pose.flatten(1), betas)]
        backend.launch(
            k.closed_form_start.start,
            groups,
            [
                *labels, people.rows, self.start_tables, self.body, self.balls,
                backend.room(k.joint_frames.make_joint_frames, groups),
                backend.room(k.closed_form_start.make_start_scratch, groups),
                people.transforms, people.coefficients, backend.array(skel_betas), backend.array(q),
            ],
        )  # fmt: skip
        room = backend.room(k.skinning.make_skin_scratch, parts, backend.block, 0)
        backend.launch(k.skin_errors.target_skin, parts, [self.target_skin.skin, people, backend.chunk, room])
        status = backend.put(new_status(count, self.config.solver.damping))
        trans = torch.zeros(count, 3, device=backend.device)
        return Batch(count, target, self._located(target, count), q, skel_betas, trans, q.clone(), status)

    def solve(self, meshes: Tensor, q: Tensor, betas: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """All stages towards meshes (B, V, 3) m, from q (B, 46) and betas (B, 10).

        Returns q, betas, trans (B, 3) m and status, on the host.
        """
        backend = self.backend
        nowhere = backend.array(torch.zeros(len(q), 0, 3, device=backend.device))
        batch = batch_of(backend, meshes, q, betas, nowhere, self.config.solver.damping)
        batch = replace(batch, located=self._located(batch.target, len(q)))
        status = self.schedule.run(batch, lambda: None)
        return backend.read(batch.q), backend.read(batch.betas), backend.read(batch.trans), status

    def _located(self, target: Any, count: int) -> Any:
        """Where joints are drawn to, (B, R, 3) m."""
        backend, locator = self.backend, self.locator
        places = torch.zeros(count, len(locator.joints) if locator else 0, 3, device=backend.device)
        if locator:
            vertices = backend.ints(locator.vertices.numpy())
            weights = backend.array(locator.weights.to(backend.device))
            inputs = [vertices, weights, target, backend.array(places)]
            backend.launch(backend.kernels.regressed_points.locate, -(-count // backend.lanes), inputs)
        return backend.array(places)
