"""The prior of betas that are refined: plausible bodies have small betas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm


@dataclass(frozen=True)
class BetasPriorTerm(ObjectiveTerm):
    """Draws betas to zero, the mean body."""

    weight: float  # m^2 per squared beta
    rule: ClassVar[str | None] = "beta_weight"

    def residuals(self, state: BodyState) -> Tensor:
        """The betas, (B, K)."""
        return state.betas
