"""The regressors of joints that evaluations measure at: users bring their files, and the open body has stand-ins.

`h36m17`: Human3.6M's 17 joints, `J_regressor_h36m.npy` of SPIN: pelvis, left hip, knee and ankle, right hip, knee and
ankle, spine, neck, jaw, top of the head, left shoulder, elbow and wrist, right shoulder, elbow and wrist.
`smpl_male24`: SMPL's 24 joints by the male body's regressor, `J_regressor_SMPL_MALE.pkl` of HSMR; `smpl_male.npz` has
one, too.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from skelfit.bodies.assets import Float32
from skelfit.bodies.model_set import JOINT_REGRESSORS, ModelSet, joints_name, refuse_existing
from skelfit.bodies.official_files import SKIN_VERTICES
from skelfit.bodies.regressor_files import RegressorRecord, notes_on_sums, read_regressor, write_regressor
from skelfit.errors import ModelError
from skelfit.storage.command_lines import command

PUBLISHED_FILES = {"h36m17": "J_regressor_h36m.npy", "smpl_male24": "J_regressor_SMPL_MALE.pkl"}
# Human3.6M's joints in the order of the 19 extra keypoints that they are: H36M_TO_J17 of HMR and SPIN.
H36M_TO_J17 = (6, 5, 4, 1, 2, 3, 16, 15, 14, 11, 12, 13, 8, 10, 0, 7, 9)
_EXTRA_OF_J17 = (*range(15), 16, 17)  # of the 19: all but thorax and head
_FIRST_EXTRA = 25


def import_joints(path: Path, out: Path, *, overwrite: bool = False) -> RegressorRecord:
    """Check a regressor file (npy, npz or pkl), told by its number of joints, and write it into a models folder.

    Raises ModelError for a file that cannot be used, OutputError for an asset that exists already.
    """
    array = read_regressor(path, "a joint regressor", "J_regressor")
    names = {(joints, SKIN_VERTICES): name for name, joints in JOINT_REGRESSORS.items()}
    expected = "numbers of shape " + " or ".join(map(str, names))
    if array.dtype.kind not in "fiu":
        raise ModelError(path, None, expected, f"dtype {array.dtype}")
    if array.shape not in names:
        raise ModelError(path, None, expected, f"shape {array.shape}")
    if not np.isfinite(array).all():
        raise ModelError(path, None, "finite numbers", f"{int((~np.isfinite(array)).sum())} NaN or infinite")
    name = names[array.shape]
    target = out / joints_name(name)
    refuse_existing([target], overwrite)
    return write_regressor(name, np.ascontiguousarray(array, "<f4"), path, target, notes_on_sums(array))


def joint_regressor(models: ModelSet, name: str) -> Float32:
    """The regressor (J, V) of a name. Raises ModelError, which says how to bring its file."""
    if name in models.joint_regressors:
        return models.joint_regressors[name]
    if name == "smpl_male24" and "male" in models.smpl:
        return models.smpl_of("male").J_regressor
    how = command("models", "import", "--joints", PUBLISHED_FILES[name], "--out", models.source)
    raise ModelError(
        models.source, joints_name(name), f"a regressor of joints (bring it with: {how})", "no such file"
    )


def open_joints(keypoints44: Float32) -> dict[str, Float32]:
    """The open body's stand-in for Human3.6M's joints: those of its 44 keypoints (44, V) that they are."""
    h36m = np.zeros((len(H36M_TO_J17), keypoints44.shape[1]), "<f4")
    h36m[list(H36M_TO_J17)] = keypoints44[[_FIRST_EXTRA + i for i in _EXTRA_OF_J17]]
    return {"h36m17": h36m}
