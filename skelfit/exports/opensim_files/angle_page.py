"""A motion's angles over time as one page that needs no network."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from typing import Any

import numpy as np

from skelfit.bodies.dofs import DOF_NAMES, dof_limits
from skelfit.exports.exported_bodies import GROUND_TEXT, Array, gravity_text
from skelfit.exports.opensim_files.clinical_angles import CLINICAL_NAMES
from skelfit.exports.opensim_files.motion import OpenSimMotion
from skelfit.verification.measures.sequence_ground import STATUSES
from skelfit.verification.report.page_template import filled_page, page_asset

MAX_FRAMES = 1500  # that are drawn: more than a screen has room for


def page_text(motion: OpenSimMotion) -> str:
    """The page of a sequence. Raises ValueError for a motion without clinical angles."""
    if motion.clinical is None:
        raise ValueError(f"{motion.name}: expected clinical angles, found none")
    every = -(-len(motion.times) // MAX_FRAMES)
    limits = np.degrees(dof_limits())
    content = {
        "name": motion.name,
        "frames": len(motion.times),
        "every": every,
        "step": round(every / motion.rate, 6),
        "seconds": round(float(motion.times[-1] - motion.times[0]), 4),
        "rate": motion.rate,
        "ground": GROUND_TEXT[motion.coordinates],
        "gravity": gravity_text(motion.coordinates),
        "contacts": _contacts(motion, every),
        "floor": None if motion.sole_contact is None else STATUSES[motion.sole_contact.status],
        "times": np.round(motion.times[::every], 4).tolist(),
        "clinical": _angles(CLINICAL_NAMES, motion.clinical, every),
        "skel": _angles(DOF_NAMES, motion.angles, every, limits),
    }
    own = (files("skelfit.exports.opensim_files") / "page" / "angles.js").read_text("utf-8")
    return filled_page(
        title=f"{motion.name}: joint angles",
        footer="Made by <b>skelfit export</b>. The tables beside this page (.mot, .sto) have the same angles.",
        report=content,
        people={},
        packed="",
        script="\n".join([page_asset("charts.js"), page_asset("sections.js"), own]),
    )


def _contacts(motion: OpenSimMotion, every: int) -> dict[str, list[int]] | None:
    """Whether each foot is on the floor (1 or 0), every so many frames; None: not known."""
    ground = motion.sole_contact
    if ground is None or ground.feet is None:
        return None
    rows = np.searchsorted(ground.frames, motion.frames[::every])
    return {side: ground.feet[rows, k].astype(int).tolist() for k, side in enumerate("rl")}


def _angles(
    names: Sequence[str], angles: Array, every: int, limits: Array | None = None
) -> dict[str, dict[str, Any]]:
    """Each of D angles (T,D) rad in degrees: every so many values, and what all of them span. limits (D,2) degrees."""
    degrees = np.round(np.degrees(angles), 2)
    result: dict[str, dict[str, Any]] = {}
    for k, (name, values) in enumerate(zip(names, degrees.T, strict=True)):
        low, high = float(values.min()), float(values.max())
        result[name] = {"values": values[::every].tolist(), "low": low, "high": high}
        result[name] |= {"range": round(high - low, 2), "mean": round(float(values.mean()), 2)}
        if limits is not None and np.isfinite(limits[k]).all():
            result[name]["limits"] = np.round(limits[k], 2).tolist()
    return result
