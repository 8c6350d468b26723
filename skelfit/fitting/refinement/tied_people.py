"""People of a refinement who are frames of sequences, refined as one problem.

The objective of a sequence is the sum of its frames' own, in the last phase, and of the ties between them: of two
consecutive frames f and g, dt seconds apart,

    w / dt^2 (sum_j |D_g,j - D_f,j|^2 / 2 + move |d_g - d_f|^2),
    D_f,j = R_j(a_f)^T R_j(x_f),   d_f = t(x_f) - t(a_f),   a_f: the anchor, the label.

Betas are no variables of it: the frames share those that are best for all of them where single refinements end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import warp as wp
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, NUM_JOINTS
from skelfit.fitting.backends.variable_tables import JointTree
from skelfit.fitting.parallel_batches import Each
from skelfit.fitting.refinement.keypoint_solver import FIRST_ANGLE, ImageTargets, KeypointSolver, RefineRun
from skelfit.fitting.refinement.refinement_problem import VARIABLES
from skelfit.fitting.sequences.chain_steps import chain_sum, step_chains
from skelfit.fitting.sequences.shared_betas import eliminate_pose
from skelfit.fitting.sequences.tied_frames import FrameChains, FrameGroups, Indices, TiedFrames
from skelfit.fitting.terms.label_jumps import label_jumps
from skelfit.fitting.terms.temporal_smoothness import make_frame_ties

if TYPE_CHECKING:
    from skelfit.config.refine_settings import TiesConfig

_POSE = FIRST_ANGLE + NUM_DOFS  # variables without betas
_ANGLES = slice(FIRST_ANGLE, _POSE)
_BODY = JointTree(tuple(range(NUM_JOINTS)), tuple(range(NUM_DOFS)), np.zeros((0, 2), np.int64))


class TiedPeople(TiedFrames):
    """N people of one body, where a run of the solver has them, with ties of poses and translations."""

    def __init__(self, solver: KeypointSolver, run: RefineRun, each: Each, variables: int = _POSE) -> None:
        """variables: that the equations have, in their order: angles, translation, betas."""
        x, label = (run.tensors[name] for name in ("x", "label"))
        super().__init__(solver.backend, _BODY, variables, x[:, _ANGLES], label[:, _ANGLES], each)
        self.solver, self.run = solver, run
        self.rules = solver.rules(solver.config.phases[-1], 0)

    def evaluate(self, chains: FrameChains) -> Tensor:
        """Make the equations of chains; returns values as `tie` does, in squared shoulder-hip lengths."""
        self.share(chains.parts, self.evaluate_groups)
        return self.tie(chains)

    def evaluate_groups(self, part: FrameGroups) -> None:
        """Make the equations of groups of frames, each by itself."""
        backend, solver, groups = self.backend, self.solver, part[0].shape[0]
        self.launch(
            backend.kernels.refinement_frames.evaluate_frames, part[0], backend.slots(groups), self.rules,
            self.run.people, solver.tables, solver.body, *solver.scratch(groups), self.sequences, self.system,
        )  # fmt: skip

    def tie_groups(self, part: FrameGroups) -> None:
        """Add the ties of groups of frames to their equations."""
        super().tie_groups(part)
        kernel, move = self.backend.kernels.refinement_frames.tie_translations, self.solver.config.ties.move
        self.launch(kernel, *part, move, self.run.people, self.sequences, self.system)

    def move(self, frames: Any) -> None:
        """Move groups of frames (G, L) along the solution, and write what it promises."""
        backend, solver, groups = self.backend, self.solver, frames.shape[0]
        self.launch(
            backend.kernels.refinement_frames.move_frames, frames, backend.slots(groups), self.rules,
            self.run.people, solver.all_balls, *solver.scratch(groups)[3:], self.sequences, self.system,
        )  # fmt: skip

    def equations(self, chains: FrameChains) -> tuple[Tensor, Tensor]:
        """Matrices (N, n, n) and gradients (N, n) of the frames of chains, each by itself; float64 on the host."""
        self.share(chains.parts, self.evaluate_groups)
        upper = self.backend.read(wp.to_torch(self.system.matrix)).double().triu()
        gradient = self.backend.read(wp.to_torch(self.sequences.gradient)).double()
        return upper + upper.triu(1).mT, gradient


@dataclass(frozen=True)
class TiedResult:
    """N people after the steps of their chains; on the host."""

    x: Tensor  # (N, 59)
    objective: Tensor  # (N, 2) their own of the last phase, at the start and now
    gain: Tensor  # (N,) the gain that one more step promises, as a share of the objective
    lower: NDArray[np.bool_]  # (C,) chains whose objective, with ties, is below that of their start


def refine_chains(
    solver: KeypointSolver, start: Tensor, x: Tensor, targets: ImageTargets, chains: Sequence[Indices],
    time: NDArray[np.float64], each: Each,
) -> TiedResult:  # fmt: skip
    """Refine people (N, 59) as chains, each at least two of them in the order of time (N,) s.

    start: where they were before they were refined; x: where single refinements ended.
    """
    config, backend = solver.config, solver.backend
    run = solver.start(x, targets)
    run.x[:, _POSE:] = common_betas(TiedPeople(solver, run, each, VARIABLES), run.x, chains).to(run.x)
    people = TiedPeople(solver, run, each)
    jumps = label_jumps(people.label_rotations(), chains, time)
    weight = config.ties.weight / (1 + (jumps / config.ties.jump) ** 2) ** 2
    people.set_ties(make_frame_ties(chains, time, weight))
    ended = run.x.clone()
    run.x.copy_(start)
    before = people.evaluate(people.chains(chains))
    run.x.copy_(ended)
    after, promise = _steps(people, chains, config.ties)
    sums = [[chain_sum(chain, value) for chain in chains] for value in (before, after)]
    own = torch.stack((before[:, 0], after[:, 0]), 1)
    lower = np.array(sums[1]) < np.array(sums[0])
    return TiedResult(backend.read(run.x), own, promise / after[:, 0], lower)


def common_betas(people: TiedPeople, x: Tensor, chains: Sequence[Indices]) -> Tensor:
    """The betas (N, 10) that the frames of each chain share: the best for all, each in its best pose for them.

    They keep within the bound of single refinements.
    """
    matrix, gradient = people.equations(people.chains(chains))
    own = people.backend.read(x[:, _POSE:]).double()
    systems, common = eliminate_pose(matrix, gradient, own), own.clone()
    bounds = people.backend.read(people.run.tensors["beta_bound"]).double()
    for chain in chains:
        bound = bounds[chain].min()
        common[chain] = systems.take(torch.from_numpy(chain)).common().clamp(-bound, bound)
    return common


def _steps(people: TiedPeople, chains: Sequence[Indices], ties: TiesConfig) -> tuple[Tensor, Tensor]:
    """Rounds of steps, of the chains that would gain by more; values (N, 3) and promises (N,) at the end."""
    solver, rules = people.solver.config.solver, people.rules
    damping = torch.full((len(people.q),), solver.damping)
    value, promise = torch.zeros(len(people.q), 3), torch.zeros(len(people.q))
    going = list(chains)
    for _ in range(ties.rounds):
        step = partial(step_chains, people, people.evaluate, (people.run.x,), damping)
        active, after = step(going, ties.steps, solver, float(rules.noise))
        frames = torch.from_numpy(active.frames)
        value[frames], promise[frames] = after[frames], people.promise[frames]
        going = [c for c in going if float(promise[c].sum()) > rules.tolerance * chain_sum(c, value)]
        if not going:
            break
    return value, promise
