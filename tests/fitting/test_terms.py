"""The terms of the objective: what they declare, and that host and kernels give them one weight."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from skelfit.bodies.dofs import NUM_DOFS
from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.config.pipeline import load_pipeline
from skelfit.fitting import terms
from skelfit.fitting.backends.backend import make_backend
from skelfit.fitting.fitter import Fitter, PairFitter
from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm

PIPELINE = Path(__file__).parents[2] / "pipelines" / "hmr-skel.yaml"
MODULES = [name for _, name, _ in pkgutil.iter_modules(terms.__path__)]


def all_terms() -> list[type[ObjectiveTerm]]:
    for name in MODULES:
        importlib.import_module(f"skelfit.fitting.terms.{name}")
    return ObjectiveTerm.__subclasses__()


def doubled(config: FitConfig) -> FitConfig:
    """All weights of terms with a rule twice as large."""
    return replace(
        config,
        limit_weight=2 * config.limit_weight,
        beta_weight=2 * config.beta_weight,
        root_prior=replace(
            config.root_prior, turn=2 * config.root_prior.turn, move=2 * config.root_prior.move
        ),
        stages=tuple(replace(stage, joint_weight=2 * stage.joint_weight) for stage in config.stages),
    )


def terms_of(pair: PairFitter) -> list[ObjectiveTerm]:
    assert pair.locator is not None
    located = torch.zeros(1, len(pair.locator.joints), 3)
    weight = pair.config.stages[-1].joint_weight
    shoulders = pair.locator.targets(located, pair.schedule.last_joints, weight)
    return [*pair.pose_terms, shoulders, *pair.root_terms]


def test_the_table_of_terms_has_every_module() -> None:
    table = [line for line in str(terms.__doc__).splitlines() if line.startswith("| ")][1:]
    helpers = {"objective_term", "label_jumps"}
    assert {line.split("|")[3].strip() for line in table} == set(MODULES) - helpers


def test_every_rule_is_one_of_the_kernels() -> None:
    rules = {term.rule for term in all_terms()} - {None}
    assert rules == {"limit_weight", "beta_weight", "joint_weight", "turn_weight", "move_weight"}
    assert rules <= set(make_backend("cpu").kernels.objective.StepRules.vars)


def test_host_and_kernels_have_the_same_weights(models: ModelSet) -> None:
    """Both follow the configuration: twice the weight there is twice the weight in each."""
    config = replace(load_pipeline(PIPELINE).fit, root="free")
    (one,), (two,) = (Fitter(models, c).prepare("neutral") for c in (config, doubled(config)))
    rules = [pair.schedule.rules(pair.schedule.stages[-1], 1, True, False) for pair in (one, two)]
    checked = set()
    for before, after in zip(terms_of(one), terms_of(two), strict=True):
        assert type(before) is type(after) and before.weight > 0
        if before.rule is not None:
            share = getattr(rules[0], before.rule) / before.weight
            assert after.weight == pytest.approx(2 * before.weight)
            assert getattr(rules[1], before.rule) == pytest.approx(share * after.weight)
            assert share == pytest.approx(2.0 if before.rule == "turn_weight" else 1.0)
            checked.add(type(before))
    assert checked == {term for term in all_terms() if term.rule is not None}


def test_each_term_costs_its_weight_times_its_squared_residuals(models: ModelSet) -> None:
    """Of a state for which no term is zero, beside sums written out."""
    (pair,) = Fitter(models, replace(load_pipeline(PIPELINE).fit, root="free")).prepare("neutral")
    q = torch.tensor([[3.0], [-3.0]]).expand(
        2, NUM_DOFS
    )  # beyond the upper limits, and beyond the lower ones
    turn = torch.tensor([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]).expand(
        2, 3, 3
    )  # a quarter about z
    state = BodyState(q, torch.ones(2, 10), torch.ones(2, 24, 3), turn, torch.full((2, 3), 0.5))
    costs = {type(term).__name__: term.cost(state) for term in terms_of(pair)}
    config, low, high = pair.config, *pair.limits.unbind(-1)
    excess = [float((q[k] - q[k].clamp(low, high)).square().sum()) for k in range(2)]
    spine = sum(
        tie.weight * 9 * (1 - tie.ratio) ** 2 / (1 + tie.ratio**2) for tie in vars(config.spine).values()
    )
    expected = {
        "JointLimitTerm": [config.limit_weight * x for x in excess],
        "SpineCouplingTerm": [spine] * 2,
        "BetasPriorTerm": [10 * config.beta_weight] * 2,
        "JointTargets": [12 * config.stages[-1].joint_weight] * 2,
        "RootTurnTerm": [2 * config.root_prior.turn] * 2,
        "RootShiftTerm": [0.75 * config.root_prior.move] * 2,
    }
    assert costs.keys() == expected.keys()
    for name, cost in costs.items():
        assert cost.tolist() == pytest.approx(expected[name], rel=1e-5), name
        assert min(expected[name]) > 0
