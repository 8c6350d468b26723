"""What the fit carries from pass to pass: a stage with its tables, and where people are in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from skelfit.fit.moments import People
from skelfit.fit.plans import Plan
from skelfit.fit.solver import Move

if TYPE_CHECKING:
    from skelfit.config import PassConfig, StageConfig


@dataclass(frozen=True)
class Stage:
    """A stage of the fit and its tables."""

    config: StageConfig
    plans: tuple[Plan, ...]  # of its vertex passes
    move: Move
    limit_weight: float  # m^2 per rad^2 beyond a joint limit
    shoulders: tuple[list[int], ...]  # columns of their angles in the variables


@dataclass(frozen=True)
class Progress:
    """Where people are in a stage."""

    people: People
    q: Tensor  # (B, 46) rad
    damping: Tensor  # (B,) of the solver's next step
    moved: Tensor  # (B,) rad, the largest change of an angle in the last pass
    value: Tensor  # (B,) m^2, the stage's objective
    decrease: Tensor  # (B,) m^2, what one more step promises

    @classmethod
    def at(cls, people: People, q: Tensor, damping: float) -> Progress:
        """People who have not started; damping is that of the solver's first step."""
        zero = torch.zeros_like(q[:, 0])
        return cls(people, q, zero + damping, zero, zero, zero + torch.inf)

    def converged(self, config: PassConfig) -> Tensor:
        """Whose next step would gain next to nothing: by default 0.5 % of the objective, or 10 um of skin (RMS)."""
        return self.decrease < config.converged_gain * self.value + config.converged_floor

    def take(self, rows: Tensor) -> Progress:
        """Some of the people; rows (K,) int64."""
        return Progress(self.people.take(rows), **{k: v[rows] for k, v in self._tensors().items()})

    def put(self, rows: Tensor, few: Progress) -> Progress:
        """Everybody, some people further on; rows (K,) int64."""
        further = few._tensors()
        tensors = {k: v.index_copy(0, rows, further[k]) for k, v in self._tensors().items()}
        return Progress(self.people.put(rows, few.people), **tensors)

    def _tensors(self) -> dict[str, Tensor]:
        return {k: v for k, v in vars(self).items() if k != "people"}
