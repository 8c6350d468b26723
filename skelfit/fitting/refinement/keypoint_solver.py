"""The solver of refinements on a device: one body's tables, and launches of its kernels."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.fitting.backends.backend import Backend
from skelfit.fitting.backends.body_tables import body_tables
from skelfit.fitting.backends.keypoint_tables import make_keypoint_tables
from skelfit.fitting.backends.retraction_tables import make_balls
from skelfit.fitting.passes import whole_groups
from skelfit.fitting.refinement.refinement_problem import VARIABLES
from skelfit.fitting.terms.spine_coupling import spine_couplings

if TYPE_CHECKING:
    from skelfit.bodies.model_set import ModelSet
    from skelfit.config.refine_settings import RefineConfig, RefinePhase

FIRST_ANGLE = 3
_FLOAT_EPS = float(torch.finfo(torch.float32).eps)


@dataclass(frozen=True)
class ImageTargets:
    """What kernels need of B people besides their variables; float32."""

    label: Tensor  # (B, 59) the anchor
    given: Tensor  # (B, 44, 3) keypoints in units, and confidences: 0 for those that do not count
    camera: Tensor  # (B, 6) the first two rows of the intrinsics, in units
    depth: Tensor  # (B,) m, of the start
    beta_bound: Tensor  # (B,) no |beta| goes beyond it


@dataclass(frozen=True)
class RefineRun:
    """People on the device while they are refined."""

    groups: Any  # (G, L) rows
    people: Any
    tensors: dict[str, Tensor]  # what `people` points to

    @property
    def x(self) -> Tensor:
        x, focal = (self.tensors[name] for name in ("x", "focal"))
        return torch.cat((x, focal[:, None]), 1) if self.people.zooms else x


class KeypointSolver:
    """Refines people with one SKEL body; holds its tables on a backend's device."""

    def __init__(self, models: ModelSet, gender: str, config: RefineConfig, backend: Backend) -> None:
        self.backend, self.config = backend, config
        body = SkelKeypoints(models, gender, dtype=torch.float64)
        pairs, device = body.pairs(), backend.device
        self.tables = make_keypoint_tables(pairs, spine_couplings(config.spine), device)
        self.body = body_tables(body.model, device)
        self.all_balls = _shifted(make_balls(range(NUM_JOINTS), range(NUM_DOFS), device), device)
        self._root_balls = _shifted(make_balls((0,), range(FIRST_ANGLE), device), device)
        shapes = self.tables
        self._sizes = len(pairs.joint), len(shapes.carrier_mass), len(shapes.spin_joint)
        self._columns = len(shapes.column_dof)

    def keypoints(self, x: Tensor) -> NDArray[np.float64]:
        """Keypoints (B, 44, 3) m, without translation, of variables (B, 59)."""
        backend = self.backend
        rows = whole_groups(np.arange(len(x)), backend.lanes)
        points = torch.zeros(len(x), 44, 3, device=backend.device)
        scratch = self.scratch(len(rows))
        backend.launch(
            backend.kernels.refinement_solver.place,
            len(rows),
            [
                backend.ints(rows), backend.slots(len(rows)), backend.array(backend.upload(x)),
                backend.array(points), self.tables, self.body, scratch[0], scratch[2], scratch[3],
            ],
        )  # fmt: skip
        return np.asarray(backend.read(points).double().numpy())

    def solve(self, x: Tensor, targets: ImageTargets) -> tuple[Tensor, Tensor]:
        """All phases from variables x (B, 59), or (B, 60) with the log of the focal length over the camera's.

        Returns variables, and (B, 4) the objective of the last phase at x and at the end, the decrease that one more
        step promises, and the accepted steps of the last phase.
        """
        run = self.start(x, targets)
        before = self._stepped(run, self.config.phases[-1], 0)[:, :1].clone()
        for phase in self.config.phases:
            status = self._stepped(run, phase, phase.steps)
        return self.backend.read(run.x), self.backend.read(torch.cat((before, status), 1))

    def judge(self, x: Tensor, targets: ImageTargets) -> Tensor:
        """Of variables x, as of `solve`, in the last phase, (B, 3): objective, decrease that a step promises, and 0."""
        return self.backend.read(self._stepped(self.start(x, targets), self.config.phases[-1], 0))

    def start(self, x: Tensor, targets: ImageTargets) -> RefineRun:
        """People on the device at variables x, as of `solve`."""
        backend = self.backend
        people = backend.kernels.refinement_solver.RefinePeople()
        people.zooms = x.shape[1] - VARIABLES
        x, focal = x[:, :VARIABLES].contiguous(), torch.cat((x, torch.zeros(len(x), 1)), 1)[:, VARIABLES]
        tensors = {"x": x, "focal": focal, "status": torch.zeros(len(x), 3), **vars(targets)}
        tensors["label_points"] = torch.from_numpy(self.keypoints(targets.label))
        tensors = {name: backend.upload(a) for name, a in tensors.items()}
        for name, a in tensors.items():
            setattr(people, name, backend.array(a))
        groups = backend.ints(whole_groups(np.arange(len(x)), backend.lanes))
        return RefineRun(groups, people, tensors)

    def _stepped(self, run: RefineRun, phase: RefinePhase, steps: int) -> Tensor:
        self._launch(run.groups, run.people, phase, steps)
        return run.tensors["status"]

    def _launch(self, groups: Any, people: Any, phase: RefinePhase, steps: int) -> None:
        backend, count = self.backend, groups.shape[0]
        camera = phase.moves == "camera"
        inputs = [groups, backend.slots(count), self.rules(phase, steps), people, self.tables]
        inputs += [self._root_balls if camera else self.all_balls, self.body, *self.scratch(count)]
        backend.launch(backend.kernels.refinement_solver.refine, count, inputs)

    def rules(self, phase: RefinePhase, steps: int) -> Any:
        """The constants of a phase for kernels."""
        config, solver, anchor = self.config, self.config.solver, self.config.anchor
        rules = self.backend.kernels.refinement_state.RefineRules()
        rules.steps, rules.camera, rules.torso = (
            steps,
            int(phase.moves == "camera"),
            int(phase.points == "torso"),
        )
        rules.sigma2, rules.reprojection = phase.sigma**2, phase.reprojection**2
        rules.depth, rules.shape, rules.angles = phase.depth**2, phase.shape**2, phase.angles**2
        rules.limits, rules.spine = config.limit_weight, config.spine_weight
        rules.anchor_pose, rules.anchor_root = phase.anchor * anchor.pose, phase.anchor * anchor.root
        rules.anchor_skin = phase.anchor * anchor.skin / 44
        rules.anchor_betas, rules.anchor_move = phase.anchor * anchor.betas, phase.anchor * anchor.move
        rules.focal, rules.max_focal = config.focal.weight, math.log(config.focal.range)
        rules.nearest, rules.tolerance = config.nearest, config.tolerance
        rules.max_angle_step, rules.max_move_step = config.max_angle_step, config.max_move_step
        rules.max_beta_step, rules.noise = solver.max_beta_step, solver.noise * _FLOAT_EPS
        for name in (
            "damping",
            "damping_min",
            "damping_max",
            "damping_up",
            "damping_down",
            "damping_at_rest",
        ):
            setattr(rules, name, getattr(solver, name))
        return rules

    def scratch(self, groups: int) -> list[Any]:
        """Scratch of the kernels for so many groups, in the order of their arguments."""
        backend, k = self.backend, self.backend.kernels
        balls = self.all_balls.index.shape[0]
        return [
            backend.scratch(k.joint_frames.make_joint_frames, groups),
            backend.scratch(k.betas_twists.make_beta_twists, groups),
            backend.scratch(k.keypoint_columns.make_keypoint_scratch, groups, *self._sizes, self._columns),
            backend.scratch(k.refinement_state.make_refine_scratch, groups, balls, self._columns),
            backend.scratch(k.damped_step.make_newton_scratch, groups, VARIABLES + 1),
        ]


def _shifted(balls: Any, device: str) -> Any:
    """The table of angles among the variables, which begin with the translation."""
    for name in ("index", "straight"):
        shifted = getattr(balls, name).numpy() + FIRST_ANGLE
        setattr(balls, name, wp.array(shifted.astype(np.int32), dtype=int, ndim=shifted.ndim, device=device))
    return balls
