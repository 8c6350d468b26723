"""Files of tracks, with the keys, shapes and containers that estimators and data sets publish, of made-up people.

The lists of keys are those of the public code that writes the files; it is named beside each.
"""

from __future__ import annotations

import json
import pickle
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import joblib
import numpy as np
import torch
from scipy.spatial.transform import Rotation

from skelfit.config.manifest import LabelLayout

FRAMES = 5
Truth = dict[str, Any]


def truth(seed: int = 0, n: int = FRAMES) -> Truth:
    """A person who stands and moves a little: pose (n,24,3) rad, betas (10), transl (n,3) m before a camera."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.15, (n, 24, 3))
    pose[:, 22:] = 0
    pose[:, 0] = (Rotation.from_rotvec([np.pi, 0, 0]) * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    transl = np.linspace([0.1, 0.2, 4], [0.4, 0.2, 4.2], n)
    world = pose.copy()
    world[:, 0] = rng.normal(0, 0.15, (n, 3))
    return {"pose": pose, "world": world, "betas": rng.normal(0, 1, 10), "transl": transl}


def matrices(pose: np.ndarray) -> np.ndarray:
    """Rotation matrices (..., 3, 3) of axis-angles (..., 3)."""
    return Rotation.from_rotvec(pose.reshape(-1, 3)).as_matrix().reshape(*pose.shape[:-1], 3, 3)


def each(t: Truth) -> np.ndarray:
    """The betas of every frame."""
    return np.tile(t["betas"], (len(t["pose"]), 1))


def f4(array: np.ndarray) -> np.ndarray:
    """As networks put numbers out."""
    return np.asarray(array, np.float32)


def tensor(array: np.ndarray) -> torch.Tensor:
    """The same as a tensor."""
    return torch.from_numpy(f4(array))


def gvhmr(folder: Path) -> Path:
    """zju3dv/GVHMR, tools/demo/demo.py and gvhmr_pl_demo.py."""
    t = truth()
    params = {
        key: {
            "body_pose": tensor(t["pose"][:, 1:22].reshape(FRAMES, 63)),
            "betas": tensor(each(t)),
            "global_orient": tensor(t[pose][:, 0]),
            "transl": tensor(t["transl"]),
        }
        for key, pose in (("smpl_params_global", "world"), ("smpl_params_incam", "pose"))
    }
    camera = torch.eye(3).repeat(FRAMES, 1, 1) * torch.tensor([1000.0, 1000, 1])[:, None]
    camera[:, 0, 2], camera[:, 1, 2] = 640, 360
    outputs = {
        "pred_smpl_params_incam": params["smpl_params_incam"],
        "static_conf_logits": torch.zeros(1, FRAMES, 6),
    }
    torch.save(params | {"K_fullimg": camera, "net_outputs": outputs}, folder / "hmr4d_results.pt")
    return folder / "hmr4d_results.pt"


def wham(folder: Path) -> Path:
    """yohanshin/WHAM, demo.py: two people; the second is not seen in every frame."""
    results: Any = defaultdict(dict)
    for person in (0, 1):
        t = truth(person)
        results[person] = {
            "pose": f4(t["pose"].reshape(FRAMES, 72)),
            "trans": f4(t["transl"]),
            "pose_world": f4(t["world"].reshape(FRAMES, 72)),
            "trans_world": f4(t["transl"]),
            "betas": f4(each(t)),
            "verts": np.zeros((FRAMES, 6890, 3), np.float32),
            "frame_ids": np.array([3, 4, 6, 7, 90]) if person else np.arange(FRAMES),
        }
    joblib.dump(results, folder / "wham_output.pkl")
    return folder / "wham_output.pkl"


def tram(folder: Path) -> Path:
    """yufu-wang/tram, scripts/estimate_humans.py and lib/models/hmr_vimo.py."""
    t = truth()
    results = {
        "pred_cam": tensor(np.ones((FRAMES, 3))),
        "pred_pose": tensor(np.zeros((FRAMES, 144))),
        "pred_shape": tensor(each(t)),
        "pred_rotmat": tensor(matrices(t["pose"])),
        "pred_trans": tensor(t["transl"][:, None]),
        "frame": torch.arange(10, 10 + FRAMES),
    }
    np.save(folder / "hps_track_0.npy", results)  # type: ignore[arg-type]
    return folder / "hps_track_0.npy"


def prompthmr(folder: Path) -> Path:
    """yufu-wang/PromptHMR, pipeline/pipeline.py, phmr_vid.py and world.py."""
    t = truth()
    full = np.concatenate([t["pose"][:, :22], np.zeros((FRAMES, 33, 3))], axis=1)
    world = np.concatenate([t["world"][:, :22], np.zeros((FRAMES, 33, 3))], axis=1)
    person = {
        "track_id": 1,
        "frames": np.arange(FRAMES),
        "bboxes": np.tile([100.0, 50, 300, 450], (FRAMES, 1)),
        "smplx_cam": {
            "rotmat": f4(matrices(full)),
            "pose": f4(full[:, :25].reshape(FRAMES, 75)),
            "shape": f4(each(t)),
            "trans": f4(t["transl"]),
            "contact": np.zeros((FRAMES, 6), bool),
            "static_conf_logits": np.zeros((FRAMES, 6), np.float32),
        },
        "smplx_world": {
            "pose": f4(world.reshape(FRAMES, 165)),
            "shape": f4(each(t)),
            "trans": f4(t["transl"]),
        },
    }
    camera = {
        "pred_cam_R": np.tile(np.eye(3), (FRAMES, 1, 1)),
        "pred_cam_T": np.zeros((FRAMES, 3)),
        "img_focal": np.float64(1000),
        "img_center": np.array([640.0, 360]),
    }
    joblib.dump(
        {"camera": camera, "people": {1: person}, "masks": None, "has_slam": True}, folder / "results.pkl"
    )
    return folder / "results.pkl"


def slahmr(folder: Path) -> Path:
    """vye16/slahmr, slahmr/optim/output.py, base_scene.py and params.py: B people over T frames."""
    t = truth()
    turns = matrices(np.linspace([0.1, 0, 0], [0.2, 0.3, 0], FRAMES))
    np.savez(
        folder / "clip_000060_world_results.npz",
        trans=f4(t["transl"][None]),
        root_orient=f4(t["pose"][None, :, 0]),
        pose_body=f4(t["pose"][None, :, 1:22].reshape(1, FRAMES, 63)),
        betas=f4(np.concatenate([t["betas"], np.zeros(6)])[None]),
        latent_pose=np.zeros((1, FRAMES, 32), np.float32),
        world_scale=np.ones((1, 1), np.float32),
        floor_plane=np.zeros((1, 3), np.float32),
        cam_R=f4(turns[None]),
        cam_t=f4(np.linspace([0, 0, 0], [0.5, 0, 1], FRAMES)[None]),
        intrins=f4(np.array([1000, 1000, 640, 360])),
    )
    return folder / "clip_000060_world_results.npz"


def phalp(folder: Path) -> Path:
    """brjathu/PHALP, phalp/trackers/PHALP.py, which 4D-Humans' track.py runs: lists over the people of each frame."""
    t, frames = truth(), {}
    for i in range(FRAMES + 1):
        k, old = (
            min(i, FRAMES - 1),
            int(i == FRAMES),
        )  # in the last frame the tracker only carries the person on
        frames[f"_DEMO/clip/img/{i + 1:06d}.jpg"] = {
            "time": i,
            "shot": 0,
            "frame_path": f"_DEMO/clip/img/{i + 1:06d}.jpg",
            "tracked_ids": [] if old else [1],
            "tracked_bbox": [],
            "tid": [1],
            "bbox": [np.array([100.0, 50, 200, 400])],
            "tracked_time": [old],
            "center": [np.array([200.0, 250])],
            "scale": [np.array([200.0, 400])],
            "size": [[720, 1280]],
            "img_path": [f"_DEMO/clip/img/{i + 1:06d}.jpg"],
            "img_name": [f"{i + 1:06d}.jpg"],
            "conf": [np.float32(0.9)],
            "annotations": [[]],
            "smpl": [
                {
                    "global_orient": f4(matrices(t["pose"][k, :1])),
                    "body_pose": f4(matrices(t["pose"][k, 1:])),
                    "betas": f4(t["betas"]),
                }
            ],
            "camera": [f4(t["transl"][k])],
            "camera_bbox": [np.ones(3, np.float32)],
            "3d_joints": [np.zeros((45, 3), np.float32)],
            "2d_joints": [np.zeros(90, np.float32)],
            "mask": [[{"size": [720, 1280], "counts": "abc"}]],
        }
    joblib.dump(frames, folder / "demo_clip.pkl", compress=3)
    return folder / "demo_clip.pkl"


