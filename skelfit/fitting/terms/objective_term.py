"""What the terms of one person's objective have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor


@dataclass(frozen=True)
class BodyState:
    """B fitted people in the canonical frame, as the terms see them."""

    q: Tensor  # (B, 46) rad
    betas: Tensor  # (B, K)
    joints: Tensor  # (B, 24, 3) m
    root_turn: Tensor  # (B, 3, 3) rotation of the pelvis away from the label's, in the pelvis' frame
    root_shift: Tensor  # (B, 3) m, translation away from the label's


class ObjectiveTerm(ABC):
    """A term adds its weight times the sum of its squared residuals to a person's objective, in m^2."""

    weight: float
    rule: ClassVar[str | None]  # field of the kernels' `StepRules` with the weight; None: it is in a table

    @abstractmethod
    def residuals(self, state: BodyState) -> Tensor:
        """(B, M), in units of which the weight takes the square to m^2."""

    def cost(self, state: BodyState) -> Tensor:
        """What the term adds to each objective, (B,) m^2."""
        return self.weight * self.residuals(state).square().sum(1)
