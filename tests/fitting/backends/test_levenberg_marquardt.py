"""The solver of the lane kernels against the naive one: evaluations, damped steps, and rule by rule how it steps."""

from dataclasses import dataclass, replace
from functools import lru_cache, partial
from math import pi
from typing import Any

import numpy as np
import pytest
import torch
import warp as wp
from backends import NEAR, assert_agrees
from kernel_passes import CONFIG, MOVED_BEFORE, KernelPass, of_floats
from naive_solver import Solution, joint_move, levenberg_marquardt
from reference_cases import KINDS, MOVE_WEIGHT, TURN_WEIGHT, make, near
from solver_cases import step_cases
from torch import Tensor

from skelfit.bodies.dofs import DOF_NAMES, NUM_DOFS, dof_index, dof_limits
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import FitConfig
from skelfit.fitting.backends.backend import Backend, make_backend
from skelfit.fitting.baseline.naive_objective import Evaluation, Reference
from skelfit.fitting.baseline.naive_step import damped_step
from skelfit.fitting.passes import DAMPING, DOUBT, MOVED, VALUE, run_pass, solve
from skelfit.fitting.terms.shoulder_targets import JointGoal


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


@pytest.mark.parametrize(
    "kind",
    [
        "lower body", "held", "betas, held", "joints", "couplings", "all of it", "free root", "free root, betas",
        "turning root", "held root", "held root, betas",
    ],
)  # fmt: skip
def test_an_evaluation_is_the_references(backend: Backend, model: SkelModel, kind: str) -> None:
    goal = of_floats(KINDS[kind](model))
    x, exact = near(goal).float().double(), True
    people = KernelPass(backend, goal)
    found, expected = people.evaluate(x, exact), without_bends_of_betas(goal, goal.evaluate(x, exact))
    assert_agrees(found, expected)
    if exact:
        assert expected.hessian is not None
        assert (expected.hessian - expected.matrix).abs().max() > 1e-2 * expected.hessian.abs().max()
    if goal.free_translation:
        away = backend.read(people.batch.trans) - goal.translation(x)
        assert away.abs().max() < NEAR.skin_m and goal.translation(x).abs().max() > 1e-2
        assert (backend.read(people.batch.trans)[0] - torch.tensor(MOVED_BEFORE)).abs().max() > 1e-2


def without_bends_of_betas(goal: Reference, state: Evaluation) -> Evaluation:
    """Kernels take the matrix for the Hessian where betas are concerned."""
    if state.hessian is None:
        return state
    n, hessian = len(goal.dofs), state.hessian.clone()
    hessian[:, n:], hessian[:, :, n:] = state.matrix[:, n:], state.matrix[:, :, n:]
    return replace(state, hessian=hessian)


# Damped steps.


@lru_cache
def stepper(lanes: int) -> Any:
    """The kernel that makes a damped step of each problem."""
    step, lane = make_backend("cpu", lanes).kernels.damped_step, make_backend("cpu", lanes).kernels.lanes
    A1, NewtonScratch, make_step = lane.A1, step.NewtonScratch, step.damped_step

    @wp.kernel(module="unique", enable_backward=False)
    def steps_of(damping: A1, full_hessian: int, newton: NewtonScratch, predicted: A1):
        g, t = wp.tid()
        found = make_step(g, t, 2 * g, newton.gradient.shape[1], full_hessian, damping[g], newton)
        if t == 0:
            predicted[g] = found

    return steps_of


