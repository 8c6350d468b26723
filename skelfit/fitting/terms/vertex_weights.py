"""Regions of the skin whose vertices may count less: where the skinning of SMPL or of SKEL is known to be poor.

A vertex belongs to a region with a share between 0 and 1, which SKEL's skinning weights and template give. So regions
have soft edges, and hold for every body of this topology.
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
    """Name of each region -> the share (V,) that each vertex has in it."""
    weights = np.asarray(asset.skin_weights, dtype=np.float64)
    template = np.asarray(asset.v_template, dtype=np.float64)
    joints = np.asarray(asset.J_regressor_osim, dtype=np.float64) @ template

    def skinned_to(*names: str) -> FloatArray:
        """The skinning weight (V,) of these joints; a name without a side means both."""
        chosen = [k for k, name in enumerate(SKEL_JOINT_NAMES) if name in names or name[:-2] in names]
        return weights[:, chosen].sum(1)

    def position(name: str) -> FloatArray:
        return joints[SKEL_JOINT_NAMES.index(name)]

    def between(one: FloatArray, other: FloatArray) -> FloatArray:
        """1 where both weights are equal, 0 where one of them is 0."""
        return np.minimum(4 * one * other, 1.0)

    trunk = skinned_to("lumbar_body", "thorax", "scapula")
    below_shoulder = template[:, 1] < position("humerus_r")[1]
    between_hips = np.abs(template[:, 0]) < np.abs(position("femur_r")[0])
    return {
        "armpits": between(skinned_to("humerus"), trunk) * below_shoulder,
        "groin": between(skinned_to("femur"), skinned_to("pelvis")) * between_hips,
        "hands": skinned_to("hand"),
        "feet": skinned_to("calcn", "toes"),
        "head": skinned_to("head"),
    }


def vertex_weights(asset: SkelAsset, config: VertexWeights) -> FloatArray:
    """How much each vertex (V,) counts: 1 outside of all regions, a region's weight where it lies wholly in one."""
    shares = region_shares(asset)
    factors = [1 - (1 - weight) * shares[name] for name, weight in asdict(config).items()]
    return np.asarray(np.prod(factors, axis=0))
