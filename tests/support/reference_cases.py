"""Objectives of people with known bodies, for kernels and for the reference.

goal = KINDS[kind](model)      of a SkelModel in float64; its tensors, made float32, are a kernel's input
x = near(goal)                 variables to evaluate at
goal.evaluate(x, exact=True)   the expected result
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from skelfit.bodies.dofs import DOF_JOINT, NUM_DOFS, STAGE_JOINTS, dof_limits
from skelfit.bodies.skel import SkelModel
from skelfit.fitting.baseline.naive_objective import NaiveObjective
from skelfit.fitting.terms.shoulder_targets import JointTargets

# m per rad: two that share a DoF, and one of three.
TIES = ({28: 0.3, 31: -0.2}, {28: 0.1, 32: 0.2}, {27: 0.2, 30: -0.3, 33: 0.1})
COUNT, LIMIT_WEIGHT, BETA_WEIGHT, JOINT_WEIGHT = 2, 0.02, 1e-3, 0.3
TURN_WEIGHT, MOVE_WEIGHT = 0.05, 0.7
STRIDE = 25


def dofs_of(part: str) -> Tensor:
    return torch.tensor([i for i, j in enumerate(DOF_JOINT) if j in STAGE_JOINTS[part]])


def make(model: SkelModel, part: str = "all", *, betas: bool = False, **more: Any) -> NaiveObjective:
    """Two people, a target of other shape and pose, unequal weights of vertices, narrow limits."""
    source = torch.Generator().manual_seed(3)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    few = model.with_vertices(np.arange(0, len(model.v_template), STRIDE))
    shape, q = normal(COUNT, model.num_betas), 0.4 * normal(COUNT, NUM_DOFS)
    target = few.forward(few.shape(shape + 0.3), q + 0.1 * normal(COUNT, NUM_DOFS))
    om = 0.5 + torch.rand(len(few.v_template), generator=source, dtype=torch.float64)
    base = NaiveObjective(
        model=few,
        om=om / om.sum(),
        target=target.vertices,
        dofs=dofs_of(part),
        q=q,
        betas=shape,
        limits=torch.tensor(dof_limits()) / 6,
        limit_weight=LIMIT_WEIGHT,
        beta_weight=BETA_WEIGHT if betas else None,
    )
    return replace(base, **more)


def shoulders(goal: NaiveObjective) -> JointTargets:
    """Targets a little beside the shoulders."""
    joints = (14, 15, 19, 20)
    at = goal.model.forward(goal.model.shape(goal.betas), goal.q).joints[:, list(joints)]
    return JointTargets(joints, at + 0.03, JOINT_WEIGHT)


def ties() -> Tensor:
    """Forms (3, 46) of the spine and head."""
    forms = torch.zeros(len(TIES), NUM_DOFS, dtype=torch.float64)
    for form, factors in zip(forms, TIES, strict=True):
        form[list(factors)] = torch.tensor(list(factors.values()), dtype=torch.float64)
    return forms


KINDS: dict[str, Callable[[SkelModel], NaiveObjective]] = {
    "pose": make,
    "lower body": lambda m: make(m, "lower_body"),
    "held": lambda m: make(m).hold(),
    "betas": lambda m: make(m, betas=True),
    "betas, held": lambda m: make(m, betas=True).hold(),
    "joints": lambda m: replace(make(m), joints=shoulders(make(m))),
    "couplings": lambda m: make(m, couplings=ties()).hold(),
    "all of it": lambda m: replace(make(m, betas=True, couplings=ties()), joints=shoulders(make(m))).hold(),
    "free root": lambda m: make(m, "with_root", free_translation=True).hold(),
    "free root, betas": lambda m: make(m, "with_root", free_translation=True, betas=True).hold(),
    "free root, joints": lambda m: replace(
        make(m, "with_root", free_translation=True, betas=True), joints=shoulders(make(m))
    ),
    "turning root": lambda m: make(m, "with_root", turn_weight=TURN_WEIGHT).hold(),
    "held root": lambda m: held_root(m).hold(),
    "held root, betas": lambda m: held_root(m, betas=True).hold(),
}


def held_root(model: SkelModel, betas: bool = False) -> NaiveObjective:
    """A free root under its prior, and joint targets."""
    goal = make(
        model,
        "with_root",
        betas=betas,
        free_translation=True,
        turn_weight=TURN_WEIGHT,
        move_weight=MOVE_WEIGHT,
    )
    return replace(goal, joints=shoulders(goal))


def near(goal: NaiveObjective) -> Tensor:
    """Variables a little off the start, some of them beyond a limit."""
    x = goal.start
    x = x + 0.05 * torch.randn(x.shape, generator=torch.Generator().manual_seed(5), dtype=x.dtype)
    low, high = goal.limits[goal.dofs].unbind(-1)
    angles = x[:, : len(goal.dofs)]
    beyond = (angles > high) | (angles < low)
    assert beyond.any() and not beyond.all()
    return x
