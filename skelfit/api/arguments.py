"""Arrays that a caller hands over, checked and brought into the form that labels take.

A fault of an argument is an ArgumentError of one sentence. A fault of one person, such as a number that is not finite,
is a reason in the batch, as in a label file.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import ArgumentError, found_text
from skelfit.labels.impossible_values import LIMITS
from skelfit.labels.label_batch import VERTICES, LabelBatch, LabelProperties, MotionSequence, empty_fields
from skelfit.labels.readers.bare_meshes import check_meshes
from skelfit.labels.readers.common_fields import parse_gender
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import matrices_to_axis_angle, to_float32

BETAS = 10
_POSE = "axis-angles (..., 24, 3) or (..., 72) in rad, or rotation matrices (..., 24, 3, 3)"
_GENDER = "neutral, male or female, one for all or one per person"
Leading = tuple[int, ...]
Array = NDArray[np.float64]


@dataclass(frozen=True)
class GivenPeople:
    """The people of a call: N rows, and the leading dimensions that N is the product of."""

    leading: Leading
    batch: LabelBatch


def given_labels(
    pose: object,
    betas: object,
    transl: object,
    gender: object,
    max_abs_beta: float,
    frames_per_second: float | None = None,
) -> GivenPeople:
    """People of SMPL parameters, as `skelfit.fit` takes them. Raises ArgumentError."""
    angles = numbers(pose, "pose", _POSE)
    matrices = angles.shape[-3:] == (24, 3, 3)
    if not matrices and angles.shape[-1:] == (72,):
        angles = angles.reshape(*angles.shape[:-1], 24, 3)
    if not matrices and angles.shape[-2:] != (24, 3):
        raise ArgumentError("pose", _POSE, _shape(angles))
    shapes = numbers(betas, "betas", "shape (..., 10) or more numbers each")
    if shapes.ndim < 1 or shapes.shape[-1] < BETAS:
        raise ArgumentError("betas", "shape (..., 10) or more numbers each", _shape(shapes))
    translations = np.zeros(3) if transl is None else numbers(transl, "transl", "shape (..., 3) in m")
    if translations.shape[-1:] != (3,):
        raise ArgumentError("transl", "shape (..., 3) in m", _shape(translations))
    genders = _genders(gender)
    own = 3 if matrices else 2
    leading = angles.shape[:-own]
    for name, value, inner in (("betas", shapes, 1), ("transl", translations, 1), ("gender", genders, 0)):
        leading = together(leading, value, inner, name)
    count = int(np.prod(leading))
    reasons = RowFaults(count)
    flat = np.broadcast_to(angles, leading + angles.shape[-own:]).reshape(count, *angles.shape[-own:])
    filled = empty_fields(count)
    filled["pose"][:] = to_float32(matrices_to_axis_angle("pose", flat, reasons) if matrices else flat)
    for key, value in (("betas", shapes[..., :BETAS]), ("transl", translations)):
        filled[key][:] = to_float32(
            np.broadcast_to(value, leading + value.shape[-1:]).reshape(count, value.shape[-1])
        )
    reasons.check(filled, {key: key for key in ("pose", "betas", "transl")}, "unknown", max_abs_beta)
    people_genders = np.broadcast_to(genders, leading).reshape(-1).tolist()
    motions = motions_of(leading, frames_per_second)
    _check_motions(motions, people_genders, filled["betas"])
    notes = () if shapes.shape[-1] == BETAS else (f"'betas': using 10 of {shapes.shape[-1]} columns",)
    batch = LabelBatch(
        row=np.arange(count, dtype=np.int64),
        imgname=[""] * count,
        gender=people_genders,
        bad=reasons.texts(),
        sequences=motions,
        about=LabelProperties("unknown", has_camera=False, has_keypoints=False, notes=notes),
        **filled,
    )
    return GivenPeople(leading, batch)


def given_meshes(vertices: object, gender: object) -> GivenPeople:
    """People given by meshes alone, as `skelfit.fit_mesh` takes them. Raises ArgumentError."""
    expected = f"shape (..., {VERTICES}, 3) in m, SMPL's topology"
    meshes = numbers(vertices, "vertices", expected)
    if meshes.shape[-2:] != (VERTICES, 3):
        raise ArgumentError("vertices", expected, _shape(meshes))
    genders = _genders(gender)
    leading = meshes.shape[:-2]
    if together(leading, genders, 0, "gender") != leading:
        raise ArgumentError("gender", f"one for all or one for each of the meshes {leading}", _shape(genders))
    count = int(np.prod(leading))
    reasons = RowFaults(count)
    checked = check_meshes(to_float32(meshes.reshape(count, VERTICES, 3)), "vertices", reasons)
    batch = LabelBatch(
        row=np.arange(count, dtype=np.int64),
        imgname=[""] * count,
        gender=np.broadcast_to(genders, leading).reshape(-1).tolist(),
        bad=reasons.texts(),
        vertices=checked,
        about=LabelProperties("unknown", has_camera=False, has_smpl=False, has_keypoints=False),
        **empty_fields(count),
    )
    return GivenPeople(leading, batch)


def numbers(value: object, name: str, expected: str) -> Array:
    """An argument as float64, NaN where it is masked; a tensor may be of any device. Raises ArgumentError."""
    array = _from_tensor(value, name)
    if array is None:
        try:
            array = np.asanyarray(value)
        except (ValueError, TypeError, RuntimeError) as error:  # rows of different length, lists of tensors
            raise ArgumentError(name, expected, f"no array ({error})") from None
    if array.dtype.kind not in "fiu":
        raise ArgumentError(name, f"numbers, {expected}", f"dtype {array.dtype}")
    with np.errstate(over="ignore"):
        # A masked number is one that is not there.
        return np.asarray(np.ma.filled(array.astype(np.float64), np.nan))


def _from_tensor(value: object, name: str) -> NDArray[Any] | None:
    """The array of a tensor; None for anything else. Who has a tensor has imported torch. Raises ArgumentError."""
    torch = sys.modules.get("torch")
    if torch is None or not isinstance(value, torch.Tensor):
        return None
    if value.layout is not torch.strided or value.is_meta or value.is_quantized or value.is_complex():
        raise ArgumentError(
            name, "a dense tensor of real numbers", f"{value.dtype}, {value.layout}, {value.device}"
        )
    tensor: Any = value.detach().cpu()
    # NumPy has no bfloat16.
    array: NDArray[Any] = (tensor.double() if tensor.is_floating_point() else tensor).numpy()
    return array


def _genders(gender: object) -> NDArray[np.str_]:
    """Genders of any shape, in full. Raises ArgumentError."""
    try:
        texts = np.asanyarray(gender)
    except ValueError as error:
        raise ArgumentError("gender", _GENDER, f"no array ({error})") from None
    if np.ma.is_masked(texts):
        raise ArgumentError("gender", _GENDER, "masked ones")
    texts = np.asarray(texts)
    if texts.dtype == object and all(isinstance(text, str) for text in texts.flat):
        texts = texts.astype(np.str_)  # a column of a table
    if texts.dtype.kind != "U" and texts.size:
        raise ArgumentError("gender", _GENDER, f"dtype {texts.dtype}")
    names = {text: parse_gender(text) for text in np.unique(texts).tolist()}
    for text, name in names.items():
        if name is None:
            raise ArgumentError("gender", _GENDER, repr(text))
    return np.array([names[text] for text in texts.flat], np.str_).reshape(texts.shape)


def together(leading: Leading, value: NDArray[Any], own: int, name: str) -> Leading:
    """The leading dimensions of people and of an argument, whose last `own` dimensions are a person's."""
    its = value.shape[: value.ndim - own]
    try:
        whole = np.broadcast_shapes(leading, its)
    except ValueError:
        whole = None
    # NumPy would make nothing of one and none: people would be lost.
    if whole is None or (0 in whole and 0 not in leading):
        expected = f"leading dimensions that go with {leading}, those of the arguments before it"
        raise ArgumentError(name, expected, _shape(value))
    return whole


