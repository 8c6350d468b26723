"""The solver of the lane kernels against the naive one: evaluations, damped steps, and rule by rule how it steps."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from backends import assert_agrees
from kernel_passes import KernelPass, of_floats
from reference_cases import KINDS, near

from skelfit.body.models import ModelSet
from skelfit.body.skel import SkelModel
from skelfit.fit.backend import Backend


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    return SkelModel(models.skel_of("male"), dtype=torch.float64)


@pytest.mark.parametrize(
    "kind", ["lower body", "held", "betas, held", "joints", "all of it", "free root", "free root, betas"]
)
def test_an_evaluation_is_the_references(backend: Backend, model: SkelModel, kind: str) -> None:
    goal = of_floats(KINDS[kind](model))
    x, exact = near(goal).float().double(), goal.beta_weight is None
    found, expected = KernelPass(backend, goal).evaluate(x, exact), goal.evaluate(x, exact)
    assert_agrees(found, expected)
    if exact:
        assert (expected.hessian - expected.matrix).abs().max() > 1e-2 * expected.hessian.abs().max()
