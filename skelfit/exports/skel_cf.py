"""The label file that SKEL-CF's trainer reads; also one that `skelfit convert --source camerahmr` reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from skelfit.errors import OutputError
from skelfit.exports.exporter import Exporter, ExportOptions, ExportResult
from skelfit.exports.label_columns import label_columns, without_what_is_not_known
from skelfit.shards.finished_run import FinishedRun, Step
from skelfit.storage.hashed_write import write_atomically
from skelfit.storage.locations import Location

# Keys of the file, and the parts of a label vector in them: those of SKEL-CF's `X-release-skel.npz`, and skel_trans.
_PARTS = {
    **{name: name for name in ("center", "scale", "skel_poses", "skel_betas", "skel_trans")},
    **{name: name for name in ("gtkps", "keypoints3d", "cam_int")},
}
# The SMPL labels, under the names of a CameraHMR release.
_SMPL_PARTS = {"pose_cam": "smpl_pose", "shape": "smpl_betas", "trans_cam": "smpl_trans"}


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
        arrays = _arrays_of(run, options.step)
        write_atomically(out, lambda stream: np.savez(stream, **arrays))
        people = run.rows_out
        notes = (
            f"{people} people in {out} ({self.name})",
            "next: give it to SKEL-CF's trainer as X-release-skel.npz",
        )
        return ExportResult(people, (out.name,), notes)


def _arrays_of(run: FinishedRun, step: Step) -> dict[str, Any]:
    """The arrays of the file; the SMPL labels only if all people have them in the frame of a known camera."""
    columns = label_columns(run, _PARTS | _SMPL_PARTS, step)
    have_smpl = columns.pop("smpl") & columns.pop("camera") & (columns["coordinates"] == "camera")
    columns["gender"] = columns.pop("smpl_gender")
    known = without_what_is_not_known(columns)
    dropped = set() if have_smpl.all() else {*_SMPL_PARTS, "gender"}
    return {key: column for key, column in known.items() if key not in dropped}
