"""Soft joint limits: an angle beyond a limit costs the square of its excess."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm


@dataclass(frozen=True)
class JointLimitTerm(ObjectiveTerm):
    """The limits of all DoFs."""

    weight: float  # m^2 per rad^2
    limits: Tensor  # (46, 2) rad
    rule: ClassVar[str | None] = "limit_weight"

    def residuals(self, state: BodyState) -> Tensor:
        """By how much each DoF exceeds its limits, (B, 46) rad."""
        low, high = self.limits.unbind(-1)
        return torch.relu(state.q - high) + torch.relu(low - state.q)
