"""Units and forms inferred from values: rotations as axis-angles (rad or deg), matrices or 6 numbers; boxes; meshes.

An inference becomes a note. Where the values do not tell, an error names the option that does.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.labels.body_family import BODY_JOINTS, MODEL_OF_JOINTS
from skelfit.labels.files.array_files import LabelArrays, Shape
from skelfit.labels.label_batch import FloatArray
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.row_faults import RowFaults

Array = NDArray[np.float64]

# An axis-angle in rad has at most half a turn, seldom a whole one. In degrees, half of all people have a joint beyond
# 15: their global orientation alone is spread over half a turn.
_RAD_MOST, _DEG_LEAST = 2.1 * np.pi, 15.0
# A matrix may be this far off a rotation, entry by entry of R^T R - I: the rounding of float16, with a margin.
_OFF = 0.02
# Box side in px / extent of the visible keypoints: about 1.2, and 1/200 of it in px/200; up to 10 times more or less.
_SIDES, _SLACK = {"px": 1.2, "px/200": 1.2 / 200}, 10.0
_VISIBLE = 4  # keypoints, at least, for an extent
_EXTENT_PX = 4.0  # below it, keypoints are relative to an image or a box, or all at one point
_PX200_MOST, _PX_LEAST = 10.0, 40.0  # without keypoints: 2000 px is a large box, 40 px a small one
_LENGTHS = {"m": 1.0, "cm": 100.0, "mm": 1000.0}
_EXTENT = (0.4, 2.6)  # m, of a person in any pose
_FASTEST = 30.0  # m/s, of a person who is not in a vehicle; in cm, one who walks has 130
_USUAL_RATE = 30.0  # Hz, where a file has no rate
_SAMPLE_ROWS = 1000  # rows that an inference looks at


def to_float32(values: Array) -> FloatArray:
    """Numbers as float32; those beyond its range are inf, which makes a bad row."""
    with np.errstate(over="ignore"):
        return values.astype(np.float32)


def rotation_shapes(joints: int) -> list[Shape]:
    """The shapes, without the number of people, in which a file may hold the rotations of so many joints."""
    alone: list[Shape] = [(3,), (3, 3), (6,)] if joints == 1 else []
    return [
        (3 * joints,), (joints, 3), (joints, 3, 3), (9 * joints,), (joints, 6), (6 * joints,), *alone,
    ]  # fmt: skip


def read_rotations(
    arrays: LabelArrays,
    key: str,
    joints: tuple[int, ...],
    settings: ReadSettings,
    faults: RowFaults,
    notes: list[str],
) -> tuple[Array, int]:
    """Axis-angles (N,J,3) rad of a key that holds J joints in any form, and J, which is one of `joints`.

    Of SMPL+H's and SMPL-X's joints only the body's are read: (N,22,3). Rows whose matrices are no rotations get a
    reason and axis-angles of 0.
    """
    shapes = list(dict.fromkeys(shape for j in joints for shape in rotation_shapes(j)))
    count_text = " or ".join(map(str, joints))
    forms = "(N, J, 3), (N, J, 3, 3) or (N, J, 6), or as many numbers (N, ...)"
    expected = f"rotations of {count_text} joint{'s' * (joints != (1,))} (J): {forms}"
    value: Array = arrays.numbers(key, *shapes, dtype=np.float64, expected=expected)
    count = next(j for j in joints if value.shape[1:] in rotation_shapes(j))
    size = math.prod(value.shape[1:]) // count
    read = count
    if count in MODEL_OF_JOINTS:
        value, read = value.reshape(len(value), count, size)[:, :BODY_JOINTS], BODY_JOINTS
    return _to_axis_angle(arrays, key, value, read, size, settings, faults, notes), count


def _to_axis_angle(
    arrays: LabelArrays,
    key: str,
    value: Array,
    joints: int,
    size: int,
    settings: ReadSettings,
    faults: RowFaults,
    notes: list[str],
) -> Array:
    rows = len(value)
    if size == 3:
        angles = value.reshape(rows, joints, 3)
        return angles * angle_unit(arrays, key, angles, settings, notes)
    if size == 6:
        matrices = _from_six(arrays, key, value.reshape(rows, joints, 6), settings, notes)
        notes.append(f"'{key}': rotations as 6 numbers, read as axis-angles")
    else:
        matrices = value.reshape(rows, joints, 3, 3)
        notes.append(f"'{key}': rotation matrices, read as axis-angles")
    return matrices_to_axis_angle(key, matrices, faults)


def matrices_to_axis_angle(key: str, matrices: Array, faults: RowFaults) -> Array:
    """Axis-angles (N,J,3) of matrices (N,J,3,3); a row with a matrix that is no rotation is bad, and gets 0."""
    finite = np.asarray(np.isfinite(matrices).all(axis=(1, 2, 3)))
    safe = np.where(finite[:, None, None, None], matrices, np.eye(3))
    with np.errstate(over="ignore", invalid="ignore"):
        deviation = np.abs(np.swapaxes(safe, -1, -2) @ safe - np.eye(3)).max(axis=(2, 3))
        deviation = np.where(
            np.linalg.det(safe) > 0, deviation, np.maximum(deviation, 2.0)
        )  # a reflection counts as far off
    deviation = np.nan_to_num(deviation, nan=np.inf)
    worst = deviation.max(axis=1, initial=0.0)
    bad = worst > _OFF
    faults.report(~finite, f"non_finite:{key}")
    for i in np.flatnonzero(bad):
        text = f"bad_rotation: {key}, joint {deviation[i].argmax()} of it, is {worst[i]:.2g} off a rotation matrix"
        faults.add(int(i), text)
    safe = np.where(bad[:, None, None, None], np.eye(3), safe)
    flat = Rotation.from_matrix(safe.reshape(-1, 3, 3)).as_rotvec() if safe.size else np.zeros((0, 3))
    return np.asarray(flat, np.float64).reshape(*matrices.shape[:2], 3)


def _from_six(
    arrays: LabelArrays, key: str, numbers: Array, settings: ReadSettings, notes: list[str]
) -> Array:
    """Matrices (N,J,3,3) of two of their rows or columns, (N,J,6), made orthonormal."""
    order = arrays.use_option("rot6d", settings.options.rot6d) or (None if len(numbers) else "interleaved")
    if order is None:
        # Only the interleaved order (x1 x2, y1 y2, z1 z2) can be told by value: in the order x1 y1 z1, x2 y2 z2 the
        # numbers may be two rows or two columns.
        if not _orthonormal(numbers.reshape(*numbers.shape[:2], 3, 2)) or _orthonormal(
            np.swapaxes(numbers.reshape(*numbers.shape[:2], 2, 3), -1, -2)
        ):
            raise arrays.error(
                key,
                "rotations as 6 numbers whose order their values tell",
                "6 numbers that may be the first two rows or columns of a matrix; "
                "say which with --rot6d rows, columns or interleaved",
            )
        order = "interleaved"
        notes.append(f"'{key}': 6 numbers, columns interleaved (only so they are unit vectors)")
    pair = numbers.reshape(*numbers.shape[:2], 3, 2)
    if order != "interleaved":
        pair = np.swapaxes(numbers.reshape(*numbers.shape[:2], 2, 3), -1, -2)
    with np.errstate(divide="ignore", invalid="ignore"):
        first = pair[..., 0] / np.linalg.norm(pair[..., 0], axis=-1, keepdims=True)
        second = pair[..., 1] - (first * pair[..., 1]).sum(-1, keepdims=True) * first
        second = second / np.linalg.norm(second, axis=-1, keepdims=True)
    matrices = np.stack([first, second, np.cross(first, second)], axis=-1)
    return np.swapaxes(matrices, -1, -2) if order == "rows" else matrices


def _orthonormal(pairs: Array) -> bool:
    """Whether the two columns of (N,J,3,2) are orthogonal unit vectors in almost all rows."""
    sample = pairs[:_SAMPLE_ROWS]
    with np.errstate(over="ignore", invalid="ignore"):
        off = np.abs(np.swapaxes(sample, -1, -2) @ sample - np.eye(2)).max(axis=(-1, -2))
    return bool(off.size) and bool(np.mean(off < _OFF) > 0.9)


def angle_unit(
    arrays: LabelArrays, key: str, angles: Array, settings: ReadSettings, notes: list[str]
) -> float:
    """The factor from axis-angles (N,J,3) to radians: 1, or pi/180 where they are in degrees."""
    unit = arrays.use_option("angle_unit", settings.options.angle_unit)
    if unit is None:
        with np.errstate(over="ignore", invalid="ignore"):
            length = np.linalg.norm(angles[np.isfinite(angles).all(axis=(1, 2))], axis=2).max(
                axis=1, initial=0
            )
        length = length[length > 0]  # rows of zeros tell nothing
        typical = float(np.median(length)) if len(length) else 0.0
        if _RAD_MOST < typical < _DEG_LEAST:
            actual = f"{typical:.1f} in half the rows; say which with --angle-unit rad or deg"
            raise arrays.error(
                key, f"a largest angle of under {_RAD_MOST:.1f} (rad) or over {_DEG_LEAST:g} (deg)", actual
            )
        unit = "rad" if typical <= _RAD_MOST else "deg"
        if unit == "deg":
            notes.append(f"'{key}': axis-angles in degrees (half the rows have one over {typical:.0f})")
    return 1.0 if unit == "rad" else float(np.pi / 180)


def read_scale(
    arrays: LabelArrays, key: str, gtkps: FloatArray, usual: str, settings: ReadSettings, notes: list[str]
) -> FloatArray:
    """Box sizes (N,2) px/200. The visible keypoints (N,44,3) px tell the unit; `usual` is that of the layout."""
    given = arrays.numbers(key, (), (1,), (2,))
    scale: FloatArray = np.empty((len(given), 2), np.float32)
    scale[:] = given[:, None] if given.ndim == 1 else given
    unit: str | None = arrays.use_option("scale_unit", settings.options.scale_unit)
    if unit is None and len(scale):
        unit, why = _scale_unit(arrays, key, scale, gtkps)
        ending = "" if unit == usual else f", though such files have {usual}"
        notes.append(f"'{key}': in {unit} ({why}){ending}")
    return scale / np.float32(200) if unit == "px" else scale


def _scale_unit(arrays: LabelArrays, key: str, scale: FloatArray, gtkps: FloatArray) -> tuple[str, str]:
    """The unit of box sizes (N,2), and the reason, for a note."""
    side = scale.max(axis=1).astype(np.float64)
    valid = np.isfinite(side) & (side > 0)
    seen = gtkps[..., 2] > 0
    points = np.where(seen[..., None], gtkps[..., :2], np.nan)
    measurable = valid & (seen.sum(axis=1) >= _VISIBLE)
    extent = np.full(len(side), np.nan)
    if measurable.any():
        visible = points[measurable]
        extent[measurable] = (np.nanmax(visible, axis=1) - np.nanmin(visible, axis=1)).max(axis=1)
    measurable &= extent >= _EXTENT_PX
    expected = "box sizes in px or px/200"
    advice = "say which with --scale-unit px or px/200"
    if measurable.any():
        ratio = float(np.median(side[measurable] / extent[measurable]))
        for unit, usual in _SIDES.items():
            if usual / _SLACK < ratio < usual * _SLACK:
                return unit, f"{ratio:.3g} of the keypoints' extent"
        raise arrays.error(key, expected, f"{ratio:.3g} of the keypoints' extent; {advice}")
    typical = float(np.median(side[valid])) if valid.any() else 1.0
    if typical <= _PX200_MOST:
        return "px/200", f"half of them under {typical:.3g}"
    if typical >= _PX_LEAST:
        return "px", f"half of them over {typical:.3g}"
    raise arrays.error(key, expected, f"{typical:.3g} in half the rows, and no keypoints; {advice}")


def note_fast_translation(
    key: str, transl: Array, frames: NDArray[np.int64], rate: float | None
) -> list[str]:
    """The note on translations (T,3) of a person at frames (T,), if they can hardly be in metres; rate in Hz."""
    if len(transl) < 2:
        return []
    with np.errstate(over="ignore", invalid="ignore"):
        steps = np.linalg.norm(np.diff(transl, axis=0), axis=1) / np.diff(frames)
    steps = steps[np.isfinite(steps)]
    speed = float(np.median(steps)) * (rate or _USUAL_RATE) if len(steps) else 0.0
    if speed <= _FASTEST:
        return []
    return [
        f"warning: '{key}': people move at {speed:.0f} m/s (in half of the frames or more); is it in metres?"
    ]


def to_metres(
    arrays: LabelArrays, key: str, vertices: FloatArray, settings: ReadSettings, notes: list[str]
) -> FloatArray:
    """Meshes (N,V,3) in metres."""
    unit: str | None = arrays.use_option("length_unit", settings.options.length_unit)
    if unit is None and len(vertices):
        sample = vertices[:_SAMPLE_ROWS]
        sample = sample[np.isfinite(sample).all(axis=(1, 2))]
        sizes = (sample.max(axis=1) - sample.min(axis=1)).max(axis=1) if len(sample) else np.ones(1)
        typical = float(np.median(sizes))
        fitting = [u for u, f in _LENGTHS.items() if _EXTENT[0] * f <= typical <= _EXTENT[1] * f]
        if len(fitting) != 1:
            expected = "people 0.4 to 2.6 m long, in m, cm or mm"
            actual = f"{typical:.3g} in half the meshes; say which with --length-unit m, cm or mm"
            raise arrays.error(key, expected, actual)
        (unit,) = fitting
        if unit != "m":
            notes.append(f"'{key}': in {unit} (half the meshes are over {typical:.0f} long)")
    return vertices / np.float32(_LENGTHS[unit or "m"])
