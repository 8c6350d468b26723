"""What a protocol is: the label file, the target body, the points that are compared, their root, and the measures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# The keys of a label file: CameraHMR's, those of HMR 2.0's evaluation data, or HSMR's of MOYO.
Layout = Literal["camerahmr", "hmr2", "moyo"]
# What estimates are compared with: the SMPL body of the label's gender, the neutral one, or keypoints of the label.
Target = Literal["gendered", "neutral", "keypoints3d", "keypoints2d"]
# Where points come from: by a regressor from the posed skin, on both sides; or `smpl24_posed`: SMPL's own posed joints,
# and those of SKEL's skin by the regressor of SMPL's male body.
Points = Literal["h36m17", "smpl24", "smpl24_posed", "keypoints44"]
# The rows that count: all, or `camera1_middle`: of each sequence in camera 1 the middle half.
Subset = Literal["all", "camera1_middle"]


@dataclass(frozen=True)
class Protocol:
    """An evaluation as it was published."""

    name: str
    layout: Layout
    target: Target
    points: Points
    joints: tuple[int, ...]  # of the points, those that are measured
    root: tuple[int, ...] = ()  # of the points: both sides are moved so that the mean of these is the origin
    subset: Subset = "all"
    # The published code cuts widened crops for every network, and tells it the box; False: as the network was trained.
    widened_crops: bool = False
    source: str = ""  # the code that it is read from
    remark: str = ""  # what a reader of its figures should know

    @property
    def errors(self) -> tuple[str, ...]:
        """Names of the errors in mm that it has: none for 2D keypoints, PVE where the target is a body."""
        if self.target == "keypoints2d":
            return ()
        joints = ("mpjpe_mm", "pa_mpjpe_mm")
        return joints if self.target == "keypoints3d" else (*joints, "pve_mm")

    @property
    def pck_at(self) -> tuple[float, ...]:
        """Distances at which a 2D keypoint counts as correct, in the longer side of the person's box."""
        return (0.05, 0.1) if self.target == "keypoints2d" else ()


TITLES = {"mpjpe_mm": "MPJPE", "pa_mpjpe_mm": "PA-MPJPE", "pve_mm": "PVE"}