def kernel_steps(backend: Backend, state: Evaluation, damping: Tensor) -> tuple[Tensor, Tensor]:
    """Step (B, n) and promise (B,) of each problem, all in one launch; only upper triangles are given."""
    count, n = state.gradient.shape
    rows = torch.arange(-(-count // backend.lanes) * backend.lanes).clamp(max=count - 1)
    groups, k = len(rows) // backend.lanes, backend.kernels
    newton, predicted = k.damped_step.make_newton_scratch(groups, n, backend.device), backend.lanes_of(groups)

    def given(x: Tensor) -> Any:
        """In the first buffer of each group; the other holds what no step may read."""
        mine = x[rows].float()
        there = mine.reshape(groups, 1, backend.lanes, *x.shape[1:])
        both = torch.cat((there, torch.full_like(there, torch.nan)), 1)
        return backend.lanes_from(both.reshape(2 * len(rows), *x.shape[1:]))

    nothing = torch.full_like(state.matrix, torch.nan).tril(-1)
    newton.gradient, newton.hessian = given(state.gradient), given(state.matrix.triu() + nothing)
    if state.hessian is not None:
        newton.curvature = given((state.hessian - state.matrix).triu() + nothing)
    inputs = [backend.lanes_from(damping[rows].float()), int(state.hessian is not None), newton, predicted]
    backend.launch(stepper(backend.lanes), groups, inputs)
    return tuple(backend.people_of(x, count).double() for x in (newton.step, predicted))


@pytest.mark.parametrize("n", [43, 59])
def test_damped_steps_of_all_cases_in_one_launch(backend: Backend, n: int) -> None:
    """Side by side in the lanes of one group, each falls back as far as it has to, and the good ones not at all."""
    cases = step_cases(n)
    gradient, matrix = (torch.stack([getattr(c, k) for c in cases.values()]) for k in ("gradient", "matrix"))
    hessian = torch.stack([c.matrix if c.hessian is None else c.hessian for c in cases.values()])
    # Kernels have the Hessian as what it is more than the model, in floats.
    matrix = matrix.float().double()
    hessian = matrix + (hessian - matrix).float().double()
    state = Evaluation(matrix.new_zeros(len(cases)), gradient.float().double(), matrix, hessian)
    damping = torch.tensor([c.damping for c in cases.values()]).double()
    steps, predicted_decreases = kernel_steps(backend, state, damping)
    expected, expected_decreases = damped_step(state, damping)
    for name, step, predicted, right, its in zip(
        cases, steps, predicted_decreases, expected, expected_decreases, strict=True
    ):
        if name == "undamped":  # beyond what floats resolve: it goes down, by nearly as much
            assert predicted == pytest.approx(float(its), rel=1e-3)
        else:
            assert (step - right).abs().max() <= NEAR.step * right.abs().max(), name
            assert predicted == pytest.approx(float(its), rel=NEAR.step, abs=1e-20), name
        moved = gradient[list(cases).index(name)].any()
        assert (step @ gradient[list(cases).index(name)] < 0) == bool(moved), name

    bad = torch.tensor([c.uses == "gradient" or "indefinite" in name for name, c in cases.items()])
    calm = Evaluation(state.value, *(x.clone() for x in (state.gradient, state.matrix, state.hessian)))
    calm.matrix[bad], calm.hessian[bad] = calm.matrix[0].clone(), calm.hessian[0].clone()
    calm.gradient[bad] = torch.nan
    alone, gains = kernel_steps(backend, calm, damping)
    assert torch.equal(alone[~bad], steps[~bad]) and torch.equal(gains[~bad], predicted_decreases[~bad])
    assert not alone[bad].isfinite().all(1).any()


# Rule by rule, against the naive solver.

# So that each number of the rules shows in a few steps.
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
    goal: Reference,
    x: Tensor,
    steps: int,
    config: FitConfig = CONFIG,
    tolerance: float = 0.0,
    exact: bool = False,
) -> Solution:
    """By the naive solver, in doubles, but with floats' notion of what a value's rounding is."""
    single, double = (torch.finfo(t).eps for t in (torch.float32, torch.float64))
    solver = replace(config.solver, noise=config.solver.noise * single / double)
    move = joint_move(goal.dofs, goal.limits.numpy(), config.max_angle_step, solver.max_beta_step)
    evaluate = partial(goal.evaluate, exact=exact)
    return levenberg_marquardt(evaluate, x, steps, move, tolerance, config=solver)


@dataclass(frozen=True)
class FarStart:
    """Two people of a goal, one of them far from their target; what some steps of the naive solver make of them."""

    goal: Reference
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
def test_steps_are_those_of_the_naive_solver(backend: Backend, model: SkelModel, kind: str) -> None:
    """What is accepted shows in the damping, which also has its bounds; small: each step is at its bound."""
    case = far(model, kind)
    for name, right in case.after.items():
        config = OTHER if "small" in name else LOOSE if "loose" in name else CONFIG
        people, steps = KernelPass(backend, case.goal, config), int(name.split()[0])
        rules = people.rules(steps, REST if "rest" in name else 0.0)
        rules.exact = int("exact" in name)
        found = people.steps(case.x, steps, rules)
        capped = torch.where(
            right.accepted > 0, right.damping.clamp(max=config.solver.damping), right.damping
        )
        torch.testing.assert_close(found.damping.double(), capped, rtol=1e-5, atol=0)
        assert (found.x - right.x).abs().max() < 1e-4, name
        torch.testing.assert_close(found.value.double(), right.value, rtol=2e-5, atol=0)
        torch.testing.assert_close(found.decrease.double(), right.decrease, rtol=1e-3, atol=1e-7)


def test_the_rules_show_in_those_steps(model: SkelModel) -> None:
    """Otherwise the test above would not tell whether kernels keep them."""
    for kind in ("joints", "all of it"):
        after, x = far(model, kind).after, far(model, kind).x
        assert (after["12"].accepted[1] < 12) == (kind == "all of it")
        moved = (after["2 small"].x - x).abs().amax(1)
        assert (moved > 0.05).all() and (kind == "all of it" or (moved < 0.3).all())
    assert (far(model, "joints").after["12 or rest"].x - far(model, "joints").after["12"].x)[0].norm() > 1e-3
    loose = far(model, "all of it").after["12 loose"]
    assert (loose.accepted == 12).all() and (loose.x - far(model, "all of it").after["12"].x)[1].norm() > 1e-2


HELD = {"free_translation": True, "turn_weight": TURN_WEIGHT, "move_weight": MOVE_WEIGHT}


def many_people(model: SkelModel, count: int, betas: bool, root: bool = False) -> Reference:
    """People of a goal, many of whom are beyond the limits of a shoulder; root: it is free, under a prior."""
    source = torch.Generator().manual_seed(11)
    base = make(model, "with_root", betas=betas, **HELD) if root else make(model, betas=betas)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=source, dtype=torch.float64)

    shape, q = normal(count, 10), 0.4 * normal(count, NUM_DOFS).index_fill(1, torch.arange(3), 0.0)
    target = base.model.forward(base.model.shape(shape + 0.3), q + 0.2 * normal(count, NUM_DOFS)).vertices
    places = base.model.forward(base.model.shape(shape), q).joints[:, [14, 15, 19, 20]] + 0.03
    goal = replace(base, q=q, betas=shape, target=target, joints=JointGoal((14, 15, 19, 20), places, 0.3))
    return goal


