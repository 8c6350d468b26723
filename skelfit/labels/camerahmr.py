"""Reader of the CameraHMR label release (`{coco,mpii,aic,insta1,insta2}-release.npz`).

A fault of the file (a missing key, columns of different length, an array of objects, a cut file) stops the
run with one LabelError. A fault of one person becomes the row's reason in `LabelBatch.bad`: rows are data,
never lost.

The camera-frame translation is `trans_cam`, plus the translation column of `cam_ext` where the file has one:
that is how training code for files of this family adds them. `pose_cam` is in the camera frame already.
"""

from __future__ import annotations

import logging
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.config import Gender
from skelfit.errors import LabelError
from skelfit.labels.batch import FloatArray, LabelBatch

READER = "camerahmr-1"  # raise the number when the same file would be read differently

_log = logging.getLogger(__name__)
_GENDERS = {"n": "neutral", "m": "male", "f": "female"} | {g: g for g in ("neutral", "male", "female")}
_KEYPOINTS = 44
_MAX_ANGLE = 10 * np.pi  # rad; an axis-angle this long is a damaged row, not a pose


def read(path: str | Path, gender: Gender = "neutral", max_abs_beta: float = 10.0) -> LabelBatch:
    """Read and check a whole label file.

    Args:
        path: the `.npz` file.
        gender: SMPL body of the labels where the file has no `gender` column.
        max_abs_beta: a row with a larger shape coefficient is bad.

    Raises:
        LabelError: for a fault of the file, with the key, what was expected and what was found.
    """
    columns = _load(Path(path))
    n = len(columns["imgname"])
    transl = columns["trans_cam"]
    if "cam_ext" in columns:
        transl = transl + columns["cam_ext"][:, :3, 3]
    scale = columns["scale"]
    pose_key = "pose_cam" if "pose_cam" in columns else "pose"
    numbers = {
        "center": columns["center"],
        "scale": scale if scale.ndim == 2 else np.repeat(scale[:, None], 2, axis=1),
        "pose": columns[pose_key].reshape(n, 24, 3),
        "betas": columns["shape"][:, :10],
        "transl": transl,
        "cam_int": columns["cam_int"],
        "gtkps": _clean_keypoints(path, "gtkps", columns["gtkps"][:, :_KEYPOINTS]),
        "keypoints3d": _keypoints3d(path, columns.get("keypoints3d"), n),
    }
    genders, unknown = _genders(columns.get("gender"), n, gender)
    imgnames = _texts(columns["imgname"])
    source_keys = {"pose": pose_key, "betas": "shape", "transl": "trans_cam"}
    bad = _row_reasons(numbers, source_keys, max_abs_beta)
    for i in range(n):
        if not imgnames[i].strip():
            bad[i].append("empty_imgname")
        if unknown[i] is not None:
            bad[i].append(f"bad_gender: {unknown[i]!r}")
    rows = np.arange(n, dtype=np.int64)
    reasons = ["; ".join(reason) for reason in bad]
    return LabelBatch(row=rows, imgname=imgnames, gender=genders, bad=reasons, **numbers)


def _load(path: Path) -> dict[str, NDArray[Any]]:
    """The columns of the file, each of the right shape and length; numbers as float32."""
    if not path.is_file():
        raise LabelError(path, None, "a CameraHMR label file (.npz)", "no such file")
    # Asked first, because numpy takes a file that is no zip for a pickle.
    if not zipfile.is_zipfile(path):
        raise LabelError(path, None, "an .npz (zip) file", "a truncated file, or another kind")
    try:
        with np.load(path, allow_pickle=False) as archive:
            pose = "pose" if "pose_cam" not in archive and "pose" in archive else "pose_cam"
            shapes = _shapes(pose)
            columns = {
                key: _column(archive, path, key, shapes[key])
                for key in shapes
                if key in archive or key not in ("cam_ext", "keypoints3d", "gender")
            }
    except (zipfile.BadZipFile, OSError) as error:
        raise LabelError(path, None, "a whole .npz file", f"a damaged one ({error})") from None
    rows = len(columns["imgname"])
    for key, column in columns.items():
        if len(column) != rows:
            raise LabelError(path, key, f"{rows} rows, as many as 'imgname' has", f"{len(column)} rows")
    return columns


def _shapes(pose: str) -> dict[str, list[tuple[int | str, ...]]]:
    """The shapes that each key may have after the number of people; '44+' is 44 or more."""
    return {
        "imgname": [()],
        "center": [(2,)],
        "scale": [(), (2,)],
        pose: [(72,), (24, 3)],
        "shape": [("10+",)],
        "trans_cam": [(3,)],
        "cam_int": [(3, 3)],
        "gtkps": [("44+", 3)],
        "cam_ext": [(4, 4), (3, 4)],
        "keypoints3d": [("44+", 3), ("44+", 4)],
        "gender": [()],
    }


