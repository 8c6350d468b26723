"""The label file that SKEL-CF's trainer reads; also one that `skelfit convert --source camerahmr` reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from skelfit.errors import OutputError
from skelfit.shards.finished_run import FinishedRun, Person, Step, no_step
from skelfit.shards.label_vector import FIELDS
from skelfit.storage.hashed_write import write_atomically

# Keys of the file, and the parts of a label vector that they are: SKEL-CF's `X-release-skel.npz` and skel_trans...
_PARTS = {
    **{name: name for name in ("center", "scale", "skel_poses", "skel_betas", "skel_trans")},
    **{name: name for name in ("gtkps", "keypoints3d", "cam_int")},
}
# ...and what came in, under the names of a CameraHMR release.
_CAME_IN = {"pose_cam": "smpl_pose", "shape": "smpl_betas", "trans_cam": "smpl_trans"}
_TEXTS = ("imgname", "skel_gender", "coordinates", "label_file", "sequence", "subject")  # of the metadata
_SHAPES = {f.name: f.shape for f in FIELDS}


def export_skel_cf(run: FinishedRun, out: Path, *, overwrite: bool = False, step: Step = no_step) -> int:
    """Write the npz that SKEL-CF's trainer reads; returns the number of people.

    Keys: imgname (N,) unicode; scale (N,) px/200, or (N,2) where a box is not square; center (N,2) px;
    skel_poses (N,46) rad; skel_betas (N,10); skel_trans (N,3) m; gtkps (N,44,3) px + confidence; keypoints3d
    (N,44,4) m + confidence; cam_int (N,3,3) px; row (N,) int64, index in the label file; skel_gender (N,);
    coordinates (N,), names of `layout.COORDINATES`. Where people have no image, what identifies them: label_file (N,);
    and, of frames, subject (N,), sequence (N,), frame (N,) int64, -1 for people of no sequence. And where everybody has
    SMPL labels in the frame of a camera, those: pose_cam (N,24,3) rad; shape (N,10); trans_cam (N,3) m; gender (N,).
    Raises ShardError for damaged shards, OutputError when `out` exists and `overwrite` is not set.
    """
    if out.suffix != ".npz":
        raise OutputError(f"{out}: expected a file name that ends in .npz")
    if out.exists() and not overwrite:
        raise OutputError(f"{out}: exists already; choose another name or --overwrite")
    n = run.rows_out
    parts = _PARTS | _CAME_IN
    arrays: dict[str, Any] = {key: np.empty((n, *_SHAPES[part]), np.float32) for key, part in parts.items()}
    numbers: dict[str, list[int]] = {"row": [], "frame": []}
    texts: dict[str, list[str]] = {key: [] for key in (*_TEXTS, "gender")}
    all_came_in = True
    for i, person in enumerate(run.people()):
        all_came_in = all_came_in and _has_smpl(person)
        for key, part in parts.items():
            arrays[key][i] = person.fields[part]
        numbers["row"].append(person.meta["row"])
        numbers["frame"].append(-1 if person.meta["frame"] is None else person.meta["frame"])
        texts["gender"].append(person.meta["smpl_gender"])
        for key in _TEXTS:
            texts[key].append(person.meta[key] or "")
        step(1)
    arrays |= {key: np.array(values, np.int64) for key, values in numbers.items()}
    arrays |= {key: np.array(values, dtype=np.str_) for key, values in texts.items()}
    if (arrays["imgname"] != "").all():
        del arrays["label_file"]
    if not ((arrays["imgname"] == "") & (arrays["frame"] >= 0)).any():
        for key in ("sequence", "subject", "frame"):
            del arrays[key]
    scale = arrays["scale"]
    if (scale[:, 0] == scale[:, 1]).all():
        arrays["scale"] = scale[:, 0]
    if not all_came_in:
        for key in (*_CAME_IN, "gender"):
            del arrays[key]
    write_atomically(out, lambda stream: np.savez(stream, **arrays))
    return n


def _has_smpl(person: Person) -> bool:
    """Whether a person came with SMPL labels in the frame of a known camera."""
    meta = person.meta
    return bool(meta["smpl"] and meta["camera"] and meta["coordinates"] == "camera")
