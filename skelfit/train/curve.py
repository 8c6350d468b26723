"""How a training went, as a picture: its loss and, of those held out, PA-MPJPE beside that of the mean pose."""

from __future__ import annotations

from pathlib import Path

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from skelfit.files import replacing
from skelfit.train.log import read_log

CURVE_NAME = "curve.png"


def draw_curve(out: Path) -> None:
    """Draw the log of a training's folder into it. Raises OutputError."""
    lines = read_log(out)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    measured = [(line["step"], line["validation"]) for line in lines if "validation" in line]
    figure = Figure(figsize=(9, 3.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    left.plot(*zip(*losses, strict=True), color="#28666e", linewidth=1)
    left.set(title="training loss", xlabel="step")
    steps = [step for step, _ in measured]
    right.plot(steps, [found["pa_mpjpe_mm"] for _, found in measured], "o-", color="#c8553d", label="network")
    mean = [found["mean_pose"]["pa_mpjpe_mm"] for _, found in measured]
    right.plot(steps, mean, "--", color="#4a4e69", label="mean pose")
    right.plot(steps, [value / 2 for value in mean], ":", color="#888888", label="half of it")
    right.set(title="PA-MPJPE of people held out, mm", xlabel="step", ylim=(0, None))
    right.legend(frameon=False)
    FigureCanvasAgg(figure)
    with replacing(out / CURVE_NAME) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
