"""Reader of BEDLAM's processed labels (`all_npz_12_*`): CameraHMR's keys, with a pose in the world besides.

Facts: pixelite1201/BEDLAM, data_processing/df_full_body.py and df_full_body_smpl.py. `gtkps` are the joints of the body
model, 2D and without a confidence that tells anything; they are not the 44 keypoints of other labels, and are left.
`pose_world` and `trans_world` stand in axes of the renderer, with y down, which no camera and no room has; they are
left, too.
"""

from __future__ import annotations

from skelfit.labels.files.array_files import LabelArrays
from skelfit.labels.readers.camerahmr import CameraHmrReader

_JOINTS = "'gtkps': not taken; in BEDLAM's labels they are joints of the body model, not the 44 keypoints"


class BedlamReader(CameraHmrReader):
    """The layout of BEDLAM."""

    layout = "bedlam"
    version = "bedlam-1"
    required_keys = (*CameraHmrReader.required_keys, ("pose_world",), ("trans_world",))
    excluded_keys = ()

    def keypoint_note(self, arrays: LabelArrays) -> str:
        """What is said of 2D keypoints that are left."""
        return _JOINTS if "gtkps" in arrays else ""
