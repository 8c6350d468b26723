"""Reader of 4D-Humans' (HMR2's) training labels."""

from __future__ import annotations

from skelfit.labels.readers.box_labels import BoxLabelReader


class FourDHumansReader(BoxLabelReader):
    """4D-Humans' layout: boxes in px."""

    layout = "4dhumans"
    version = "4dhumans-2"
    required_keys = (("imgname",), ("body_pose",), ("betas",), ("center",), ("scale",))
    pose_key = "body_pose"
    betas_key = "betas"
    flag_keys = ("has_body_pose", "has_betas")
    keypoint_keys = ("body_keypoints_2d", "extra_keypoints_2d")
    keypoint3d_keys = ("body_keypoints_3d", "extra_keypoints_3d")
    scale_unit = "px"
