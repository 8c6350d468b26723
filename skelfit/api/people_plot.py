"""A picture of fitted people: skin, bones and joints, each person in a box of their own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import SKEL_JOINT_NAMES, SKEL_PARENTS
from skelfit.errors import ArgumentError, SkelfitError, found_text

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from skelfit.api.fitted_people import FittedPeople

Array = NDArray[np.float64]
_AXES = {"x": 0, "y": 1, "z": 2}
_COLUMNS = 5  # people in a line
_PELVIS, _HEAD = SKEL_JOINT_NAMES.index("pelvis"), SKEL_JOINT_NAMES.index("head")
# Matplotlib draws every triangle by itself: every second of the skin's are enough for a ghost of it.
_SKIN_STRIDE, _BONE_STRIDE = 2, 4
_SKIN, _BONES, _JOINTS = "#e8b89a", "#6b5b4b", "#b3261e"


def draw_people(people: FittedPeople[Any], limit: int, up: str | None) -> Figure:
    """See `FittedPeople.plot`."""
    try:
        from matplotlib.figure import Figure
        from mpl_toolkits.mplot3d.art3d import Line3DCollection, Poly3DCollection
    except ImportError as error:
        raise SkelfitError(
            f"plot: expected matplotlib, which draws; install it with: pip install matplotlib ({error})"
        ) from error
    if not isinstance(limit, (int, np.integer)) or limit < 1:
        raise ArgumentError("limit", "a number of people, at least 1", found_text(limit))
    rows = np.flatnonzero(people.skel_gender.reshape(-1) != "")[:limit]
    if len(rows) == 0:
        raise ArgumentError("people", "a person with a fit to draw", f"none among {people.status.size}")
    few = people[np.unravel_index(rows, people.status.shape)] if people.status.ndim else people
    arrays = [_flat(points) for points in (few.vertices(), few.bones(), few.joints())]
    turn = _upright(arrays[2], up)
    skins, bones, joints = (points @ turn.T for points in arrays)
    genders, statuses = few.skel_gender.reshape(-1), few.status.reshape(-1)
    columns = min(_COLUMNS, len(rows))
    lines = -(-len(rows) // columns)
    figure = Figure(figsize=(2.4 * columns, 2.7 * lines), layout="constrained")
    for i, row in enumerate(rows):
        axes: Any = figure.add_subplot(lines, columns, i + 1, projection="3d")
        asset = people.models.skel_of(str(genders[i]))
        skin = Poly3DCollection(skins[i][asset.faces[::_SKIN_STRIDE]], facecolor=_SKIN, alpha=0.22)
        bone = Poly3DCollection(bones[i][asset.bone_faces[::_BONE_STRIDE]], facecolor=_BONES, alpha=0.9)
        chain = [(j, parent) for j, parent in enumerate(SKEL_PARENTS) if parent >= 0]
        axes.add_collection3d(bone)
        axes.add_collection3d(skin)
        axes.add_collection3d(Line3DCollection(joints[i][chain], colors=_JOINTS, linewidths=0.8))
        _box(axes, skins[i])
        axes.set_title(f"{row}: {statuses[i]}", fontsize=8)
    return figure


def _flat(points: Any) -> Array:
    """Points (N, P, 3), whatever the leading dimensions and the library."""
    array = np.asarray(points.cpu() if hasattr(points, "cpu") else points, np.float64)
    return array.reshape(-1, *array.shape[-2:])


def _upright(joints: Array, up: str | None) -> Array:
    """The rotation (3, 3) that takes the axis that is up to z, which is up in matplotlib; joints (N, 24, 3)."""
    if up is None:
        mean = (joints[:, _HEAD] - joints[:, _PELVIS]).mean(axis=0)
        axis = int(np.abs(mean).argmax())
        sign = 1.0 if mean[axis] >= 0 else -1.0
    elif isinstance(up, str) and up.removeprefix("-") in _AXES:
        axis, sign = _AXES[up.removeprefix("-")], -1.0 if up.startswith("-") else 1.0
    else:
        raise ArgumentError("up", "x, y, z, -x, -y or -z", found_text(up))
    turn = np.zeros((3, 3))
    turn[2, axis] = sign
    turn[0, (axis + 1) % 3] = 1.0
    turn[1] = np.cross(turn[2], turn[0])
    return turn


def _box(axes: Any, skin: Array) -> None:
    """A cube around a skin (V, 3), without axes, so that all people are drawn at the same scale."""
    middle = (skin.max(axis=0) + skin.min(axis=0)) / 2
    half = float((skin.max(axis=0) - skin.min(axis=0)).max()) / 2
    for set_limits, at in zip((axes.set_xlim, axes.set_ylim, axes.set_zlim), middle, strict=True):
        set_limits(at - half, at + half)
    axes.set_box_aspect((1, 1, 1), zoom=1.5)
    axes.view_init(elev=8, azim=-60)
    axes.set_axis_off()
