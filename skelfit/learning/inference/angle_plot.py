"""Angles over time, as a picture."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from skelfit.bodies.dofs import DOF_NAMES
from skelfit.exports.opensim_files.motion import OpenSimMotion

_SIDES = {"_r": ("right", "#c8553d"), "_l": ("left", "#28666e")}
_MIDDLE_COLOURS = ("#28666e", "#c8553d", "#8d6a9f")
# What a plot shows, a panel each: the angles of both sides, or those of the trunk.
_PANELS: dict[str, tuple[str, ...]] = {
    "pelvis": ("pelvis_tilt", "pelvis_list", "pelvis_rotation"),
    "trunk": ("lumbar_bending", "lumbar_extension", "lumbar_twist"),
    "head": ("head_bending", "head_extension", "head_twist"),
    "hip flexion": ("hip_flexion_r", "hip_flexion_l"),
    "hip adduction": ("hip_adduction_r", "hip_adduction_l"),
    "knee": ("knee_angle_r", "knee_angle_l"),
    "ankle": ("ankle_angle_r", "ankle_angle_l"),
    "shoulder x": ("shoulder_r_x", "shoulder_l_x"),
    "elbow": ("elbow_flexion_r", "elbow_flexion_l"),
}


def plot(motion: OpenSimMotion) -> Figure:
    """The angles of the trunk and of both sides, in degrees."""
    degrees = np.degrees(motion.angles)
    figure = Figure(figsize=(12, 8), layout="constrained")
    for axes, (title, names) in zip(figure.subplots(3, 3, sharex=True).flat, _PANELS.items(), strict=True):
        for i, name in enumerate(names):
            side, colour = _SIDES.get(name[-2:], (name.partition("_")[2], _MIDDLE_COLOURS[i]))
            if title.startswith("shoulder"):
                side, colour = _SIDES[name[-4:-2]]
            axes.plot(motion.times, degrees[:, DOF_NAMES.index(name)], color=colour, linewidth=1, label=side)
        axes.set(title=f"{title}, degrees")
        axes.legend(frameon=False, fontsize="small")
        axes.grid(alpha=0.3)
    figure.supxlabel("time, s")
    return figure
