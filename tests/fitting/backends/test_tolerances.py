"""What the tests of kernels rest on: a tolerance that nothing exceeds, and that something has to meet."""

from __future__ import annotations

from dataclasses import fields, replace
from types import SimpleNamespace

import pytest
import torch
from backends import CPU, GPU, NEAR, Tolerances, assert_agrees, assert_same_bits, assert_same_fit
from torch import Tensor

from skelfit.errors import DeviceError, OutputError
from skelfit.fitting.backends.backend import make_backend
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
def test_an_evaluation_is_near_or_not(name: str, mean_square: float) -> None:
    """Whatever the size of the residuals, a skin that is off by a micrometre or two is told."""
    expected = evaluation(mean_square)
    assert_agrees(expected, expected)
    exact: Tensor = getattr(expected, name)
    room = {
        "value": 2 * expected.value.sqrt() * NEAR.value_m,
        "gradient": (2 * expected.matrix.diagonal(dim1=1, dim2=2)).sqrt() * NEAR.gradient_m,
        "matrix": NEAR.matrix * expected.matrix.abs().amax((1, 2), keepdim=True),
        "hessian": NEAR.hessian * exact.abs().max(),
    }[name]
    assert_agrees(replace(expected, **{name: exact + 0.9 * room}), expected)
    for wrong in (exact + 1.3 * room, torch.full_like(exact, torch.nan), exact[:1]):
        with pytest.raises(AssertionError, match=name):
            assert_agrees(replace(expected, **{name: wrong}), expected)


def test_a_missing_hessian_is_told() -> None:
    expected = evaluation(1e-4)
    with pytest.raises(AssertionError, match="hessian"):
        assert_agrees(replace(expected, hessian=None), expected)


def result(people: int = 3) -> FitResult:
    tensors = {f.name: torch.randn(people, 2) for f in fields(FitResult)}
    return FitResult(**tensors | {"keypoints3d": None, "pve_mm": torch.rand(people)})


@pytest.mark.parametrize(
    ("name", "room"), [("poses", NEAR.angle), ("betas", NEAR.beta), ("pve_mm", NEAR.pve_mm)]
)
def test_fits_are_the_same_or_not(name: str, room: float) -> None:
    one = result()
    close, far = (replace(one, **{name: getattr(one, name) + k * room}) for k in (0.9, 1.1))
    assert_same_fit(close, one)
    with pytest.raises(AssertionError, match=name):
        assert_same_fit(far, one)
    assert_same_bits(one, one)
    with pytest.raises(AssertionError, match=f"{name}: 3 people"):
        assert_same_bits(close, one)


def test_kinds_are_told_apart_and_no_tolerance_is_none() -> None:
    names = [kind.name for kind in (*CPU, *GPU)]
    assert len(set(names)) == len(names)
    assert all(0 < getattr(NEAR, f.name) < 0.1 for f in fields(Tolerances))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_device_that_is_not_there_is_said() -> None:
    for device in ("cuda", "cuda:3"):
        with pytest.raises(DeviceError, match=f"device {device}: "):
            make_backend(device)


def test_kernels_that_cannot_be_kept_are_said() -> None:
    """A full disk, or a home that nobody may write to."""

    class Module:
        def load(self, *where: object) -> None:
            raise OSError(28, "No space left on device")

    with pytest.raises(OutputError, match=r"kept there .*No space left.* WARP_CACHE_PATH"):
        make_backend("cpu").launch(SimpleNamespace(module=Module()), 1, [])


def test_what_asks_for_gradients_is_left_alone() -> None:
    asks = torch.zeros(3, requires_grad=True)
    assert make_backend("cpu").array(asks).requires_grad is False and asks.grad is None
