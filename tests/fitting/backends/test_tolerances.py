"""The comparisons that the tests of kernels use: they pass within a tolerance and fail beyond it."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from backends import CPU, GPU, NEAR, Tolerances, assert_agrees, assert_same_bits, assert_same_fit
from torch import Tensor

from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.fit_result import FitResult


def evaluation(mean_square: float) -> Evaluation:
    """Two people with residuals of this mean square, m^2, of 50 points, in 4 variables."""
    jacobian = torch.randn(2, 50, 4, dtype=torch.float64) / 50**0.5
    residual = torch.randn(2, 50, 1, dtype=torch.float64) * (mean_square / 50) ** 0.5
    matrix = 2 * jacobian.mT @ jacobian
    return Evaluation(
        residual.square().sum((1, 2)),
        2 * (jacobian.mT @ residual)[..., 0],
        matrix,
        matrix + 0.1 * torch.eye(4),
    )


@pytest.mark.parametrize("mean_square", [1e-10, 1e-4, 1.0])
@pytest.mark.parametrize("name", ["value", "gradient", "matrix", "hessian"])
def test_evaluations_are_compared_within_the_tolerance(name: str, mean_square: float) -> None:
    """For any size of the residuals, a skin that is off by one or two micrometres fails."""
    expected = evaluation(mean_square)
    assert_agrees(expected, expected)
    exact: Tensor = getattr(expected, name)
    allowed = {
        "value": 2 * expected.value.sqrt() * NEAR.value_m,
        "gradient": (2 * expected.matrix.diagonal(dim1=1, dim2=2)).sqrt() * NEAR.gradient_m,
        "matrix": NEAR.matrix * expected.matrix.abs().amax((1, 2), keepdim=True),
        "hessian": NEAR.hessian * exact.abs().max(),
    }[name]
    assert_agrees(replace(expected, **{name: exact + 0.9 * allowed}), expected)
    for wrong in (exact + 1.3 * allowed, torch.full_like(exact, torch.nan), exact[:1]):
        with pytest.raises(AssertionError, match=name):
            assert_agrees(replace(expected, **{name: wrong}), expected)


def test_a_missing_hessian_fails() -> None:
    expected = evaluation(1e-4)
    with pytest.raises(AssertionError, match="hessian"):
        assert_agrees(replace(expected, hessian=None), expected)


def result(people: int = 3) -> FitResult:
    fields_of_fit: dict[str, Any] = {f.name: torch.randn(people, 2) for f in fields(FitResult)}
    return FitResult(**fields_of_fit | {"keypoints3d": None, "pve_mm": torch.rand(people)})


@pytest.mark.parametrize(
    ("name", "allowed"), [("poses", NEAR.angle), ("betas", NEAR.beta), ("pve_mm", NEAR.pve_mm)]
)
def test_fits_are_compared_within_the_tolerance(name: str, allowed: float) -> None:
    one = result()
    close, far = (replace(one, **{name: getattr(one, name) + k * allowed}) for k in (0.9, 1.1))
    assert_same_fit(close, one)
    with pytest.raises(AssertionError, match=name):
        assert_same_fit(far, one)
    assert_same_bits(one, one)
    with pytest.raises(AssertionError, match=f"{name}: 3 people"):
        assert_same_bits(close, one)


def test_kinds_have_different_names_and_tolerances_are_positive() -> None:
    names = [kind.name for kind in (*CPU, *GPU)]
    assert len(set(names)) == len(names)
    assert all(0 < getattr(NEAR, f.name) < 0.1 for f in fields(Tolerances))