def _vibe(t: Truth) -> dict[str, Any]:
    return {
        "pred_cam": np.tile([0.9, 0, 0], (FRAMES, 1)).astype(np.float32),
        "orig_cam": np.ones((FRAMES, 4), np.float32),
        "verts": np.zeros((FRAMES, 6890, 3), np.float32),
        "pose": f4(t["pose"].reshape(FRAMES, 72)),
        "betas": f4(each(t)),
        "joints2d": None,
        "bboxes": np.tile([200.0, 250, 400, 400], (FRAMES, 1)),
        "frame_ids": np.arange(FRAMES),
    }


def vibe(folder: Path) -> Path:
    """mkocabas/VIBE, demo.py."""
    joblib.dump({1: _vibe(truth()) | {"joints3d": np.zeros((FRAMES, 49, 3))}}, folder / "vibe_output.pkl")
    return folder / "vibe_output.pkl"


def pare(folder: Path) -> Path:
    """mkocabas/PARE, pare/core/tester.py, of a video."""
    person = _vibe(truth()) | {
        "joints3d": np.zeros((FRAMES, 49, 3)),
        "smpl_joints2d": np.zeros((FRAMES, 49, 2)),
    }
    joblib.dump({1: person}, folder / "pare_output.pkl")
    return folder / "pare_output.pkl"


