"""The pictures of a card: histograms of joint angles, and cumulative errors."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

import matplotlib
import matplotlib.patches
import matplotlib.ticker
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from skelfit.bodies.dofs import DOF_NAMES, dof_index, dof_limits
from skelfit.exports.dataset_card.card_facts import SubsetFacts
from skelfit.shards.row_statistics import UNITS_PER_MM
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

_RIGHT, _LEFT, _MIDDLE, _BEYOND = "#c8553d", "#28666e", "#4a4e69", "#f3e9e4"
_COLUMNS, _BINS = 6, 72
_STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans", "font.size": 8, "axes.titlesize": 8, "axes.spines.top": False,
    "axes.spines.right": False, "axes.spines.left": False, "axes.edgecolor": "#888888", "xtick.color": "#555555",
    "axes.grid": False,
}  # fmt: skip


def angle_panels() -> list[tuple[str, tuple[int, ...]]]:
    """Title and DoFs of each panel: right and left together, in anatomical order."""
    panels: list[tuple[str, tuple[int, ...]]] = []
    for i, name in enumerate(DOF_NAMES):
        parts = name.split("_")
        if "l" in parts:
            continue
        dofs: tuple[int, ...] = (i,)
        if "r" in parts:
            dofs = (i, dof_index("_".join("l" if part == "r" else part for part in parts)))
        panels.append((" ".join(part for part in parts if part != "r"), dofs))
    return panels


def draw_angles(subsets: Sequence[SubsetFacts], path: Location) -> None:
    """Histograms of the 46 angles in degrees; the background beyond the limits is tinted."""
    degrees = np.degrees(np.concatenate([subset.poses for subset in subsets]))
    panels, limits = angle_panels(), np.degrees(dof_limits())
    lines = -(-len(panels) // _COLUMNS)
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(11, 1.35 * lines + 0.5), layout="constrained")
        grid = figure.subplots(lines, _COLUMNS).ravel()
        for axes, (title, dofs) in zip(grid, panels, strict=False):
            _angle_panel(axes, title, dofs, degrees, limits)
        for axes in grid[len(panels) :]:
            axes.set_axis_off()
        colours = {
            "right": _RIGHT,
            "left": _LEFT,
            "middle of the body": _MIDDLE,
            "beyond the limits": _BEYOND,
        }
        handles = [matplotlib.patches.Patch(color=colour, label=text) for text, colour in colours.items()]
        figure.legend(handles=handles, loc="outside lower center", ncols=4, frameon=False)
        _save(figure, path)


def _angle_panel(
    axes: Axes, title: str, dofs: tuple[int, ...], degrees: NDArray[np.float32], limits: NDArray[np.float64]
) -> None:
    values = degrees[:, dofs]
    low, high = (float(v) for v in np.quantile(values, [0.001, 0.999])) if len(values) else (0.0, 0.0)
    bounds = limits[list(dofs)]
    ends = bounds[np.isfinite(bounds)]
    low, high = min([low, *ends]), max([high, *ends])
    low, high = low - 0.06 * (high - low) - 1, high + 0.06 * (high - low) + 1
    edges = np.linspace(low, high, _BINS + 1)
    for column, colour in enumerate([_MIDDLE] if len(dofs) == 1 else [_RIGHT, _LEFT]):
        counts, _ = np.histogram(values[:, column], edges)
        axes.stairs(counts, edges, fill=True, color=colour, alpha=0.35)
        axes.stairs(counts, edges, color=colour, linewidth=0.9)
    # Where a limit differs between right and left, the wider one counts.
    if np.isfinite(bounds).all():
        axes.axvspan(low, float(bounds[:, 0].min()), color=_BEYOND, zorder=0, linewidth=0)
        axes.axvspan(float(bounds[:, 1].max()), high, color=_BEYOND, zorder=0, linewidth=0)
    axes.set_title(title, loc="left", pad=2)
    axes.set_xlim(low, high)
    axes.set_yticks([])
    axes.tick_params(length=2, pad=1)
    axes.xaxis.set_major_locator(matplotlib.ticker.MaxNLocator(4, steps=[1, 1.5, 3, 4.5, 9, 10]))
    axes.xaxis.set_major_formatter("{x:.0f}°")


def draw_errors(subsets: Sequence[SubsetFacts], path: Location) -> None:
    """Share of the people below each mean and each largest vertex error, a line per subset."""
    with matplotlib.rc_context({**_STYLE, "axes.spines.left": True}):
        figure = Figure(figsize=(11, 2.9), layout="constrained")
        left, right = figure.subplots(1, 2, sharey=True)
        for subset in subsets:
            pve = {value / UNITS_PER_MM: count for value, count in subset.rows.pve.counts.items()}
            largest = {value + 1.0: count for value, count in subset.largest.items()}
            for axes, counts in ((left, pve), (right, largest)) if pve and largest else ():
                values = sorted(counts)
                share = np.cumsum([0, *(counts[v] for v in values)]) / sum(counts.values())
                axes.plot([values[0], *values], 100 * share, linewidth=1.6, label=subset.name)
        left.set_title("mean vertex error (PVE) below", loc="left")
        right.set_title("largest vertex error below", loc="left")
        left.set_ylabel("people, %")
        for axes in (left, right):
            axes.set_xlabel("mm")
            axes.set_xlim(left=0)
            axes.set_ylim(0, 101)
            axes.grid(color="#e5e5e5", linewidth=0.6)
        if len(right.lines) > 1:
            right.legend(frameon=False, loc="lower right")
        _save(figure, path)


def _save(figure: Figure, path: Location) -> None:
    FigureCanvasAgg(figure)
    stream = io.BytesIO()
    # Without the version of matplotlib in it, equal numbers give equal bytes.
    figure.savefig(stream, format="png", dpi=140, metadata={"Software": None})
    write_atomically(path, lambda file: file.write(stream.getvalue()))
