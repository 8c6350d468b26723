"""Regions of the skin whose vertices may count less: where SMPL's skinning is known to be poor, or SKEL's.

A vertex belongs to a region with a share between 0 and 1, read off SKEL's skinning weights and template, so that the
regions end softly and hold for every body of this topology.
"""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.assets import SkelAsset
from skelfit.bodies.dofs import SKEL_JOINT_NAMES
from skelfit.config.fit_settings import VertexWeights

FloatArray = NDArray[np.float64]


def region_shares(asset: SkelAsset) -> dict[str, FloatArray]:
    """The share (V,) that each vertex has in each region."""
    weights = np.asarray(asset.skin_weights, dtype=np.float64)
    template = np.asarray(asset.v_template, dtype=np.float64)
    joints = np.asarray(asset.J_regressor_osim, dtype=np.float64) @ template

    def held(*names: str) -> FloatArray:
        """By these joints; a name without a side means both."""
        sides = [k for k, name in enumerate(SKEL_JOINT_NAMES) if name in names or name[:-2] in names]
        return weights[:, sides].sum(1)

    def place(name: str) -> FloatArray:
        return joints[SKEL_JOINT_NAMES.index(name)]

    def between(one: FloatArray, other: FloatArray) -> FloatArray:
        """1 where both hold a vertex equally, 0 where one holds it alone."""
        return np.minimum(4 * one * other, 1.0)

    trunk = held("lumbar_body", "thorax", "scapula")
    below_shoulder = template[:, 1] < place("humerus_r")[1]
    between_hips = np.abs(template[:, 0]) < np.abs(place("femur_r")[0])
    return {
        "armpits": between(held("humerus"), trunk) * below_shoulder,
        "groin": between(held("femur"), held("pelvis")) * between_hips,
        "hands": held("hand"),
        "feet": held("calcn", "toes"),
        "head": held("head"),
    }


def vertex_weights(asset: SkelAsset, config: VertexWeights) -> FloatArray:
    """How much each vertex (V,) counts: 1 outside of the regions, a region's weight where it lies wholly in one."""
    shares = region_shares(asset)
    factors = [1 - (1 - weight) * shares[name] for name, weight in asdict(config).items()]
    return np.asarray(np.prod(factors, axis=0))
