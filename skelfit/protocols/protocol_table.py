"""The protocols, by name."""

from __future__ import annotations

from dataclasses import replace

from skelfit.bodies.joint_regressor import H36M_TO_J17
from skelfit.bodies.posed_keypoints import ROOT_KEYPOINT
from skelfit.protocols.protocol import Protocol

_CAMERAHMR = "CameraHMR, core/camerahmr_trainer.py; SKEL-CF, run_test.py"
_HMR2 = "4D-Humans, hmr2/utils/pose_utils.py and hmr2/configs/datasets_eval.yaml; HSMR, lib/kits/eval.py"
_HSMR = "HSMR, lib/kits/eval.py; SKEL-CF, run_test.py"

_ALL_17, _ALL_24, _ALL_44 = tuple(range(17)), tuple(range(24)), tuple(range(44))
_J14 = H36M_TO_J17[:14]
_LSP14 = (*range(25, 38), 43)  # of the 44 keypoints: 12 limb joints, the neck, and the head as in Human3.6M

_MOYO = Protocol("moyo", "moyo", "neutral", "smpl24_posed", _ALL_24, (0,), widened_crops=True, source=_HSMR)
_HMR2_3D = Protocol("hmr2-3dpw", "hmr2", "keypoints3d", "keypoints44", _LSP14, (ROOT_KEYPOINT,), source=_HMR2)
_HMR2_2D = Protocol("hmr2-coco", "hmr2", "keypoints2d", "keypoints44", _ALL_44, source=_HMR2)

PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("camerahmr-3dpw", "camerahmr", "gendered", "h36m17", _J14, (0,), source=_CAMERAHMR),
        _HMR2_3D,
        replace(_HMR2_3D, name="hmr2-h36m-p2"),
        Protocol("emdb", "camerahmr", "gendered", "smpl24", _ALL_24, (1, 2), source=_CAMERAHMR),
        Protocol(
            "spec",
            "camerahmr",
            "gendered",
            "h36m17",
            _ALL_17,
            (1, 2),
            source=_CAMERAHMR,
            remark="the root is the mean of Human3.6M's joints 1 and 2, which are the left hip and the left knee, "
            "as published",
        ),
        _MOYO,
        replace(
            _MOYO,
            name="moyo-hard",
            subset="camera1_middle",
            remark="of moyo_v2.npz; the published moyo_hard.npz holds these rows alone: score that with moyo",
        ),
        _HMR2_2D,
        replace(_HMR2_2D, name="lsp"),
        replace(_HMR2_2D, name="posetrack"),
    )
}
