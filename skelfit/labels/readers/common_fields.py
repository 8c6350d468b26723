"""Fields that label files of several layouts have, read and checked in one way."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from skelfit.config.manifest import Gender
from skelfit.labels.body_family import BODY_JOINTS, MODEL_OF_JOINTS, BodyModel, infer_body_model
from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.impossible_values import LIMITS
from skelfit.labels.label_batch import FloatArray, LabelBatch, LabelProperties
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import Array, read_rotations

NUM_KEYPOINTS = 44
NUM_OPENPOSE = 25  # the first of them
_LATENT = 32  # numbers of a pose of VPoser, which SMPLify-X writes in the place of joints
IMAGE_NAME_KEYS = ("imgname", "img_path", "image")

_log = logging.getLogger(__name__)
_GENDERS = {"n": "neutral", "m": "male", "f": "female"} | {g: g for g in ("neutral", "male", "female")}


def image_batch(
    arrays: LabelArrays,
    settings: ReadSettings,
    numbers: dict[str, Any],
    source_keys: Mapping[str, str],
    faults: RowFaults,
    about: LabelProperties,
) -> LabelBatch:
    """A batch of people in boxes of images, every row checked. source_keys: field -> key, for the fields to check."""
    imgname = arrays.texts("imgname")
    faults.check(numbers, source_keys, about.coordinates, settings.max_abs_beta)
    faults.check_names(imgname)
    gender = read_genders(arrays, settings.gender, faults)
    row = np.arange(len(imgname), dtype=np.int64)
    return LabelBatch(row=row, imgname=imgname, gender=gender, bad=faults.texts(), about=about, **numbers)


def read_pose(
    arrays: LabelArrays, key: str, settings: ReadSettings, faults: RowFaults, notes: list[str]
) -> tuple[Array, BodyModel]:
    """Axis-angles (N,24,3) rad of a key with all joints, or of `global_orient` and a key with the rest; and the model.

    SMPL's two hand joints are 0 where the file lacks them or has fingers instead; SKEL has no use for them.
    """
    if "global_orient" not in arrays:
        angles, joints = read_rotations(arrays, key, (24, *MODEL_OF_JOINTS), settings, faults, notes)
    else:
        if key in arrays and arrays.raw(key, "rotations").shape[1:] == (_LATENT,):
            found = f"{_LATENT} numbers, as VPoser's latent poses have them; decode them with VPoser, and save joints"
            raise arrays.error(key, "rotations of 23 or 21 joints", found)
        root, _ = read_rotations(arrays, "global_orient", (1,), settings, faults, notes)
        others, joints = read_rotations(arrays, key, (23, 21), settings, faults, notes)
        angles, joints = np.concatenate([root, others], axis=1), joints + 1
    model = infer_body_model(arrays, key, joints, notes)
    kept = BODY_JOINTS if model != "SMPL" else min(joints, 24)
    pose = np.zeros((len(angles), 24, 3))
    pose[:, :kept] = angles[:, :kept]
    return pose, model


def read_betas(arrays: LabelArrays, key: str, model: BodyModel, notes: list[str]) -> FloatArray:
    """The first ten betas (N,10); 0 for SMPL-X. A note says how many more the file has."""
    if model == "SMPL-X":
        return np.zeros((arrays.rows or 0, 10), np.float32)
    betas: FloatArray = arrays.numbers(key, ("10+",))
    if betas.shape[1] > 10:
        notes.append(f"'{key}': using 10 of {betas.shape[1]} columns")
    return betas[:, :10]


def read_shared_betas(arrays: LabelArrays, key: str, other_body: bool, notes: list[str]) -> FloatArray:
    """Betas of the person (10,), or of every frame (N,10)."""
    expected = "10 or more numbers, for the sequence or for every frame"
    betas = arrays.raw(key, expected)
    if arrays.rows == 0 and betas.size == 0:
        return np.zeros(10, np.float32)
    if betas.dtype.kind not in "fiu" or betas.ndim not in (1, 2) or betas.shape[-1] < 10:
        raise arrays.error(key, expected, f"dtype {betas.dtype} of shape {betas.shape}")
    if betas.ndim == 2 and len(betas) not in (1, arrays.rows):
        raise arrays.error(key, f"1 or {arrays.rows} rows", f"{len(betas)} rows")
    if other_body:
        return np.zeros(10, np.float32)
    if betas.shape[-1] > 10:
        notes.append(f"'{key}': using 10 of {betas.shape[-1]} columns")
    with np.errstate(over="ignore"):
        ten: FloatArray = betas[..., :10].astype(np.float32)
    return ten


def read_image_names(arrays: LabelArrays, rows: int) -> list[str]:
    """Names of images (N,); '' where a file of so many rows has none."""
    key = arrays.first_key(*IMAGE_NAME_KEYS)
    return arrays.texts(key) if key else [""] * rows


def read_genders(arrays: LabelArrays, default: Gender, faults: RowFaults) -> list[str]:
    """Genders of the SMPL body (N,); an unknown text makes a bad row."""
    rows = arrays.rows or 0
    if "gender" not in arrays:
        return [default] * rows
    if arrays.raw("gender", "text of shape (N)").ndim == 0:
        texts = [arrays.text("gender")] * rows  # one for the whole file
    else:
        texts = arrays.texts("gender")
    genders = [parse_gender(text) for text in texts]
    for i in range(rows):
        if genders[i] is None:
            faults.add(i, f"bad_gender: {texts[i]!r}")
    return [gender or default for gender in genders]


def parse_gender(text: str) -> str | None:
    """neutral, male or female; None for a text that says neither."""
    return _GENDERS.get(text.strip().lower())


def clean_keypoints(arrays: LabelArrays, key: str, keypoints: FloatArray) -> FloatArray:
    """Keypoints that are not finite become zeros with confidence 0.

    Confidences from -1 to 0, which mark keypoints without a label, become 0, so that they can be used as weights.
    """
    missing = np.logical_not(np.isfinite(keypoints).all(axis=-1))
    if missing.any():
        _log.warning(
            "%s: '%s': %d keypoints are not finite; confidence set to 0", arrays.path, key, missing.sum()
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
