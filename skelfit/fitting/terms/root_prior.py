"""The prior of a root that is free: it stays near the label's rotation and translation.

A turn by x costs weight (2 - 2 cos x), which is weight |R - I|^2 / 2 of its rotation matrix R.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm

if TYPE_CHECKING:
    from skelfit.config.fit_settings import RootPrior


@dataclass(frozen=True)
class RootTurnTerm(ObjectiveTerm):
    """Holds the rotation of the pelvis."""

    weight: float  # m^2 per squared entry of R - I: half of `StepRules.turn_weight`
    rule: ClassVar[str | None] = "turn_weight"

    def residuals(self, state: BodyState) -> Tensor:
        """R - I, entry by entry, (B, 9)."""
        identity = torch.eye(3, dtype=state.root_turn.dtype, device=state.root_turn.device)
        return (state.root_turn - identity).flatten(1)


@dataclass(frozen=True)
class RootShiftTerm(ObjectiveTerm):
    """Holds the translation."""

    weight: float  # m^2 per m^2
    rule: ClassVar[str | None] = "move_weight"

    def residuals(self, state: BodyState) -> Tensor:
        """The translation away from the label's, (B, 3) m."""
        return state.root_shift


def root_prior_terms(prior: RootPrior) -> tuple[RootTurnTerm, RootShiftTerm]:
    """Both terms of a prior."""
    return RootTurnTerm(prior.turn / 2), RootShiftTerm(prior.move)
