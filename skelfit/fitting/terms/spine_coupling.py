"""How lumbar and thorax share a motion of the trunk, as linear forms f_k of the angles q.

    sum_k (f_k . q)^2  m^2,      f_k (46,) m per rad

The skin shows the sum of the two joints' angles far better than each of them. A real spine spreads a motion over all
its segments, in the ratio of their ranges of motion. The form of a motion is the distance from that ratio:
sqrt(weight) (lumbar - ratio thorax) / sqrt(1 + ratio^2). Both joints have the same axes (x forward, y up, z to the
right), so equal signs are the same direction.

Source of the ratios in `SpineConfig`: White and Panjabi, Clinical Biomechanics of the Spine, 2nd ed. 1990, their
representative ranges summed over L1 to S1 and over T1 to L1: 29 and 76 degrees of bending to either side, 74 and 76 of
flexion plus extension, 9 and 71 of twist.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.dofs import NUM_DOFS, dof_index
from skelfit.fitting.terms.objective_term import BodyState, ObjectiveTerm

if TYPE_CHECKING:
    from skelfit.config.fit_settings import SpineConfig


@dataclass(frozen=True)
class SpineCouplingTerm(ObjectiveTerm):
    """The forms, weights included."""

    couplings: Tensor  # (K, 46) m per rad
    weight: float = 1.0
    rule: ClassVar[str | None] = None

    def residuals(self, state: BodyState) -> Tensor:
        """The value of each form, (B, K) m."""
        # Not a matrix product: its rounding may depend on the number of people.
        return (state.q[:, None] * self.couplings).sum(2)


def spine_couplings(config: SpineConfig) -> NDArray[Any]:
    """The forms (K, 46) m per rad of the motions that have a weight."""
    forms = []
    for motion in ("bending", "extension", "twist"):
        tie = getattr(config, motion)
        if tie.weight > 0:
            form = np.zeros(NUM_DOFS)
            share = np.array([1.0, -tie.ratio]) / np.hypot(1.0, tie.ratio)
            form[[dof_index(f"{segment}_{motion}") for segment in ("lumbar", "thorax")]] = share
            forms.append(tie.weight**0.5 * form)
    return np.array(forms).reshape(-1, NUM_DOFS)


def coupled(forms: NDArray[Any], dofs: Sequence[int]) -> NDArray[Any]:
    """Of forms (K, 46), those that use only these active DoFs."""
    within: NDArray[Any] = forms[~np.delete(forms, list(dofs), 1).any(1)]
    return within
