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
IMAGE_KINDS = ("found", "missing", "unreadable", "damaged", "too_large", "no_crop", "unknown_pixels")


def remark_on_targets(identity: Mapping[str, Any]) -> str:
    """What must be said of the errors of a run of this identity; '' where they are to the labels' own meshes."""
    fit = identity["pipeline"].get("fit", {})
    if fit.get("neutral_target") != "gendered":
        return ""
    return f"neutral labels were read as {fit['skel_gender']} ones: errors are to those meshes, not to the labels' own"
