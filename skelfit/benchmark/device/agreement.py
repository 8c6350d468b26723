"""Whether two devices give the same results: angles, vertex errors and statuses, within one table of tolerances.

Devices differ in the order of a few sums and in fused products. A well determined fit changes little by that; one with
a flat objective may end further away, with the same error.
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
    """Tolerances for two devices. People that converge on both are compared, each by the largest difference."""

    pve_mm_p99: float = 0.01  # of 99 % of the people
    pve_mm_max: float = 0.1
    angle_deg_p99: float = 0.2
    angle_deg_max: float = 5.0
    beta_p99: float = 0.01
    trans_mm_p99: float = 0.1
    other_status: float = 0.005  # share of people that converge, or are finite, on one device only


@dataclass(frozen=True)
class Agreement:
    """Differences of two devices."""

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
        """Differences beyond the tolerances, a sentence each; NaN is beyond."""
        sentences = []
        for name, most in asdict(tolerances).items():
            value = getattr(self, name)
            if not value <= most:
                sentences.append(f"{name} is {value:.4g}, at most {most:g} expected")
        return sentences


def compare(first: FitResult, second: FitResult) -> Agreement:
    """Two devices' results of the same people."""
    both = first.converged & second.converged
    other = (first.converged != second.converged) | (first.finite != second.finite)
    turn = 2 * math.pi
    angles = _apart(first.poses, second.poses, both)
    angles = torch.rad2deg((angles - turn * (angles / turn).round()).abs())
    pve = _apart(first.pve_mm[:, None], second.pve_mm[:, None], both)
    return Agreement(
        people=len(both),
        compared=int(both.sum()),
        pve_mm_p99=_of_people(pve, 0.99),
        pve_mm_max=_of_people(pve, 1.0),
        angle_deg_p99=_of_people(angles, 0.99),
        angle_deg_max=_of_people(angles, 1.0),
        beta_p99=_of_people(_apart(first.betas, second.betas, both), 0.99),
        trans_mm_p99=_of_people(1000 * _apart(first.trans, second.trans, both), 0.99),
        other_status=float(other.double().mean()),
    )


def as_dict(agreement: Agreement, tolerances: Tolerances) -> dict[str, Any]:
    """For JSON: the differences, the tolerances, and the sentences of `beyond`."""
    return {
        "found": asdict(agreement),
        "tolerances": asdict(tolerances),
        "beyond": agreement.beyond(tolerances),
    }


def _apart(one: Tensor, other: Tensor, rows: Tensor) -> Tensor:
    return other[rows].double() - one[rows].double()


def _of_people(differences: Tensor, share: float) -> float:
    """The quantile of people's largest difference, of (N, n); NaN without people."""
    if len(differences) == 0:
        return math.nan
    return float(differences.abs().amax(1).quantile(share))