def pare_image(folder: Path) -> Path:
    """The same, of the people of one image."""
    t = truth()
    output = {
        "pred_pose": f4(matrices(t["pose"])),
        "pred_shape": f4(each(t)),
        "pred_cam": np.ones((FRAMES, 3), np.float32),
        "pred_cam_t": np.ones((FRAMES, 3), np.float32),
        "smpl_vertices": np.zeros((FRAMES, 6890, 3), np.float32),
        "smpl_joints2d": np.zeros((FRAMES, 49, 2), np.float32),
        "bboxes": np.tile([200.0, 250, 400, 400], (FRAMES, 1)),
        "orig_cam": np.ones((FRAMES, 4), np.float32),
    }
    joblib.dump(output, folder / "photo.pkl")
    return folder / "photo.pkl"


def _romp(t: Truth, rows: slice) -> dict[str, Any]:
    n = len(t["pose"][rows])
    return {
        "cam": np.ones((n, 3), np.float32),
        "global_orient": f4(t["pose"][rows, 0]),
        "body_pose": f4(t["pose"][rows, 1:].reshape(n, 69)),
        "smpl_betas": f4(each(t)[rows]),
        "smpl_thetas": f4(t["pose"][rows].reshape(n, 72)),
        "center_preds": np.zeros((n, 2)),
        "center_confs": np.ones(n),
        "cam_trans": f4(t["transl"][rows]),
        "verts": np.zeros((n, 6890, 3), np.float32),
        "joints": np.zeros((n, 71, 3), np.float32),
        "pj2d_org": np.zeros((n, 71, 2), np.float32),
    }


def romp(folder: Path) -> Path:
    """Arthur151/ROMP, simple_romp/romp/utils.py: video_results.npz with tracking."""
    t = truth()
    frames = {
        f"{i:08d}.png": _romp(t, slice(i, i + 1)) | {"track_ids": np.array([7], np.int32)}
        for i in range(FRAMES)
    }
    person: dict[str, list[Any]] = {"frame_id": list(range(FRAMES))}
    for frame in frames.values():
        for key, value in frame.items():
            person.setdefault(key, []).append(value[0])
    np.savez(folder / "video_results.npz", results=frames, sequence_results={7: person})  # type: ignore[arg-type]
    return folder / "video_results.npz"


def romp_image(folder: Path) -> Path:
    """The same, of the people of one image."""
    np.savez(folder / "photo.npz", results=_romp(truth(), slice(None)))  # type: ignore[arg-type]
    return folder / "photo.npz"


