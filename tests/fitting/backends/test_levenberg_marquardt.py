"""The solver kernel against the naive one: evaluations, and its rules one by one."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import pi
from typing import Any

import numpy as np
import pytest
import torch
from backends import NEAR, assert_agrees
from kernel_passes import CONFIG, MOVED_BEFORE, KernelPass, of_floats
from naive_solver import Solution, joint_move, levenberg_marquardt
from reference_cases import KINDS, MOVE_WEIGHT, TURN_WEIGHT, make, near
from torch import Tensor

from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_index, dof_limits
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.baseline.naive_objective import Evaluation, NaiveObjective
from skelfit.fitting.passes import DAMPING, EXCESS, MOVED, VALUE, run_pass, solve
from skelfit.fitting.terms.shoulder_targets import JointTargets


@pytest.mark.parametrize(
    "kind",
    [
        "lower body", "held", "betas, held", "joints", "couplings", "all of it", "free root", "free root, betas",
        "turning root", "held root", "held root, betas",
    ],
)  # fmt: skip
def test_an_evaluation_agrees_with_the_reference(backend: Backend, model: SkelModel, kind: str) -> None:
    goal = of_floats(KINDS[kind](model))
    x, exact = near(goal).float().double(), True
    people = KernelPass(backend, goal)
    actual, expected = people.evaluate(x, exact), without_curvature_of_betas(goal, goal.evaluate(x, exact))
    assert_agrees(actual, expected)
    if exact:
        assert expected.hessian is not None
        assert (expected.hessian - expected.matrix).abs().max() > 1e-2 * expected.hessian.abs().max()
    if goal.free_translation:
        away = backend.read(people.batch.trans) - goal.translation(x)
        assert away.abs().max() < NEAR.skin_m and goal.translation(x).abs().max() > 1e-2
        assert (backend.read(people.batch.trans)[0] - torch.tensor(MOVED_BEFORE)).abs().max() > 1e-2


def without_curvature_of_betas(goal: NaiveObjective, state: Evaluation) -> Evaluation:
    """Kernels use the Gauss-Newton matrix in the rows and columns of betas."""
    if state.hessian is None:
        return state
    n, hessian = len(goal.dofs), state.hessian.clone()
    hessian[:, n:], hessian[:, :, n:] = state.matrix[:, n:], state.matrix[:, :, n:]
    return replace(state, hessian=hessian)


# Rule by rule, against the naive solver.

# Each number of these rules shows within a few steps.
OTHER = replace(
    CONFIG,
    max_angle_step=0.05,
    solver=replace(
        CONFIG.solver, damping=1e-2, damping_min=4e-3, damping_up=3.0, damping_down=0.7, max_beta_step=0.1
    ),
)


LOOSE = replace(CONFIG, solver=replace(CONFIG.solver, noise=1e7))
REST = 0.1


def reference_steps(
    goal: NaiveObjective,
    x: Tensor,
    steps: int,
    config: FitConfig = CONFIG,
    tolerance: float = 0.0,
    exact: bool = False,
) -> Solution:
    """The naive solver in float64, with the rounding of a value in float32."""
    single, double = (torch.finfo(t).eps for t in (torch.float32, torch.float64))
    solver = replace(config.solver, noise=config.solver.noise * single / double)
    move = joint_move(goal.dofs, goal.limits.numpy(), config.max_angle_step, solver.max_beta_step)
    evaluate = partial(goal.evaluate, exact=exact)
    return levenberg_marquardt(evaluate, x, steps, move, tolerance, config=solver)


@dataclass(frozen=True)
class FarStart:
    """Two people, one of them far from the target, before and after steps of the naive solver."""

    goal: NaiveObjective
    x: Tensor  # (2, n)
    after: dict[str, Solution]


@lru_cache
def far(model: SkelModel, kind: str) -> FarStart:
    goal = of_floats(KINDS[kind](model))
    noise = torch.randn(goal.start.shape, generator=torch.Generator().manual_seed(14)).double()
    noise[:, len(goal.dofs) :] = 0  # betas are those of the pass
    x = (goal.start + torch.tensor([[0.1], [0.6]]) * noise).float().double()
    after = {"2 small": reference_steps(goal, x, 2, OTHER)}
    if kind == "lower body":
        after["3 exact"] = reference_steps(goal, x, 3, exact=True)
    elif kind in ("free root, betas", "held root"):
        after["4"] = reference_steps(goal, x, 4)
    else:
        after["12"] = reference_steps(goal, x, 12)
    if kind == "joints":
        after["12 or rest"] = reference_steps(goal, x, 12, tolerance=REST)
    if kind == "all of it":
        after["12 loose"] = reference_steps(goal, x, 12, LOOSE)
    return FarStart(goal, x, after)


@pytest.mark.parametrize("kind", ["lower body", "joints", "all of it", "free root, betas", "held root"])
def test_steps_agree_with_the_naive_solver(backend: Backend, model: SkelModel, kind: str) -> None:
    """The damping shows which steps were accepted. Small: each step is at its bound."""
    case = far(model, kind)
    for name, right in case.after.items():
        config = OTHER if "small" in name else LOOSE if "loose" in name else CONFIG
        people, steps = KernelPass(backend, case.goal, config), int(name.split()[0])
        rules = people.rules(steps, REST if "rest" in name else 0.0)
        rules.exact = int("exact" in name)
        actual = people.steps(case.x, steps, rules)
        capped = torch.where(
            right.accepted > 0, right.damping.clamp(max=config.solver.damping), right.damping
        )
        torch.testing.assert_close(actual.damping.double(), capped, rtol=1e-5, atol=0)
        assert (actual.x - right.x).abs().max() < 1e-4, name
        torch.testing.assert_close(actual.value.double(), right.value, rtol=2e-5, atol=0)
        torch.testing.assert_close(actual.decrease.double(), right.decrease, rtol=1e-3, atol=1e-7)


def test_each_rule_changes_those_steps(model: SkelModel) -> None:
    """Otherwise the test above would not check them."""
    for kind in ("joints", "all of it"):
        after, x = far(model, kind).after, far(model, kind).x
        assert (after["12"].accepted[1] < 12) == (kind == "all of it")
        moved = (after["2 small"].x - x).abs().amax(1)
        assert (moved > 0.05).all() and (kind == "all of it" or (moved < 0.3).all())
    assert (far(model, "joints").after["12 or rest"].x - far(model, "joints").after["12"].x)[0].norm() > 1e-3
    loose = far(model, "all of it").after["12 loose"]
    assert (loose.accepted == 12).all() and (loose.x - far(model, "all of it").after["12"].x)[1].norm() > 1e-2


HELD = {"free_translation": True, "turn_weight": TURN_WEIGHT, "move_weight": MOVE_WEIGHT}


def many_people(model: SkelModel, count: int, betas: bool, root: bool = False) -> NaiveObjective:
    """People, many of them beyond the limits of a shoulder; root: free, under a prior."""
    source = torch.Generator().manual_seed(11)
    base = make(model, "with_root", betas=betas, **HELD) if root else make(model, betas=betas)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    shape, q = normal(count, 10), 0.4 * normal(count, NUM_DOFS).index_fill(1, torch.arange(3), 0.0)
    target = base.model.forward(base.model.shape(shape + 0.3), q + 0.2 * normal(count, NUM_DOFS)).vertices
    rows = base.model.forward(base.model.shape(shape), q).joints[:, [14, 15, 19, 20]] + 0.03
    goal = replace(base, q=q, betas=shape, target=target, joints=JointTargets((14, 15, 19, 20), rows, 0.3))
    return goal


def people_of(goal: NaiveObjective, rows: Any) -> NaiveObjective:
    return goal.take(torch.as_tensor(rows))


def whole_pass(backend: Backend, goal: NaiveObjective, rows: Any = None) -> Tensor:
    """The variables and status (B, ...) after a pass of some rows with steps, Euler branches and joint targets."""
    people = KernelPass(backend, goal)
    rules = people.rules(4, 1e-3)
    rules.exact = int(not people.betas)
    rows = np.arange(len(goal.q)) if rows is None else rows
    run_pass(backend, people.tables, people.batch, rows, rules, branch_steps=2)
    batch = people.batch
    actual = (batch.q, batch.betas, batch.origin, batch.trans, batch.status)
    return torch.cat([backend.read(x) for x in actual], 1)


@lru_cache
def by_eights(model: SkelModel, betas: bool, root: bool) -> Tensor:
    return whole_pass(make_backend("cpu", 8, 1), many_people(model, 53, betas, root))


FREE = pytest.mark.parametrize(
    ("betas", "root"), [(False, False), (True, False), (False, True), (True, True)]
)


@FREE
def test_results_do_not_depend_on_the_batch(
    backend: Backend, model: SkelModel, betas: bool, root: bool
) -> None:
    """The same bits alone, in an incomplete group, in the last group, in another order, and with gaps."""
    lanes, goal = backend.lanes, many_people(model, 53, betas, root)
    count = 3 * lanes + 5
    expected = whole_pass(backend, people_of(goal, range(count)))
    doubt = expected[:, -2:]
    assert expected.isfinite().all() and (doubt > 0.02).any() and not (doubt > 0.02).all()
    for few in {1, max(lanes - 1, 1), lanes, lanes + 1}:
        assert torch.equal(whole_pass(backend, people_of(goal, range(few))), expected[:few])
    order = list(reversed(range(count)))
    assert torch.equal(whole_pass(backend, people_of(goal, order)), expected[order])
    chosen = np.array([2, 0, count - 1, 5])
    others = np.delete(np.arange(count), chosen)
    actual = whole_pass(backend, people_of(goal, range(count)), chosen)
    assert torch.equal(actual[chosen], expected[chosen])
    assert torch.equal(actual[others, :NUM_DOFS], goal.q[others].float())
    if backend.device == "cpu":  # for any number of lanes
        assert torch.equal(by_eights(model, betas, root)[:count], expected)


@pytest.mark.parametrize("betas", [False, True])
def test_steps_of_some_rows_of_a_vertex_pass(backend: Backend, model: SkelModel, betas: bool) -> None:
    """Steps of a subset, gathered from the groups of a vertex pass, equal the steps of all people."""
    people = KernelPass(backend, people_of(many_people(model, 53, betas), range(2 * backend.lanes + 3)))
    x = people.variables() + 0.05
    together = people.steps(x, 3)
    rows = np.random.default_rng(1).permutation(len(x))[: backend.lanes + 2]
    rest = np.delete(np.arange(len(x)), rows)
    people.move_to(x)
    people.batch.status[:, DAMPING] = CONFIG.solver.damping
    solve(backend, people.tables, people.batch, people.moments, rows, people.rules(3))
    status = backend.read(people.batch.status)
    assert torch.equal(people.variables()[rows], together.x[rows])
    assert torch.equal(status[rows, VALUE], together.value[rows])
    assert torch.equal(people.variables()[rest], x[rest])


@pytest.mark.parametrize("betas", [False, True])
def test_a_person_that_is_not_finite_changes_no_other(
    backend: Backend, model: SkelModel, betas: bool
) -> None:
    goal = people_of(many_people(model, 53, betas), range(6))
    expected = whole_pass(backend, goal)
    q, target, shape = goal.q.clone(), goal.target.clone(), goal.betas.clone()
    q[1, 20], target[2, 30, 1], shape[4, 3] = torch.nan, torch.nan, torch.inf
    actual = whole_pass(backend, replace(goal, q=q, target=target, betas=shape))
    assert torch.equal(actual[[0, 3, 5]], expected[[0, 3, 5]])
    lost = actual[[1, 2, 4]]
    assert not lost[:, -6 + VALUE].isfinite().any()
    start = torch.cat((q, shape), 1)[[1, 2, 4]].float()
    torch.testing.assert_close(lost[:, : start.shape[1]], start, rtol=0, atol=0, equal_nan=True)


def test_a_resting_person_does_not_move(backend: Backend, model: SkelModel) -> None:
    """At a minimum, beside people who move. With much damping a person does not rest yet."""
    people = KernelPass(backend, people_of(many_people(model, 53, False), range(4)))
    least = people.steps(people.variables(), 40).x
    x = least + 0.1 * torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None]
    damping = torch.tensor([1e-4, 1e-4, 10.0, 10.0])
    actual = people.steps(x, 3, people.rules(3, 1e-4), damping)
    assert torch.equal(actual.x[0], x[0]) and actual.damping[0] == damping[0]
    assert (actual.x != x)[[1, 3]].any(1).all() and (actual.damping != damping)[1:].all()
    assert (actual.decrease[0] < 1e-4 * actual.value[0]) and (actual.decrease[1] > 1e-4 * actual.value[1])


# The other Euler branches of a shoulder.


def test_branches_are_the_shoulders_of_a_stage(model: SkelModel) -> None:
    names = [[f"shoulder_{side}_{axis}" for axis in "xyz"] for side in "rl"]
    for part, expected in (("lower body", []), ("joints", names)):
        tables = KernelPass(make_backend("cpu"), KINDS[part](model)).tables
        columns = tables.branches.numpy().reshape(-1, 3)
        assert [[DOF_NAMES[tables.tree.dofs[c]] for c in row] for row in columns] == expected
        assert tables.num_branches == len(expected)


SHOULDER = [dof_index(f"shoulder_r_{axis}") for axis in "xyz"]


@FREE
def test_a_shoulder_beyond_its_limits_is_tried_along_its_pole(
    backend: Backend, model: SkelModel, betas: bool, root: bool
) -> None:
    """Of three people one gains, at the same rotation, one would lose, and one is within its limits and not tried."""
    limits = torch.tensor(dof_limits())
    low, high = limits[SHOULDER].unbind(-1)
    allowed = torch.tensor(
        [0.3, pi / 2, float(low[2])], dtype=torch.float64
    )  # at the pole, at the end of its line
    excluded = allowed - torch.tensor([0.3, 0.0, 0.3])
    beyond = torch.tensor([float(high[0]) + 0.1, 0.2, 0.0], dtype=torch.float64)
    inside = torch.tensor([0.3, 0.9, -0.4], dtype=torch.float64)
    goal = replace(people_of(many_people(model, 53, betas, root), range(3)), limits=limits, joints=None)
    goal = replace(goal, beta_weight=1e-9 if betas else None)  # so that the minimum is at the target
    q = goal.q.clamp(limits[:, 0] + 0.05, limits[:, 1] - 0.05)
    at, there = q.clone(), q.clone()
    at[:, SHOULDER] = torch.stack((excluded, beyond, inside))
    there[:, SHOULDER] = torch.stack((allowed, beyond, low + 0.05))
    target = goal.model.forward(goal.model.shape(goal.betas), there).vertices
    people = KernelPass(backend, of_floats(replace(goal, q=at, target=target)))
    before = people.steps(people.goal.start, 0)
    status, x = backend.read(people.batch.status), people.variables()
    right = [people.goal.dofs.tolist().index(i) for i in SHOULDER]
    excess = (x[:, right].double() - x[:, right].double().clamp(low, high)).abs().amax(1)
    assert (status[:, EXCESS] - excess).abs().max() < 1e-6 and (status[:, EXCESS + 1] == 0).all()
    assert (excess > 0.02).tolist() == [True, True, False]

    rules = people.rules(0)
    rules.branch = 0
    if root:  # kept by a person who loses, left by a person who gains
        people.batch.trans.fill_(0.01)
    trans_before = backend.read(people.batch.trans).clone()
    solve(backend, people.tables, people.batch, people.moments, np.arange(3), rules)
    moved = backend.read(people.batch.trans)
    assert torch.equal(moved[1:], trans_before[1:])
    assert moved[0].abs().max() < 2e-6
    actual, now = people.variables(), backend.read(people.batch.status)
    assert (actual[0, right] - allowed).abs().max() < 2e-6
    rest = [k for k in range(actual.shape[1]) if k not in right]
    assert torch.equal(actual[0, rest], x[0, rest])
    assert now[0, VALUE] < 1e-3 * before.value[0] and now[0, EXCESS] < 1e-6
    assert now[0, MOVED] == pytest.approx(0.3, abs=1e-5)  # since before the pass
    for rules.pole_point in (1, 2):  # further along the pole the skin is the same: no gain
        solve(backend, people.tables, people.batch, people.moments, np.arange(3), rules)
        assert torch.equal(people.variables(), actual)
    assert torch.equal(actual[1:], x[1:]) and torch.equal(now[1:], status[1:])
    # Steps from another start leave no trace if they lose.
    rules.steps = 2
    solve(backend, people.tables, people.batch, people.moments, np.arange(1, 3), rules)
    assert torch.equal(people.variables()[1:], x[1:])
    assert torch.equal(backend.read(people.batch.trans)[1:], trans_before[1:])
    assert torch.equal(backend.read(people.batch.status)[1:], status[1:])
