"""What ties angles to each other: linear forms of the angles, the squares of which the objective adds up.

    sum_k (f_k . q)^2  m^2,      f_k (46,) m per rad.

A trunk that bends has two joints for it, lumbar and thorax, each an arc; a skin tells their sum far better than their
shares. Spines share a motion out over all of their segments, by how far each of them goes, so the form of a motion is
the distance from that share: sqrt(weight) (lumbar - ratio thorax) / sqrt(1 + ratio^2). The axes of the two joints are
alike (x forward, y up, z to the right), so that equal signs are the same way.

The ratios of `SpineConfig` are sums over L1 to S1 and over T1 to L1 of what White and Panjabi, Clinical Biomechanics of
the Spine, 2nd ed. 1990, give as representative ranges of segments: 29 and 76 degrees to either side for bending, 74
and 76 for flexion and extension together, 9 and 71 for twists.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import NUM_DOFS, dof_index

if TYPE_CHECKING:
    from skelfit.config.fit_settings import SpineConfig


def spine_couplings(config: SpineConfig) -> NDArray[Any]:
    """The forms (K, 46) of a spine, m per rad; what has no weight has none."""
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
    """Of forms (K, 46) those that tie none but active DoFs."""
    found: NDArray[Any] = forms[~np.delete(forms, list(dofs), 1).any(1)]
    return found
