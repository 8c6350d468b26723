"""Whether two devices give the same people: angles, vertex errors and statuses, within one table of tolerances.

Kernels round alike on each device but for the order of a few sums and for fused products. A person who is fitted well
moves little by that; one on a flat floor of the objective may end a little elsewhere, as well.
"""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from skelfit.fitting.fit_result import FitResult


@dataclass(frozen=True)
class Tolerances:
    """How far two devices may be apart. People who converge on both are compared, each by their largest difference."""

    pve_mm_p99: float = 0.01  # of 99 % of the people
    pve_mm_max: float = 0.1
    angle_deg_p99: float = 0.2
    angle_deg_max: float = 5.0
    beta_p99: float = 0.01
    trans_mm_p99: float = 0.1
    other_status: float = 0.005  # share of people who converge, or are finite, on one of them only


@dataclass(frozen=True)
class Agreement:
    """How far two devices are apart."""

    people: int
    compared: int  # that converge on both
    pve_mm_p99: float
    pve_mm_max: float
    angle_deg_p99: float
    angle_deg_max: float
    beta_p99: float
    trans_mm_p99: float
    other_status: float

    def beyond(self, tolerances: Tolerances) -> list[str]:
        """What is further apart than it may be, a sentence each; not a number is, too."""
        found = []
        for name, most in asdict(tolerances).items():
            value = getattr(self, name)
            if not value <= most:
                found.append(f"{name} is {value:.4g}, at most {most:g} expected")
        return found


def compare(expected: FitResult, found: FitResult) -> Agreement:
    """Two devices' results of the same people."""
    both = expected.converged & found.converged
    other = (expected.converged != found.converged) | (expected.finite != found.finite)
    turn = 2 * math.pi
    angles = _apart(expected.poses, found.poses, both)
    angles = torch.rad2deg((angles - turn * (angles / turn).round()).abs())
    pve = _apart(expected.pve_mm[:, None], found.pve_mm[:, None], both)
    return Agreement(
        people=len(both),
        compared=int(both.sum()),
        pve_mm_p99=_of_people(pve, 0.99),
        pve_mm_max=_of_people(pve, 1.0),
        angle_deg_p99=_of_people(angles, 0.99),
        angle_deg_max=_of_people(angles, 1.0),
        beta_p99=_of_people(_apart(expected.betas, found.betas, both), 0.99),
        trans_mm_p99=_of_people(1000 * _apart(expected.trans, found.trans, both), 0.99),
        other_status=float(other.double().mean()),
    )


def as_dict(agreement: Agreement, tolerances: Tolerances) -> dict[str, Any]:
    """For JSON: what was found, what may be, and what is beyond it."""
    return {
        "found": asdict(agreement),
        "tolerances": asdict(tolerances),
        "beyond": agreement.beyond(tolerances),
    }


def _apart(one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    return other[rows].double() - one[rows].double()


def _of_people(differences: Tensor, share: float) -> float:
    """The quantile of people's largest difference, of (N, n); NaN where there is nobody."""
    if len(differences) == 0:
        return math.nan
    return float(differences.abs().amax(1).quantile(share))
