"""Reader of SPIN's training labels, which later trainers took over."""

from __future__ import annotations

from skelfit.labels.readers.box_labels import BoxLabelReader


class SpinReader(BoxLabelReader):
    """SPIN's layout: boxes in px / 200. The first 19 of its 24 joints are the extra ones of the 44 keypoints."""

    layout = "spin"
    version = "spin-2"
    required_keys = (("imgname",), ("pose",), ("shape",), ("center",), ("scale",))
    excluded_keys = ("trans_cam",)
    pose_key = "pose"
    betas_key = "shape"
    flag_keys = ("has_smpl",)
    keypoint_keys = ("openpose", "part")
    keypoint3d_keys = ("openpose_3d", "S")
    scale_unit = "px/200"
