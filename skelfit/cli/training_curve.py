"""The picture of a training."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from skelfit.learning.training.training_log import read_log
from skelfit.storage.atomic_write import atomic_write

CURVE_NAME = "curve.png"
STAGES = {"keypoints": "#8d6a9f", "pose and betas": "#dda15e", "network": "#28666e"}  # and their colours


def stage_of(line: Mapping[str, Any]) -> str:
    """What was learnt in the steps of a line of the log, by its terms."""
    if "heatmaps" in line:
        return "keypoints"
    return "network" if "decoder/keypoints2d" in line else "pose and betas"


def draw_curve(out: Path) -> None:
    """The loss and, of those held out, PA-MPJPE beside that of the mean pose, as a picture. Raises OutputError."""
    lines = read_log(out)
    measured = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for name, color in STAGES.items():
        losses = [(line["step"], line["loss"]) for line in lines if "loss" in line and stage_of(line) == name]
        if losses:
            left.plot(*zip(*losses, strict=True), color=color, linewidth=1, label=name)
    left.set(title="training loss", xlabel="step", yscale="log")
    left.legend(frameon=False)
    steps = [step for step, _ in measured]
    right.plot(
        steps, [figures["pa_mpjpe_mm"] for _, figures in measured], "o-", color="#c8553d", label="network"
    )
    mean = [figures["mean_pose"]["pa_mpjpe_mm"] for _, figures in measured]
    right.plot(steps, mean, "--", color="#4a4e69", label="mean pose")
    right.plot(steps, [value / 2 for value in mean], ":", color="#888888", label="half of it")
    right.set(title="PA-MPJPE of people held out, mm", xlabel="step", ylim=(0, None))
    right.legend(frameon=False)
    with atomic_write(out / CURVE_NAME) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