def _column(
    archive: Mapping[str, NDArray[Any]], path: Path, key: str, shapes: list[tuple[int | str, ...]]
) -> NDArray[Any]:
    """One column, checked; text as str, numbers as float32."""
    expected = " or ".join("(" + ", ".join(["N", *map(str, shape)]) + ")" for shape in shapes)
    is_text = key in ("imgname", "gender")
    expected = f"{'text' if is_text else 'numbers'} of shape {expected}"
    if key not in archive:
        found = ", ".join(sorted(archive)[:20]) or "no keys at all"
        raise LabelError(path, key, expected, f"no such key; the file has {found}")
    try:
        value = archive[key]
    except (ValueError, EOFError, zlib.error, zipfile.BadZipFile) as error:
        if "Object arrays" in str(error):
            # Loading one would run a pickle, that is, code of whoever made the file.
            found = "an object array (it needs unpickling, which could run code; save plain arrays)"
        else:
            found = f"a damaged array ({error})"
        raise LabelError(path, key, expected, found) from None
    if not any(_fits(value.shape, shape) for shape in shapes):
        raise LabelError(path, key, expected, f"shape {value.shape}")
    if value.dtype.kind not in ("US" if is_text else "fiu"):
        raise LabelError(path, key, expected, f"dtype {value.dtype}")
    if is_text:
        return np.char.decode(value, "utf-8", "replace") if value.dtype.kind == "S" else value
    if key == "shape" and value.shape[1] > 10:
        _log.info("%s: 'shape': using 10 of %d columns", path, value.shape[1])
    with np.errstate(over="ignore"):  # beyond float32 becomes inf, and the row is reported
        return value.astype(np.float32)


def _fits(found: tuple[int, ...], expected: tuple[int | str, ...]) -> bool:
    if len(found) != len(expected) + 1:
        return False
    return all(
        a >= int(b[:-1]) if isinstance(b, str) else a == b for a, b in zip(found[1:], expected, strict=True)
    )


def _clean_keypoints(path: str | Path, key: str, keypoints: FloatArray) -> FloatArray:
    """A keypoint that is not finite is a keypoint that is not there: zeros with confidence 0."""
    missing = np.logical_not(np.isfinite(keypoints).all(axis=-1))
    if missing.any():
        _log.warning("%s: '%s': %d keypoints are not finite; confidence set to 0", path, key, missing.sum())
    return np.where(missing[..., None], np.float32(0), keypoints)


def _keypoints3d(path: str | Path, found: FloatArray | None, n: int) -> FloatArray:
    if found is None:
        return np.zeros((n, _KEYPOINTS, 4), np.float32)
    found = found[:, :_KEYPOINTS]
    if found.shape[2] == 3:
        found = np.concatenate([found, np.ones((n, _KEYPOINTS, 1), np.float32)], axis=2)
    return _clean_keypoints(path, "keypoints3d", found)


def _texts(column: NDArray[Any]) -> list[str]:
    """Text that can be stored as UTF-8; what cannot (an embedded zero, a lone surrogate) becomes '?'."""
    return [t.replace("\0", "?").encode("utf-8", "replace").decode() for t in column.tolist()]


def _genders(column: NDArray[Any] | None, n: int, default: Gender) -> tuple[list[str], list[str | None]]:
    """Genders of the SMPL body, and beside each the text that was not understood (None where it was)."""
    if column is None:
        return [default] * n, [None] * n
    texts = _texts(column)
    genders = [_GENDERS.get(text.strip().lower()) for text in texts]
    unknown = [t if g is None else None for t, g in zip(texts, genders, strict=True)]
    return [g or default for g in genders], unknown


def _row_reasons(
    numbers: dict[str, FloatArray], source_keys: dict[str, str], max_abs_beta: float
) -> list[list[str]]:
    """Why each row is bad, in the words of the source file."""
    n = len(numbers["pose"])
    reasons: list[list[str]] = [[] for _ in range(n)]

    def report(where: NDArray[np.bool_], text: str, values: FloatArray | None = None) -> None:
        for i in np.flatnonzero(where):
            reasons[i].append(text if values is None else text.format(values[i]))

    for name in ("pose", "betas", "transl", "cam_int", "center", "scale"):
        finite = np.isfinite(numbers[name]).all(axis=tuple(range(1, numbers[name].ndim)))
        report(np.logical_not(finite), f"non_finite:{source_keys.get(name, name)}")
    with np.errstate(over="ignore", invalid="ignore"):
        angle = np.linalg.norm(numbers["pose"], axis=2).max(axis=1)
        report(np.isfinite(angle) & (angle > _MAX_ANGLE), "absurd_pose: angle max {:.1f} rad > 31.4", angle)
    beta = np.abs(numbers["betas"]).max(axis=1)
    text = "absurd_betas: |beta| max {:.1f} > " + f"{max_abs_beta:g}"
    report(np.isfinite(beta) & (beta > max_abs_beta), text, beta)
    focal = numbers["cam_int"][:, [0, 1], [0, 1]].min(axis=1)
    report(focal <= 0, "bad_camera: focal length {:.1f} px", focal)
    side = numbers["scale"].min(axis=1)
    report(side <= 0, "bad_box: scale {:.3f}", side)
    return reasons
