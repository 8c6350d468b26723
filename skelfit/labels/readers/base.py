"""What a reader is asked for, and what readers share: checks of single rows, and fields that many files have."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.config.manifest import Gender, LabelLayout, ReadOptions
from skelfit.errors import LabelError
from skelfit.labels.body_family import Body
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.impossible_values import LIMITS, check_values
from skelfit.labels.label_batch import Coordinates, FloatArray, LabelBatch, LabelProperties

KEYPOINTS = 44
OPENPOSE = 25  # the first of them
MAX_ANGLE = 10 * np.pi  # rad; an axis-angle this long is a damaged row, not a pose

_log = logging.getLogger(__name__)
_GENDERS = {"n": "neutral", "m": "male", "f": "female"} | {g: g for g in ("neutral", "male", "female")}


@dataclass(frozen=True)
class Request:
    """How a label file is to be read."""

    gender: Gender = "neutral"  # of the SMPL body where the file does not say
    max_abs_beta: float = 10.0  # a row with a larger shape coefficient is bad
    options: ReadOptions = ReadOptions()
    name: str = ""  # of the file, as a sequence is to be called; '' is its own name without the ending
    subject: str = ""  # whose motion it is, where the file does not say


class OptionError(LabelError):
    """An option that a label file leaves without anything to do."""


# What each of the options on reading is about, and its name on the command line.
OPTIONS = {
    "scale_unit": ("boxes", "--scale-unit"),
    "angle_unit": ("axis-angles", "--angle-unit"),
    "rot6d": ("rotations as 6 numbers", "--rot6d"),
    "length_unit": ("meshes", "--length-unit"),
    "labels_up": ("people in a world, not before a camera", "--labels-up"),
    "up": ("people in a world, not before a camera", "--up"),
}


def check_options(columns: LabelArrays, source: LabelLayout, options: ReadOptions) -> None:
    """Raise OptionError for an option that was given and that no number of the file, once read, has a use for."""
    for name, (what, option) in OPTIONS.items():
        value = getattr(options, name)
        if value is not None and name not in columns.settled:
            expected = f"{what}, for {option} {value} (in a manifest: read.{name})"
            raise OptionError(columns.path, None, expected, f"none in these {source} labels")


class Reasons:
    """Why rows are bad, in the words of the source file."""

    def __init__(self, rows: int) -> None:
        self._reasons: list[list[str]] = [[] for _ in range(rows)]

    def report(self, where: NDArray[np.bool_], text: str, values: NDArray[np.floating] | None = None) -> None:
        """A reason for some rows (N,) bool; values (N,) fill the text's braces."""
        for i in np.flatnonzero(where):
            self._reasons[i].append(text if values is None else text.format(values[i]))

    def add(self, row: int, text: str) -> None:
        """A reason for one row."""
        self._reasons[row].append(text)

    def texts(self) -> list[str]:
        """One text per row; '' for a good one."""
        return ["; ".join(reasons) for reasons in self._reasons]

    def check_finite(self, numbers: Mapping[str, FloatArray], source_keys: Mapping[str, str]) -> None:
        """Fields with a number that is not finite; source_keys names each as the file does."""
        for name, key in source_keys.items():
            finite = np.isfinite(numbers[name]).all(axis=tuple(range(1, numbers[name].ndim)))
            self.report(np.logical_not(finite), f"non_finite:{key}")

    def check_body(self, numbers: Mapping[str, FloatArray], max_abs_beta: float) -> None:
        """Poses and betas that nobody has."""
        with np.errstate(over="ignore", invalid="ignore"):
            angle = np.linalg.norm(numbers["pose"], axis=2).max(axis=1)
        self.report(
            np.isfinite(angle) & (angle > MAX_ANGLE), "absurd_pose: angle max {:.1f} rad > 31.4", angle
        )
        beta = np.abs(numbers["betas"]).max(axis=1)
        text = "absurd_betas: |beta| max {:.1f} > " + f"{max_abs_beta:g}"
        self.report(np.isfinite(beta) & (beta > max_abs_beta), text, beta)

    def check(
        self,
        numbers: Mapping[str, FloatArray],
        source_keys: Mapping[str, str],
        coordinates: Coordinates,
        max_abs_beta: float,
    ) -> None:
        """All of a row's numbers: finite, and possible. source_keys names the fields of the file as it does."""
        self.check_finite(numbers, source_keys)
        self.check_body(numbers, max_abs_beta)
        check_values(numbers, source_keys, coordinates, self.report)

    def check_names(self, imgname: list[str]) -> None:
        """Rows that name no image."""
        self.report(np.array([not name.strip() for name in imgname], bool), "empty_imgname")

    def check_flag(self, columns: LabelArrays, key: str) -> None:
        """Rows of which the file says itself that they hold nothing."""
        if key in columns:
            flag = columns.numbers(key, (), (1,)).reshape(-1)
            self.report(flag == 0, f"no_label: {key} is 0")
            self.report(np.logical_not(np.isfinite(flag)), f"non_finite:{key}")


