"""The regressor of the 44 keypoints (25 of OpenPose, then 19 extra) from the skin; users bring its file.

A regressor holds, for each keypoint, weights of the posed skin vertices. Two kinds of files exist: all keypoints,
(44, 6890), and the 19 extra joints alone, (19, 6890), as in `SMPL_to_J19.pkl` of 4D-Humans and `J_regressor_extra.npy`
of SPIN. For the latter, OpenPose's 25 are made as those codes make them: SMPL's own joints, by the regressor of the
SMPL file, and single vertices of face and feet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skelfit.bodies.assets import SMPL_GENDERS, asset_name, load_smpl
from skelfit.bodies.model_set import KEYPOINTS_NAME, refuse_existing
from skelfit.bodies.official_files import SKIN_VERTICES
from skelfit.bodies.regressor_files import RegressorRecord, notes_on_sums, read_regressor, write_regressor
from skelfit.errors import ModelError

KEYPOINTS, OPENPOSE, EXTRA = 44, 25, 19
# OpenPose's 25 in its order: ("joint", SMPL joint) or ("vertex", id in SMPL's topology).
_OPENPOSE: tuple[tuple[str, int], ...] = (
    ("vertex", 332),  # nose
    *(("joint", j) for j in (12, 17, 19, 21, 16, 18, 20, 0, 2, 5, 8, 1, 4, 7)),  # neck, arms, mid hip, legs
    *(("vertex", v) for v in (6260, 2800, 4071, 583)),  # right and left eye, right and left ear
    *(("vertex", v) for v in (3216, 3226, 3387)),  # left big toe, small toe, heel
    *(("vertex", v) for v in (6617, 6624, 6787)),  # the right ones
)
_MAX_OFF = 0.05  # a row whose sum is further from 1 gives a keypoint that depends on the choice of the origin


def import_keypoints(path: Path, out: Path, *, overwrite: bool = False) -> RegressorRecord:
    """Check a regressor file (npy, npz or pkl) and write it as `keypoints44.npz` of a models folder.

    A file of the 19 extra joints alone needs an SMPL asset in `out`. Raises ModelError for a file that cannot be used,
    OutputError for an asset that exists already.
    """
    target = out / KEYPOINTS_NAME
    refuse_existing([target], overwrite)
    array = _checked(path, read_regressor(path, "a keypoint regressor", "keypoints44"))
    notes = notes_on_sums(array)
    if len(array) == EXTRA:
        array = np.concatenate([_openpose(path, out), array])
        notes = ("19 extra joints; OpenPose's 25 are SMPL's joints and vertices of face and feet", *notes)
    return write_regressor("keypoints44", np.ascontiguousarray(array, "<f4"), path, target, notes)


def _checked(path: Path, array: Any) -> np.ndarray[Any, np.dtype[np.float64]]:
    expected = f"numbers of shape ({KEYPOINTS}, {SKIN_VERTICES}) or ({EXTRA}, {SKIN_VERTICES})"
    if array.dtype.kind not in "fiu":
        raise ModelError(path, None, expected, f"dtype {array.dtype}")
    if array.shape not in ((KEYPOINTS, SKIN_VERTICES), (EXTRA, SKIN_VERTICES)):
        raise ModelError(path, None, expected, f"shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelError(path, None, "finite numbers", f"{int((~np.isfinite(array)).sum())} NaN or infinite")
    off = np.abs(array.sum(axis=1, dtype=np.float64) - 1)
    if off.max() > _MAX_OFF:
        actual = f"row {int(off.argmax())} with the sum {float(array[off.argmax()].sum()):.4g}"
        raise ModelError(path, None, "rows that sum to 1", actual)
    return np.asarray(array, np.float64)


def _openpose(path: Path, out: Path) -> np.ndarray[Any, np.dtype[np.float64]]:
    """OpenPose's 25 rows, (25, 6890), by an SMPL asset of the models folder."""
    assets = [out / asset_name("smpl", gender) for gender in SMPL_GENDERS]
    asset = next((a for a in assets if a.exists()), None)
    if asset is None:
        expected = f"an SMPL asset in {out} (--smpl DIR) beside a file of the {EXTRA} extra joints"
        raise ModelError(path, None, expected, "none")
    joints = load_smpl(asset).J_regressor
    rows = np.zeros((OPENPOSE, SKIN_VERTICES))
    for row, (kind, index) in zip(rows, _OPENPOSE, strict=True):
        if kind == "joint":
            row[:] = joints[index]
        else:
            row[index] = 1
    return rows
