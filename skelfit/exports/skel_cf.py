"""The label file that SKEL-CF's trainer reads; also one that `skelfit convert --source camerahmr` reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.errors import OutputError
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.shards.finished_run import FinishedRun, Person, Step
from skelfit.shards.label_vector import FIELDS
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

# Keys of the file, and the parts of a label vector in them: those of SKEL-CF's `X-release-skel.npz`, and skel_trans.
_PARTS = {
    **{name: name for name in ("center", "scale", "skel_poses", "skel_betas", "skel_trans")},
    **{name: name for name in ("gtkps", "keypoints3d", "cam_int")},
}
# The SMPL labels, under the names of a CameraHMR release.
_SMPL_PARTS = {"pose_cam": "smpl_pose", "shape": "smpl_betas", "trans_cam": "smpl_trans"}
_TEXTS = ("imgname", "skel_gender", "coordinates", "label_file", "sequence", "subject")  # of the metadata
_SHAPES = {f.name: f.shape for f in FIELDS}


class SkelCfExporter(Exporter):
    """One npz.

    Keys: imgname (N,) unicode; scale (N,) px/200, or (N,2) where a box is not square; center (N,2) px;
    skel_poses (N,46) rad; skel_betas (N,10); skel_trans (N,3) m; gtkps (N,44,3) px + confidence; keypoints3d
    (N,44,4) m + confidence; cam_int (N,3,3) px; row (N,) int64, index in the label file; skel_gender (N,);
    coordinates (N,), names of `label_vector.COORDINATES`. Where people have no image, what identifies them: label_file
    (N,); and for frames of sequences subject (N,), sequence (N,), frame (N,) int64, -1 for people of no sequence. Where
    all people have SMPL labels in the frame of a camera, those: pose_cam (N,24,3) rad; shape (N,10); trans_cam (N,3) m;
    gender (N,).
    """

    name = "skel-cf"
    endings = (".npz",)
    summary = "one label file"

    def write(self, run: FinishedRun, out: Location, options: ExportOptions) -> ExportResult:
        """Write the file `out`. Raises OutputError also for a name that does not end in .npz."""
        if out.suffix != ".npz":
            raise OutputError(f"{out}: expected a file name that ends in .npz")
        if out.exists() and not options.overwrite:
            raise OutputError(f"{out}: exists already; choose another name or --overwrite")
        arrays = _without_what_is_not_known(*_arrays_of(run, options.step))
        write_atomically(out, lambda stream: np.savez(stream, **arrays))
        people = run.rows_out
        notes = (
            f"{people} people in {out} ({self.name})",
            "next: give it to SKEL-CF's trainer as X-release-skel.npz",
        )
        return ExportResult(people, (out.name,), notes)


def _arrays_of(run: FinishedRun, step: Step) -> tuple[dict[str, Any], bool]:
    """All arrays of the file by key, and whether all people have SMPL labels in the frame of a camera."""
    parts = _PARTS | _SMPL_PARTS
    arrays: dict[str, Any] = {
        key: np.empty((run.rows_out, *_SHAPES[part]), np.float32) for key, part in parts.items()
    }
    numbers: dict[str, list[int]] = {"row": [], "frame": []}
    texts: dict[str, list[str]] = {key: [] for key in (*_TEXTS, "gender")}
    all_have_smpl = True
    for i, person in enumerate(run.people()):
        all_have_smpl = all_have_smpl and _has_smpl(person)
        for key, part in parts.items():
            arrays[key][i] = person.fields[part]
        numbers["row"].append(person.meta["row"])
        numbers["frame"].append(-1 if person.meta["frame"] is None else person.meta["frame"])
        texts["gender"].append(person.meta["smpl_gender"])
        for key in _TEXTS:
            texts[key].append(person.meta[key] or "")
        step(1)
    arrays |= {key: np.array(column, np.int64) for key, column in numbers.items()}
    arrays |= {key: np.array(column, dtype=np.str_) for key, column in texts.items()}
    return arrays, all_have_smpl


def _without_what_is_not_known(arrays: dict[str, Any], all_have_smpl: bool) -> dict[str, Any]:
    """The arrays without those that say nothing of these people; `scale` as (N,) where all boxes are square."""
    dropped: set[str] = set()
    if (arrays["imgname"] != "").all():
        dropped.add("label_file")
    if not ((arrays["imgname"] == "") & (arrays["frame"] >= 0)).any():
        dropped |= {"sequence", "subject", "frame"}
    if not all_have_smpl:
        dropped |= {*_SMPL_PARTS, "gender"}
    known = {key: array for key, array in arrays.items() if key not in dropped}
    if (known["scale"][:, 0] == known["scale"][:, 1]).all():
        known["scale"] = known["scale"][:, 0]
    return known


def _has_smpl(person: Person) -> bool:
    """Whether a person came with SMPL labels in the frame of a known camera."""
    meta = person.meta
    return bool(meta["smpl"] and meta["camera"] and meta["coordinates"] == "camera")