def motions_of(
    leading: Leading, frames_per_second: float | None, name: str = "pose"
) -> tuple[MotionSequence, ...]:
    """A motion for each of the people whose frames the last leading dimension holds; none without a frame rate.

    name: of the argument with that dimension. Raises ArgumentError.
    """
    if frames_per_second is None:
        return ()
    low, high = LIMITS.frame_rate_hz
    number = (int, float, np.integer, np.floating)
    is_rate = isinstance(frames_per_second, number) and not isinstance(frames_per_second, bool)
    if not is_rate or not low <= frames_per_second <= high:
        expected = f"a rate of {low:g} to {high:g} Hz"
        raise ArgumentError("frames_per_second", expected, found_text(frames_per_second))
    if not leading:
        expected = "poses of at least two frames, for frames_per_second"
        raise ArgumentError(name, expected, "one person without a dimension of frames")
    frames = leading[-1]
    people = int(np.prod(leading[:-1])) if frames else 0
    rate = float(frames_per_second)
    return tuple(
        MotionSequence(f"motion {k}", f"person {k}", rate, k * frames, frames) for k in range(people)
    )


def _check_motions(
    motions: tuple[MotionSequence, ...], genders: list[str], betas: NDArray[np.float32]
) -> None:
    """Raise ArgumentError unless the frames of each motion are of one gender and one shape, as a person is."""
    for motion in motions:
        rows = slice(motion.start, motion.start + motion.frames)
        expected = "the same for all frames of a motion, with frames_per_second"
        if len(own := sorted(set(genders[rows]))) > 1:
            raise ArgumentError("gender", expected, " and ".join(own))
        shapes = betas[rows][np.isfinite(betas[rows]).all(axis=1)]  # other frames are bad input
        if (shapes != shapes[:1]).any():
            count = len(np.unique(shapes, axis=0))
            raise ArgumentError("betas", expected, f"{count} shapes in {motion.frames} frames")


def _shape(value: NDArray[Any]) -> str:
    return f"shape {value.shape}"