def image_batch(
    columns: LabelArrays,
    request: Request,
    numbers: dict[str, Any],
    source_keys: Mapping[str, str],
    reasons: Reasons,
    about: LabelProperties,
) -> LabelBatch:
    """People in boxes of images, every row checked; source_keys: what must be finite, as the file names it."""
    imgname = columns.texts("imgname")
    reasons.check(numbers, source_keys, about.coordinates, request.max_abs_beta)
    reasons.check_names(imgname)
    gender = read_genders(columns, request.gender, reasons)
    row = np.arange(len(imgname), dtype=np.int64)
    return LabelBatch(row=row, imgname=imgname, gender=gender, bad=reasons.texts(), about=about, **numbers)


def read_betas(columns: LabelArrays, key: str, body: Body, notes: list[str]) -> FloatArray:
    """The first ten betas (N,10), N as of the columns before; says how many more there are. 0 for those of SMPL-X."""
    if body.is_smplx:
        return np.zeros((columns.rows or 0, 10), np.float32)
    betas: FloatArray = columns.numbers(key, ("10+",))
    if betas.shape[1] > 10:
        notes.append(f"'{key}': using 10 of {betas.shape[1]} columns")
    return betas[:, :10]


def read_genders(columns: LabelArrays, default: Gender, reasons: Reasons) -> list[str]:
    """Genders of the SMPL body (N,); a text that is not understood makes a bad row."""
    rows = columns.rows or 0
    if "gender" not in columns:
        return [default] * rows
    if columns.raw("gender", "text of shape (N)").ndim == 0:
        texts = [columns.text("gender")] * rows  # one for the whole file
    else:
        texts = columns.texts("gender")
    genders = [gender_of(text) for text in texts]
    for i in range(rows):
        if genders[i] is None:
            reasons.add(i, f"bad_gender: {texts[i]!r}")
    return [gender or default for gender in genders]


def gender_of(text: str) -> str | None:
    """neutral, male or female; None for a text that says neither."""
    return _GENDERS.get(text.strip().lower())


def clean_keypoints(columns: LabelArrays, key: str, keypoints: FloatArray) -> FloatArray:
    """A keypoint that is not finite is a keypoint that is not there: zeros with confidence 0.

    One of negative confidence, down to -1, has no label: its confidence becomes 0, as a sum weighted by it expects.
    """
    missing = np.logical_not(np.isfinite(keypoints).all(axis=-1))
    if missing.any():
        _log.warning(
            "%s: '%s': %d keypoints are not finite; confidence set to 0", columns.path, key, missing.sum()
        )
    cleaned: FloatArray = np.where(missing[..., None], np.float32(0), keypoints)
    confidence = cleaned[..., -1]
    cleaned[..., -1] = np.where((confidence < 0) & (confidence >= LIMITS.confidence[0]), 0, confidence)
    return cleaned


def with_confidence(points: FloatArray) -> FloatArray:
    """Points (N,K,3) m with confidence 1, or (N,K,4) as they are."""
    if points.shape[2] == 4:
        return points
    return np.concatenate([points, np.ones((*points.shape[:2], 1), np.float32)], axis=2)