def people_of(goal: Reference, rows: Any) -> Reference:
    return goal.take(torch.as_tensor(rows))


def whole_pass(backend: Backend, goal: Reference, rows: Any = None) -> Tensor:
    """All that a pass with steps, twins and joints leaves of people, (B, ...); of rows alone."""
    people = KernelPass(backend, goal)
    rules = people.rules(4, 1e-3)
    rules.exact = int(not people.betas)
    rows = np.arange(len(goal.q)) if rows is None else rows
    run_pass(backend, people.tables, people.batch, rows, rules, tries=2)
    batch = people.batch
    found = (batch.q, batch.betas, batch.origin, batch.trans, batch.status)
    return torch.cat([backend.read(x) for x in found], 1)


@lru_cache
def by_eights(model: SkelModel, betas: bool, root: bool) -> Tensor:
    return whole_pass(make_backend("cpu", 8, 1), many_people(model, 53, betas, root))


FREE = pytest.mark.parametrize(
    ("betas", "root"), [(False, False), (True, False), (False, True), (True, True)]
)


@FREE
def test_answers_do_not_depend_on_company(
    backend: Backend, model: SkelModel, betas: bool, root: bool
) -> None:
    """The same bits alone, in a group that is not whole, in the last of several, in another order, with gaps."""
    lanes, goal = backend.lanes, many_people(model, 53, betas, root)
    count = 3 * lanes + 5
    expected = whole_pass(backend, people_of(goal, range(count)))
    doubt = expected[:, -2:]
    assert expected.isfinite().all() and (doubt > 0.02).any() and not (doubt > 0.02).all()
    for few in {1, max(lanes - 1, 1), lanes, lanes + 1}:
        assert torch.equal(whole_pass(backend, people_of(goal, range(few))), expected[:few])
    order = list(reversed(range(count)))
    assert torch.equal(whole_pass(backend, people_of(goal, order)), expected[order])
    some = np.array([2, 0, count - 1, 5])
    others = np.delete(np.arange(count), some)
    found = whole_pass(backend, people_of(goal, range(count)), some)
    assert torch.equal(found[some], expected[some])
    assert torch.equal(found[others, :NUM_DOFS], goal.q[others].float())
    if backend.device == "cpu":  # whatever the length of a vector
        assert torch.equal(by_eights(model, betas, root)[:count], expected)


