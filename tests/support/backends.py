"""The backends that kernels are tested on, and the tolerances of their results.

The fixture `backend` is each of KINDS in turn: lane vectors of several lengths and blocks of several threads on this
processor, and a GPU with `pytest -m gpu`. All tolerances for a backend's numbers are in NEAR.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from skelfit.fitting.backends.backend import GPU_LANES, GPU_THREADS, Backend, cpu_lanes, make_backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.fit_result import FitResult


@dataclass(frozen=True)
class BackendKind:
    """A device, the people in a group, and the threads that share it."""

    device: str
    lanes: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.device}-{self.lanes}x{self.threads}"


# The lanes of AVX-512, those of AVX2, and one person per group by several threads, as on a GPU. Each kind compiles all
# kernels, for a minute of a core, so the lanes of other processors than this one are left to `make soak`.
CPU = (BackendKind("cpu", 16, 1), BackendKind("cpu", 8, 1), BackendKind("cpu", 1, 4))
OF_OTHERS = BackendKind("cpu", 24 - cpu_lanes(), 1)
GPU = (BackendKind("cuda", GPU_LANES, GPU_THREADS),)
KINDS = [
    *(
        pytest.param(kind, id=kind.name, marks=[pytest.mark.soak] if kind == OF_OTHERS else [])
        for kind in CPU
    ),
    *(pytest.param(kind, id=kind.name, marks=pytest.mark.gpu) for kind in GPU),
]


@pytest.fixture(scope="session", params=KINDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of backend in turn; of the session, so that pytest groups the tests by kind."""
    kind: BackendKind = request.param
    if kind.device == "cuda" and not torch.cuda.is_available():
        pytest.fail("-m gpu: expected a GPU, found none")
    return make_backend(kind.device, kind.lanes, kind.threads)


@dataclass(frozen=True)
class Tolerances:
    """The largest difference of float32 from the float64 reference, and of one backend from another.

    Kernels round a skin by d metres (RMS over a stage's vertices). Then a value E differs by at most 2 sqrt(E) d, and a
    gradient g with matrix M by sqrt(2 M_ii) d, for a good fit and for a bad one.
    """

    value_m: float = 5e-7
    gradient_m: float = 2e-6
    matrix: float = 2e-6  # share of the largest entry
    hessian: float = 1e-5  # likewise
    step: float = 1e-3  # share of the longest component of a damped step of a well-conditioned matrix
    skin_m: float = 2e-6  # a vertex or a joint, posed
    rotation: float = 1e-6  # an entry of a rotation matrix
    angle: float = 5e-3  # rad; of two fits of everyday people
    beta: float = 1e-3
    pve_mm: float = 0.01


NEAR = Tolerances()


def assert_agrees(actual: Evaluation, expected: Evaluation, tolerances: Tolerances = NEAR) -> None:
    """A kernel's evaluation (any float type) of B people against the reference's."""
    value, diagonal = expected.value, expected.matrix.diagonal(dim1=-2, dim2=-1)
    allowed = 2 * value.sqrt() * tolerances.value_m + tolerances.value_m**2
    _within("value", actual.value, value, allowed)
    _within("gradient", actual.gradient, expected.gradient, (2 * diagonal).sqrt() * tolerances.gradient_m)
    for name, share in (("matrix", tolerances.matrix), ("hessian", tolerances.hessian)):
        one, other = getattr(actual, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is not None:
            _within(name, one, other, share * other.abs().amax((1, 2), keepdim=True).expand_as(other))


def assert_same_fit(one: FitResult, other: FitResult, tolerances: Tolerances = NEAR) -> None:
    """Two backends' fits of everyday poses; extreme ones may end in another minimum for the last bit of a sum."""
    for name, allowed in (
        ("poses", tolerances.angle),
        ("betas", tolerances.beta),
        ("pve_mm", tolerances.pve_mm),
    ):
        expected = getattr(other, name)
        _within(name, getattr(one, name), expected, torch.full_like(expected, allowed))


def assert_same_bits(one: FitResult, other: FitResult) -> None:
    """Equal to the bit, NaN included: for results that must not depend on the batch."""
    for name, actual in vars(one).items():
        expected = vars(other)[name]
        if actual is None or expected is None:
            assert actual is expected, name
            continue
        rows = (actual != expected) & ~(actual.isnan() & expected.isnan())
        assert not rows.any(), (
            f"{name}: {int(rows.flatten(1).any(1).sum() if rows.dim() > 1 else rows.sum())} people"
        )


def _within(name: str, actual: Tensor, expected: Tensor, allowed: Tensor) -> None:
    """Fails with the worst person and entry; a number that is not finite always fails."""
    assert actual.shape == expected.shape, f"{name}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    off = (actual.to(expected) - expected).abs() / allowed.clamp(min=torch.finfo(allowed.dtype).tiny)
    off = torch.where(off.isfinite(), off, torch.inf)
    worst = off.flatten().argmax()
    index = tuple(int(i) for i in torch.unravel_index(worst, off.shape))
    assert off.max() <= 1, (
        f"{name} {index}: {actual[index]:.9g}, expected {expected[index]:.9g} "
        f"within {allowed[index]:.2e}; {int((off > 1).sum())} of {off.numel()} are off"
    )
