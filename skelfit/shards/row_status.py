"""The status of a row, and what may have become of its image. The names stand in sidecars and markers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

OK = "ok"
LIMIT_VIOLATION = "limit_violation"  # published, with an angle far beyond its limits
BAD_INPUT = "bad_input"  # the label has values that are impossible
FILTERED = "filtered"  # a filter leaves the row out
NOT_CONVERGED = "not_converged"
ABOVE_GATE = "residual_above_gate"  # the skin is farther from the label's than the pipeline allows
PUBLISHED = (OK, LIMIT_VIOLATION)  # the statuses of rows that become samples
# What became of a row when its shard was refined. All but the first keep the parameters that they had.
REFINED = "refined"
UNCHANGED = "unchanged"  # no step lowered the objective
NOT_CLOSER = "not_closer"  # the seen keypoints would be hardly nearer to those given, or no nearer
MORE_VIOLATION = "more_violation"  # an angle would be further beyond its limit
LARGER_BETAS = "larger_betas"  # the largest beta would grow beyond the bound
FAR_FROM_LABEL = "far_from_label"  # the person would leave the label's neighbourhood
FEW_KEYPOINTS = "few_keypoints"  # too few keypoints are seen
BEHIND_CAMERA = "behind_camera"  # a keypoint of the person is behind the camera
SWAPPED = "swapped"  # the given keypoints seem to have left and right exchanged
NO_CAMERA = "no_camera"  # the camera is not known, and cannot be estimated
UNLIKELY_FOCAL = "unlikely_focal"  # the estimated focal length ends at an end of its range
NOT_FINITE = "not_finite"  # of the seen keypoints, the camera or the parameters
NO_SMPL = "no_smpl"  # a mesh came in, whose neighbourhood the shards do not tell
NO_PERSON = "no_person"  # the row is not published
REFINEMENTS = (
    *(REFINED, UNCHANGED, NOT_CLOSER, MORE_VIOLATION, LARGER_BETAS, FAR_FROM_LABEL, FEW_KEYPOINTS),
    *(BEHIND_CAMERA, SWAPPED, NO_CAMERA, UNLIKELY_FOCAL, NOT_FINITE, NO_SMPL, NO_PERSON),
)
# What is measured before and after: distance of the keypoints, angles beyond their limits, betas, the depth of the
# person and the focal length that it goes with. See shards/README.md.
PAIRED_MEASURES = ("px", "reprojection", "limit_deg", "max_abs_beta", "depth_m", "focal_px")
GIVEN, ESTIMATED = "given", "estimated"  # what the camera of a refined person is
CAMERAS = (GIVEN, ESTIMATED)
IMAGE_KINDS = ("found", "missing", "unreadable", "damaged", "too_large", "no_crop", "unknown_pixels")


def remark_on_targets(identity: Mapping[str, Any]) -> str:
    """What must be said of the errors of a run of this identity; '' where they are to the labels' own meshes."""
    fit = identity["pipeline"].get("fit", {})
    if fit.get("neutral_target") != "gendered":
        return ""
    return f"neutral labels were read as {fit['skel_gender']} ones: errors are to those meshes, not to the labels' own"
