"""From SKEL parameters to SMPL parameters: the inverse fit, in moment space as the fit itself.

Both models have the same vertices, and SKEL of a gender has the shape space of SMPL of that gender, so betas follow in
closed form. The pose is 24 rotations and a translation that bring SMPL's skin onto SKEL's. A person is fitted in the
canonical frame, without the root's angles and the translation: there SMPL's joints start turned as SKEL's. The root is
composed at the end: with R the rotation of SKEL's pelvis, d = J_smpl - J_skel the distance of the two root joints at
rest, and G and t the turn and the movement of SMPL's root in the canonical frame,

    global_orient = R G,      transl = trans + R (d + t) - d.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.axis_rotations import blend_shapes
from skelfit.bodies.ball_joints import angles_to_rotation, ball_joints
from skelfit.bodies.dofs import NUM_DOFS, ROOT_DOFS
from skelfit.bodies.lazy_roma import roma
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import NUM_SMPL_JOINTS, SmplModel
from skelfit.config.smpl_settings import SmplFitConfig
from skelfit.fitting.backends.backend import Backend, by_person, make_backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.skin_tables import SkinPlan, smpl_skin, stage_skin
from skelfit.fitting.backends.smpl_tree import smpl_parents, smpl_tree
from skelfit.fitting.backends.variable_tables import JointTree, make_ball_tree, tree_variables
from skelfit.fitting.parallel_batches import run_batches
from skelfit.fitting.passes import (
    DAMPING,
    DECREASE,
    MOVED,
    VALUE,
    Rows,
    chunks,
    converged,
    new_batch,
    posing_of,
    skinned,
    solver_rules,
    whole_groups,
)
from skelfit.fitting.start.betas_transfer import beta_map

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet

# The two SKEL joints that each SMPL joint is turned halfway between at first: the spine's and the neck's bends are
# shared by two joints of SMPL each, and pronation by elbow and wrist.
SOURCES = (
    (0, 0), (6, 6), (1, 1), (11, 11), (7, 7), (2, 2), (11, 12), (9, 9), (4, 4), (12, 12), (10, 10), (5, 5),
    (12, 13), (19, 19), (14, 14), (13, 13), (20, 20), (15, 15), (21, 22), (16, 17), (23, 23), (18, 18), (23, 23),
    (18, 18),
)  # fmt: skip
_STATUS = 4


@dataclass(frozen=True)
class SmplFit:
    """SMPL parameters of N people and how well they fit; CPU tensors, a row per person."""

    pose: Tensor  # (N, 24, 3) rad, axis-angle; joint 0 is the global orientation
    betas: Tensor  # (N, 10)
    transl: Tensor  # (N, 3) m, in the frame of SKEL's translation
    converged: Tensor  # (N,) bool
    finite: Tensor  # (N,) bool; False: the other fields of the row mean nothing
    pve_mm: Tensor  # (N,) mean distance of the two skins, all vertices
    max_vertex_mm: Tensor  # (N,)


@dataclass(frozen=True)
class _PassTables:
    """The tables of passes over one choice of vertices."""

    skin: SkinPlan
    tree: JointTree
    variables: Any


@dataclass(frozen=True)
class _Batch:
    """B people on a device, in the canonical frame."""

    count: int
    target: Any  # (blocks of L people, V, 3) lane vectors, m
    start: Tensor  # (B, 96) quaternions, relative to the parents
    rotations: Tensor  # (B, 96) the same, now
    betas: Tensor  # (B, 10) SMPL's
    trans: Tensor  # (B, 3) m
    status: Tensor  # (B, 4)


class SmplFitter:
    """Fits SMPL to SKEL on one device. The tables of a gender are made once, at its first use."""

    def __init__(
        self,
        models: ModelSet,
        config: SmplFitConfig | None = None,
        device: str = "cpu",
        backend: Backend | None = None,
    ) -> None:
        """backend: None for that of the device."""
        self.models, self.config = models, config or SmplFitConfig()
        self.backend = backend or make_backend(device)
        self._genders: dict[str, GenderFitter] = {}

    def fit(self, gender: str, poses: Tensor, betas: Tensor, trans: Tensor) -> SmplFit:
        """Fit SMPL of a gender, male or female, to N people of the SKEL of that gender.

        poses (N, 46) rad, betas (N, 10), trans (N, 3) m, as SKEL takes them. A person with a number that is not finite
        gets finite = False.
        """
        fitter, size = self.prepare(gender), self.backend.batch_size
        if len(poses) == 0:  # the result of one person, without the person
            one = fitter.fit(torch.zeros(1, NUM_DOFS), torch.zeros(1, 10), torch.zeros(1, 3))
            return SmplFit(**{f.name: getattr(one, f.name)[:0] for f in fields(SmplFit)})

        def fit_from(start: int) -> SmplFit:
            # Contiguous: the layout of a tensor decides the order, and so the rounding, of sums over it.
            people = (
                x[start : start + size].to("cpu", torch.float32).contiguous() for x in (poses, betas, trans)
            )
            return fitter.fit(*people)

        parts = run_batches(self.backend, fit_from, range(0, len(poses), size))
        return SmplFit(**{f.name: torch.cat([getattr(p, f.name) for p in parts]) for f in fields(SmplFit)})

    def prepare(self, gender: str) -> GenderFitter:
        """The fitter of a gender, made at the first call, by one thread: products round by the number of threads."""
        fitter = self._genders.get(gender)
        if fitter is None:
            threads = torch.get_num_threads()
            torch.set_num_threads(1)
            try:
                fitter = self._genders[gender] = GenderFitter(self.models, gender, self.config, self.backend)
            finally:
                torch.set_num_threads(threads)
        return fitter


class GenderFitter:
    """Fits SMPL of one gender to SKEL of that gender, and has the tables of both."""

    def __init__(self, models: ModelSet, gender: str, config: SmplFitConfig, backend: Backend) -> None:
        self.config, self.backend = config, backend
        self.smpl, self.skel = SmplModel(models.smpl_of(gender)), SkelModel(models.skel_of(gender))
        self.beta_offset, self.beta_matrix = beta_map(self.skel, self.smpl)
        self.root_ball = ball_joints((0,), "cpu", torch.float64)
        device = backend.device
        self.body = body_tables(self.skel, device)
        self.target_skin = stage_skin(self.skel, "all", "all", 1, backend.block, device)
        self.smpl_tree = smpl_tree(self.smpl, device)
        self.sources = backend.ints(np.array(SOURCES))
        self.coarse, self.fine = (self._pass_tables(stride) for stride in (config.coarse_stride, 1))

    def _pass_tables(self, stride: int) -> _PassTables:
        backend, joints = self.backend, range(NUM_SMPL_JOINTS)
        skin = smpl_skin(self.smpl, backend.block, backend.device, stride, joints)
        tree = make_ball_tree(smpl_parents(self.smpl), skin.pairs)
        return _PassTables(skin, tree, tree_variables(tree, backend.device))

    @torch.no_grad()
    def fit(self, poses: Tensor, betas: Tensor, trans: Tensor) -> SmplFit:
        """Fit one batch; arguments as `SmplFitter.fit` takes them, float32 on the host."""
        given = torch.cat((poses, betas, trans), 1).isfinite().all(1)
        poses, betas, trans = (
            torch.where(given[:, None], x, torch.zeros_like(x)) for x in (poses, betas, trans)
        )
        batch = self._start(poses, betas)
        everyone = np.arange(batch.count)
        self._passes(batch, self.coarse, self.config.coarse_passes, self.config.coarse_steps)
        batch.status[:, DAMPING] = self.config.solver.damping
        self._passes(batch, self.fine, self.config.fine_passes, self.config.fine_steps)
        mean, largest = self._errors(batch, everyone)
        rotations, smpl_betas, moved, status = self.backend.read_all(
            batch.rotations, batch.betas, batch.trans, batch.status
        )
        pose, transl = self._in_frame(poses, betas, trans, rotations, smpl_betas, moved)
        finite = given & pose.flatten(1).isfinite().all(1) & transl.isfinite().all(1) & largest.isfinite()
        return SmplFit(
            pose=pose,
            betas=smpl_betas,
            transl=transl,
            converged=finite & converged(status, self.config.passes),
            finite=finite,
            pve_mm=1000 * mean,
            max_vertex_mm=1000 * largest,
        )

    def _start(self, poses: Tensor, betas: Tensor) -> _Batch:
        """The batch where the fit starts: SKEL's skin as the target, SMPL's joints turned as SKEL's."""
        backend, k, count = self.backend, self.backend.kernels, len(poses)
        rows = whole_groups(np.arange(count), backend.lanes)
        groups = len(rows)
        target = backend.target_skins(groups, len(self.skel.v_template))
        people = skinned(backend, self.target_skin, target, rows)
        canonical = poses.clone()
        canonical[:, list(ROOT_DOFS)] = 0
        nothing = backend.array(torch.zeros(count, 0, 3, device=backend.device))
        posed = new_batch(
            backend,
            target,
            nothing,
            backend.upload(canonical),
            backend.upload(betas),
            self.config.solver.damping,
        )
        rotations = torch.zeros(count, 4 * NUM_SMPL_JOINTS, device=backend.device)
        backend.launch(
            k.smpl_start.start_smpl,
            groups,
            [
                people.rows, self.target_skin.skin, posing_of(backend, groups, self.body, posed),
                self.smpl_tree.parents, self.sources, people, backend.array(rotations),
            ],
        )  # fmt: skip
        parts = chunks(backend, groups)
        room = backend.scratch(k.skinning.make_skin_scratch, parts, backend.block, 0)
        backend.launch(k.skin_errors.target_skin, parts, [self.target_skin.skin, people, backend.chunk, room])
        # Not a matrix product: its rounding may depend on the number of people.
        smpl_betas = self.beta_offset + (betas[:, None] * self.beta_matrix).sum(-1)
        status = torch.zeros(count, _STATUS)
        status[:, DECREASE], status[:, DAMPING] = torch.inf, self.config.solver.damping
        return _Batch(
            count,
            target,
            rotations.clone(),
            rotations,
            backend.upload(smpl_betas),
            torch.zeros(count, 3, device=backend.device),
            backend.upload(status),
        )

    def _passes(self, batch: _Batch, tables: _PassTables, most: int, steps: int) -> None:
        """Passes of all people, and more of those who have not settled."""
        rows = np.arange(batch.count)
        for _ in range(most):
            self._run_pass(batch, tables, rows, steps)
            status = self.backend.read(batch.status)
            gaining = status[:, DECREASE] > self.config.passes.late_gaining * status[:, VALUE]
            unsettled = (status[:, MOVED] > self.config.moving) | gaining
            rows = rows[unsettled[torch.from_numpy(rows)].numpy()]
            if len(rows) == 0:
                return

    def _run_pass(self, batch: _Batch, tables: _PassTables, rows: Rows, steps: int) -> None:
        """A vertex pass and the solver's steps, of people (rows, (K,))."""
        backend, k, config = self.backend, self.backend.kernels, self.config
        grouped = whole_groups(rows, backend.lanes)
        count, joints, pairs = len(grouped), NUM_SMPL_JOINTS, len(tables.tree.pairs)
        people = self._posed(batch, tables.skin, grouped)
        moments = k.moments.SkinMoments()
        moments.start, moments.d = (backend.lanes_of(count, joints, 12) for _ in range(2))
        moments.pairs, moments.value = backend.lanes_of(count, pairs, 10), backend.lanes_of(count)
        parts = chunks(backend, count)
        room = backend.scratch(k.skinning.make_skin_scratch, parts, backend.block, 0)
        backend.launch(
            k.moments.posed_moments, parts, [tables.skin.skin, people, backend.chunk, room, moments]
        )
        rules = solver_rules(backend, config.solver, steps, config.tolerance, config.max_angle_step)
        rules.turn_weight = config.turn_weight
        places = np.arange(count * backend.lanes).reshape(count, backend.lanes)
        backend.launch(
            k.smpl_solver.solve_smpl,
            count,
            [
                people.rows, backend.ints(places), backend.slots(count), rules, self._state(batch), moments,
                tables.variables, self.smpl_tree, backend.scratch(k.smpl_joints.make_smpl_frames, count),
                backend.scratch(
                    k.quadratic.make_quadratic_form, count, joints, pairs, tables.variables.num_cells
                ),
                backend.scratch(k.smpl_solver.make_smpl_scratch, count),
                backend.scratch(k.damped_step.make_newton_scratch, count, len(tables.tree.dofs)),
            ],
        )  # fmt: skip

    def _posed(self, batch: _Batch, skin: SkinPlan, grouped: Rows) -> Any:
        """The inputs of a vertex pass of groups of rows (G, L), posed."""
        backend, k, count = self.backend, self.backend.kernels, len(grouped)
        people = skinned(backend, skin, batch.target, grouped)
        backend.launch(
            k.smpl_solver.pose_smpl_people,
            count,
            [
                people.rows, self._state(batch), self.smpl_tree,
                backend.scratch(k.smpl_joints.make_smpl_frames, count),
                backend.scratch(k.smpl_solver.make_smpl_scratch, count), people,
            ],
        )  # fmt: skip
        return people

    def _state(self, batch: _Batch) -> Any:
        state = self.backend.kernels.smpl_solver.SmplState()
        for name in ("start", "rotations", "betas", "trans", "status"):
            setattr(state, name, self.backend.array(getattr(batch, name)))
        return state

    def _errors(self, batch: _Batch, rows: Rows) -> tuple[Tensor, Tensor]:
        """Mean and largest distance (B,) m of the two skins, over all vertices."""
        backend, k = self.backend, self.backend.kernels
        grouped = whole_groups(rows, backend.lanes)
        groups, parts = len(grouped), chunks(backend, len(grouped))
        people, out = self._posed(batch, self.fine.skin, grouped), k.skin_errors.SkinErrors()
        out.mean, out.mean_square, out.largest = (backend.lanes_of(groups) for _ in range(3))
        out.points, out.joints = (backend.lanes_of(groups, 0, 3) for _ in range(2))
        room = backend.scratch(k.skinning.make_skin_scratch, parts, backend.block, 0)
        backend.launch(
            k.skin_errors.posed_errors, parts, [self.fine.skin.skin, people, backend.chunk, room, out]
        )
        mean, largest = backend.read_all(out.mean, out.largest)
        return by_person(mean, batch.count), by_person(largest, batch.count)

    def _in_frame(
        self,
        poses: Tensor,
        betas: Tensor,
        trans: Tensor,
        rotations: Tensor,
        smpl_betas: Tensor,
        moved: Tensor,
    ) -> tuple[Tensor, Tensor]:
        """Pose (B, 24, 3) and transl (B, 3) in SKEL's frame, of rotations (B, 96) and movement (B, 3) beside it."""
        frame = self.skel.frames(betas[:1]).frame[0, 0].double()  # the pelvis', the same for all shapes
        angles = poses[:, None, list(ROOT_DOFS)].double()
        frame = frame.expand(len(poses), 3, 3)  # torch would make one product of all people
        turn = frame @ angles_to_rotation(self.root_ball, angles)[:, 0] @ frame.mT
        quaternions = rotations.double().unflatten(1, (NUM_SMPL_JOINTS, 4))
        local = roma.unitquat_to_rotmat(quaternions / quaternions.norm(dim=-1, keepdim=True))
        local[:, 0] = turn @ local[:, 0]
        skel_root = self.skel.j_template[0] + blend_shapes(self.skel.j_shapedirs[:1], betas)[:, 0]
        d = (self.smpl.root_joint(smpl_betas) - skel_root).double()
        # The small numbers first: far from the origin, sums lose more digits.
        transl = trans.double() + ((turn @ (d + moved.double())[..., None])[..., 0] - d)
        return roma.rotmat_to_rotvec(local).float(), transl.float()
