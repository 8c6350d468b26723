"""The 44 keypoints (25 OpenPose, then the 19 extra joints of SPIN) as weights of skin vertices."""

from __future__ import annotations

import numpy as np

from tools.open_body_build.skel_rig import NAMES as SKEL
from tools.open_body_build.smpl_rig import NAMES as SMPL


def keypoint_regressor(smpl: np.ndarray, skel: np.ndarray) -> np.ndarray:
    """(44,V) from the two joint regressors (24,V), in final vertex order.

    The OpenPose joints follow SMPL's joint centres; the hips, knees and ankles of the extra set are
    anatomical.
    """

    def vertex(index: int) -> np.ndarray:
        return np.eye(1, smpl.shape[1], index)[0]

    def joint(name: str) -> np.ndarray:
        return smpl[SMPL.index(name)]

    def bone(name: str) -> np.ndarray:
        return skel[SKEL.index(name)]

    shoulders = 0.5 * (joint("l_shoulder") + joint("r_shoulder"))
    hips = 0.5 * (joint("l_hip") + joint("r_hip"))
    top, nape, nose = vertex(414), vertex(384), vertex(332)
    rows = [
        *(nose, 0.7 * shoulders + 0.3 * joint("neck")),
        *(joint(f"r_{n}") for n in ("shoulder", "elbow", "wrist")),
        *(joint(f"l_{n}") for n in ("shoulder", "elbow", "wrist")),
        hips,
        *(joint(f"{s}_{n}") for s in "rl" for n in ("hip", "knee", "ankle")),
        *(vertex(v) for v in (6260, 2800, 4071, 583, 3216, 3226, 3387, 6617, 6624, 6787)),
        *(
            bone("talus_r"),
            bone("tibia_r"),
            bone("femur_r"),
            bone("femur_l"),
            bone("tibia_l"),
            bone("talus_l"),
        ),
        *(
            bone("hand_r"),
            bone("ulna_r"),
            bone("humerus_r"),
            bone("humerus_l"),
            bone("ulna_l"),
            bone("hand_l"),
        ),
        *(joint("neck"), top),
        *(0.5 * (bone("femur_r") + bone("femur_l")), 0.5 * (joint("neck") + joint("spine3"))),
        0.5 * (joint("spine1") + joint("spine2")),
        0.6 * joint("head") + 0.4 * nose,
        0.5 * joint("head") + 0.25 * (top + nape),
    ]
    return np.stack(rows)
