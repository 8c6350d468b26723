"""What ties angles to each other: linear forms of the angles, the squares of which the objective adds up.

    sum_k (f_k . q)^2  m^2,      f_k (46,) m per rad.

A trunk that bends has two joints for it, lumbar and thorax, each an arc; a skin tells their sum far better than their
shares. Spines share every motion out in the same way, by how far their segments go, so the form of a motion is its
distance from that share: sqrt(weight) (lumbar - ratio thorax) / sqrt(1 + ratio^2). The three joints' axes are alike
(x forward, y up, z to the right), so that equal signs are the same way.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelfit.body.dofs import NUM_DOFS, dof_index

if TYPE_CHECKING:
    from skelfit.config import SpineConfig


def spine_couplings(config: SpineConfig) -> NDArray[Any]:
    """The forms (K, 46) of a spine, m per rad; K is 0 where their weight is."""
    ratios = {"bending": config.bending, "extension": config.extension, "twist": config.twist}
    forms = np.zeros((len(ratios), NUM_DOFS))
    for form, (motion, ratio) in zip(forms, ratios.items(), strict=True):
        share = np.array([1.0, -ratio]) / np.hypot(1.0, ratio)
        form[[dof_index(f"{segment}_{motion}") for segment in ("lumbar", "thorax")]] = share
    return config.weight**0.5 * forms if config.weight else forms[:0]


def coupled(forms: NDArray[Any], dofs: Sequence[int]) -> NDArray[Any]:
    """Of forms (K, 46) those that tie none but active DoFs."""
    found: NDArray[Any] = forms[~np.delete(forms, list(dofs), 1).any(1)]
    return found