def threedpw(folder: Path) -> Path:
    """3DPW's sequenceFiles, as mkocabas/VIBE, lib/data_utils/threedpw_utils.py, reads them: a pickle of Python 2."""
    t = truth()
    extrinsic = np.tile(np.eye(4), (FRAMES, 1, 1))
    extrinsic[:, :3, :3] = matrices(np.linspace([0.1, 0, 0], [0.2, 0.3, 0], FRAMES))
    extrinsic[:, :3, 3] = np.linspace([0, 0, 0], [0.5, 0, 1], FRAMES)
    content = {
        "sequence": "downtown_walking_00",
        "betas": [np.concatenate([t["betas"], np.zeros(290)])],
        "poses": [t["pose"].reshape(FRAMES, 72)],
        "trans": [t["transl"]],
        "poses2d": [np.zeros((FRAMES, 3, 18))],
        "poses_60Hz": [np.zeros((2 * FRAMES, 72))],
        "trans_60Hz": [np.zeros((2 * FRAMES, 3))],
        "betas_clothed": [np.zeros(10)],
        "v_template_clothed": [np.zeros((6890, 3))],
        "jointPositions": [np.zeros((FRAMES, 72))],
        "cam_poses": extrinsic,
        "cam_intrinsics": np.array([[1000.0, 0, 540], [0, 1000, 960], [0, 0, 1]]),
        "campose_valid": [np.array([1, 1, 0, 1, 1])],
        "genders": ["m"],
        "img_frame_ids": np.arange(FRAMES),
        "texture_maps": [],
    }
    (folder / "downtown_walking_00.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "downtown_walking_00.pkl"


def aist(folder: Path) -> Path:
    """google/aistplusplus_api, processing/run_estimate_smpl.py."""
    t = truth()
    content = {
        "smpl_poses": f4(t["world"].reshape(FRAMES, 72)),
        "smpl_scaling": np.array([93.0], np.float32),
        "smpl_trans": f4(93 * t["transl"]),
        "smpl_loss": 0.1,
    }
    path = folder / "gBR_sBM_cAll_d04_mBR0_ch01.pkl"
    path.write_bytes(pickle.dumps(content, protocol=4))
    return path


def easymocap(folder: Path) -> Path:
    """zju3dv/EasyMocap, easymocap/mytools/file_utils.py: a JSON file for each frame, in a folder."""
    t = truth()
    (folder / "smpl").mkdir()
    for i in range(FRAMES):
        poses = t["pose"][i].copy()
        poses[0] = 0
        person = {
            "id": 0,
            "Rh": [t["world"][i, 0].tolist()],
            "Th": [t["transl"][i].tolist()],
            "poses": [poses.reshape(72).tolist()],
            "shapes": [t["betas"].tolist()],
        }
        (folder / "smpl" / f"{i:06d}.json").write_text(json.dumps([person], indent=4))
    return folder / "smpl"


def bedlam(folder: Path) -> Path:
    """pixelite1201/BEDLAM, data_processing/df_full_body.py: SMPL-X, a person in each row."""
    t = truth()
    full = np.concatenate([t["pose"][:, :22], np.zeros((FRAMES, 33, 3))], axis=1).reshape(FRAMES, 165)
    np.savez(
        folder / "20221010_3_1000_batch01hand_6fps.npz",
        imgname=np.array([f"seq_000000/seq_000000_{5 * i:04d}.png" for i in range(FRAMES)]),
        center=np.full((FRAMES, 2), 300.0),
        scale=np.full(FRAMES, 1.5),
        pose_cam=full,
        pose_world=full,
        shape=each(t),
        trans_cam=t["transl"],
        trans_world=t["transl"],
        gtkps=np.ones((FRAMES, 127, 3)),
        cam_int=np.tile(np.array([[1000.0, 0, 640], [0, 1000, 360], [0, 0, 1]]), (FRAMES, 1, 1)),
        cam_ext=np.tile(np.eye(4), (FRAMES, 1, 1)),
        gender=np.array(["neutral"] * FRAMES),
        proj_verts=np.zeros((FRAMES, 437, 3)),
        motion_info=np.array(["a"] * FRAMES),
        sub=np.array(["s"] * FRAMES),
    )
    return folder / "20221010_3_1000_batch01hand_6fps.npz"


def smplifyx(folder: Path) -> Path:
    """vchoutas/smplify-x, smplifyx/fit_single_frame.py, of SMPL without VPoser: a pickle for each image."""
    t = truth()
    content = {
        "camera_rotation": np.eye(3, dtype=np.float32)[None],
        "camera_translation": f4(t["transl"][:1]),
        "betas": f4(t["betas"][None]),
        "global_orient": f4(t["pose"][:1, 0]),
        "body_pose": f4(t["pose"][:1, 1:].reshape(1, 69)),
    }
    (folder / "000.pkl").write_bytes(pickle.dumps(content, protocol=2))
    return folder / "000.pkl"


TRACK_FILES: dict[LabelLayout, Callable[[Path], Path]] = {
    "gvhmr": gvhmr,
    "wham": wham,
    "tram": tram,
    "prompthmr": prompthmr,
    "slahmr": slahmr,
    "phalp": phalp,
    "vibe": vibe,
    "pare": pare,
    "romp": romp,
    "3dpw": threedpw,
    "aist": aist,
    "easymocap": easymocap,
}