@pytest.mark.parametrize("betas", [False, True])
def test_places_in_the_vertex_pass_may_be_anyones(backend: Backend, model: SkelModel, betas: bool) -> None:
    """Steps of some people of a vertex pass, gathered from its groups, are those of all."""
    people = KernelPass(backend, people_of(many_people(model, 53, betas), range(2 * backend.lanes + 3)))
    x = people.variables() + 0.05
    together = people.steps(x, 3)
    places = np.random.default_rng(1).permutation(len(x))[: backend.lanes + 2]
    rest = np.delete(np.arange(len(x)), places)
    people.place(x)
    people.batch.status[:, DAMPING] = CONFIG.solver.damping
    solve(backend, people.tables, people.batch, people.found, places, people.rules(3))
    status = backend.read(people.batch.status)
    assert torch.equal(people.variables()[places], together.x[places])
    assert torch.equal(status[places, VALUE], together.value[places])
    assert torch.equal(people.variables()[rest], x[rest])


@pytest.mark.parametrize("betas", [False, True])
def test_who_is_not_a_number_harms_no_other(backend: Backend, model: SkelModel, betas: bool) -> None:
    goal = people_of(many_people(model, 53, betas), range(6))
    expected = whole_pass(backend, goal)
    q, target, shape = goal.q.clone(), goal.target.clone(), goal.betas.clone()
    q[1, 20], target[2, 30, 1], shape[4, 3] = torch.nan, torch.nan, torch.inf
    found = whole_pass(backend, replace(goal, q=q, target=target, betas=shape))
    assert torch.equal(found[[0, 3, 5]], expected[[0, 3, 5]])
    lost = found[[1, 2, 4]]
    assert not lost[:, -6 + VALUE].isfinite().any()
    where = torch.cat((q, shape), 1)[[1, 2, 4]].float()
    torch.testing.assert_close(lost[:, : where.shape[1]], where, rtol=0, atol=0, equal_nan=True)


def test_who_rests_is_left_where_they_are(backend: Backend, model: SkelModel) -> None:
    """At a minimum, beside others who move; but not while much damping hides what a step would gain."""
    people = KernelPass(backend, people_of(many_people(model, 53, False), range(4)))
    least = people.steps(people.variables(), 40).x
    x = least + 0.1 * torch.tensor([0.0, 1.0, 0.0, 1.0])[:, None]
    damping = torch.tensor([1e-4, 1e-4, 10.0, 10.0])
    found = people.steps(x, 3, people.rules(3, 1e-4), damping)
    assert torch.equal(found.x[0], x[0]) and found.damping[0] == damping[0]
    assert (found.x != x)[[1, 3]].any(1).all() and (found.damping != damping)[1:].all()
    assert (found.decrease[0] < 1e-4 * found.value[0]) and (found.decrease[1] > 1e-4 * found.value[1])


