"""On what kernels are tested, and how near their answers have to be.

The fixture `backend` is each of KINDS in turn: lane vectors of several lengths and blocks of several threads on this
processor, and a GPU where `pytest -m gpu` asks for one. What a test expects of a backend's numbers is in NEAR, and
nowhere else.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest
import torch
from torch import Tensor

from skelfit.fitting.backends.backend import GPU_LANES, GPU_THREADS, Backend, make_backend
from skelfit.fitting.baseline.naive_objective import Evaluation
from skelfit.fitting.fit_result import FitResult


@dataclass(frozen=True)
class Kind:
    """A device, people in a group, and threads that share a group."""

    device: str
    lanes: int
    threads: int

    @property
    def name(self) -> str:
        return f"{self.device}-{self.lanes}x{self.threads}"


# A vector register of AVX-512 and one of AVX2; one person a group, as on a GPU, and that with threads that share it.
CPU = (Kind("cpu", 16, 1), Kind("cpu", 8, 1), Kind("cpu", 1, 1), Kind("cpu", 1, 4))
GPU = (Kind("cuda", GPU_LANES, GPU_THREADS),)
KINDS = [
    *(pytest.param(kind, id=kind.name) for kind in CPU),
    *(pytest.param(kind, id=kind.name, marks=pytest.mark.gpu) for kind in GPU),
]


@pytest.fixture(scope="session", params=KINDS)
def backend(request: pytest.FixtureRequest) -> Backend:
    """Each kind of backend in turn; session-wide, so that pytest runs the tests of one kind together."""
    kind: Kind = request.param
    if kind.device == "cuda" and not torch.cuda.is_available():
        pytest.fail("-m gpu asks for a GPU, and there is none")
    return make_backend(kind.device, kind.lanes, kind.threads)


@dataclass(frozen=True)
class Tolerances:
    """How far float32 may be from the reference's float64, and one backend's answer from another's.

    Kernels round a skin by so many metres (RMS over a stage's vertices), which |E - E'| <= 2 sqrt(E) d and
    |g_i - g_i'| <= sqrt(2 M_ii) d turn into what is allowed of a value E and of a gradient g with matrix M: for a good
    fit and for a bad one alike.
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


def assert_agrees(found: Evaluation, expected: Evaluation, near: Tolerances = NEAR) -> None:
    """A kernel's evaluation (any float type) of B people against the reference's."""
    value, diagonal = expected.value, expected.matrix.diagonal(dim1=-2, dim2=-1)
    room = 2 * value.sqrt() * near.value_m + near.value_m**2
    _within("value", found.value, value, room)
    _within("gradient", found.gradient, expected.gradient, (2 * diagonal).sqrt() * near.gradient_m)
    for name, share in (("matrix", near.matrix), ("hessian", near.hessian)):
        one, other = getattr(found, name), getattr(expected, name)
        assert (one is None) == (other is None), name
        if other is not None:
            _within(name, one, other, share * other.abs().amax((1, 2), keepdim=True).expand_as(other))


def assert_same_fit(one: FitResult, other: FitResult, near: Tolerances = NEAR) -> None:
    """Two backends' answers for everyday people; extreme ones may end in another valley for the last bit of a sum."""
    for name, room in (("poses", near.angle), ("betas", near.beta), ("pve_mm", near.pve_mm)):
        expected = getattr(other, name)
        _within(name, getattr(one, name), expected, torch.full_like(expected, room))


def assert_same_bits(one: FitResult, other: FitResult) -> None:
    """What a backend answers for people must not depend on their company."""
    for name, found in vars(one).items():
        expected = vars(other)[name]
        if found is None or expected is None:
            assert found is expected, name
            continue
        rows = (found != expected) & ~(found.isnan() & expected.isnan())
        assert not rows.any(), (
            f"{name}: {int(rows.flatten(1).any(1).sum() if rows.dim() > 1 else rows.sum())} people"
        )


def _within(name: str, found: Tensor, expected: Tensor, room: Tensor) -> None:
    """Fails with the worst person and entry; numbers that are not finite are never near."""
    assert found.shape == expected.shape, f"{name}: shape {tuple(found.shape)}, not {tuple(expected.shape)}"
    off = (found.to(expected) - expected).abs() / room.clamp(min=torch.finfo(room.dtype).tiny)
    off = torch.where(off.isfinite(), off, torch.inf)
    worst = off.flatten().argmax()
    place = tuple(int(i) for i in torch.unravel_index(worst, off.shape))
    assert off.max() <= 1, (
        f"{name} {place}: {found[place]:.9g}, expected {expected[place]:.9g} "
        f"within {room[place]:.2e}; {int((off > 1).sum())} of {off.numel()} are off"
    )