# The other branch of a shoulder.


def test_columns_of_the_shoulders_that_a_stage_moves(model: SkelModel) -> None:
    names = [[f"shoulder_{side}_{axis}" for axis in "xyz"] for side in "rl"]
    for part, expected in (("lower body", []), ("joints", names)):
        tables = KernelPass(make_backend("cpu"), KINDS[part](model)).tables
        columns = tables.branches.numpy().reshape(-1, 3)
        assert [[DOF_NAMES[tables.tree.dofs[c]] for c in row] for row in columns] == expected
        assert tables.num_branches == len(expected)


SHOULDER = [dof_index(f"shoulder_r_{axis}") for axis in "xyz"]


@FREE
def test_a_shoulder_beyond_its_limits_is_tried_along_its_valley(
    backend: Backend, model: SkelModel, betas: bool, root: bool
) -> None:
    """Of three: one gains, at the same rotation; one would lose; one is within its limits and is not tried."""
    limits = torch.tensor(dof_limits())
    low, high = limits[SHOULDER].unbind(-1)
    allowed = torch.tensor(
        [0.3, pi / 2, float(low[2])], dtype=torch.float64
    )  # at the pole and the end of its valley
    excluded = allowed - torch.tensor([0.3, 0.0, 0.3])
    beyond = torch.tensor([float(high[0]) + 0.1, 0.2, 0.0], dtype=torch.float64)
    inside = torch.tensor([0.3, 0.9, -0.4], dtype=torch.float64)
    goal = replace(people_of(many_people(model, 53, betas, root), range(3)), limits=limits, joints=None)
    goal = replace(goal, beta_weight=1e-9 if betas else None)  # so that the best is where the target was made
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
    assert (status[:, DOUBT] - excess).abs().max() < 1e-6 and (status[:, DOUBT + 1] == 0).all()
    assert (excess > 0.02).tolist() == [True, True, False]

    rules = people.rules(0)
    rules.branch = 0
    if root:  # a place that whoever loses keeps, and that whoever gains leaves
        people.batch.trans.fill_(0.01)
    stood = backend.read(people.batch.trans).clone()
    solve(backend, people.tables, people.batch, people.found, np.arange(3), rules)
    moved = backend.read(people.batch.trans)
    assert torch.equal(moved[1:], stood[1:])
    assert moved[0].abs().max() < 2e-6
    found, now = people.variables(), backend.read(people.batch.status)
    assert (found[0, right] - allowed).abs().max() < 2e-6
    rest = [k for k in range(found.shape[1]) if k not in right]
    assert torch.equal(found[0, rest], x[0, rest])
    assert now[0, VALUE] < 1e-3 * before.value[0] and now[0, DOUBT] < 1e-6
    assert now[0, MOVED] == pytest.approx(0.3, abs=1e-5)  # since before the pass
    for rules.pole_point in (1, 2):  # further along, where the skin is the same: no reason to move
        solve(backend, people.tables, people.batch, people.found, np.arange(3), rules)
        assert torch.equal(people.variables(), found)
    assert torch.equal(found[1:], x[1:]) and torch.equal(now[1:], status[1:])
    # Nor do steps from there leave anything of a try that lost.
    rules.steps = 2
    solve(backend, people.tables, people.batch, people.found, np.arange(1, 3), rules)
    assert torch.equal(people.variables()[1:], x[1:])
    assert torch.equal(backend.read(people.batch.trans)[1:], stood[1:])
    assert torch.equal(backend.read(people.batch.status)[1:], status[1:])
