"""Good label files of every layout, as people bring them: the same people, written in each way."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from scipy.spatial.transform import Rotation

N = 6
FOCAL = 1000.0


def people(n: int = N, seed: int = 0) -> dict[str, Any]:
    """Poses (n,24,3) rad, betas (n,10) and keypoints (n,44,3) px of the people in all the files."""
    rng = np.random.default_rng(seed)
    pose = rng.normal(0, 0.3, (n, 24, 3))
    pose[:, 0] = Rotation.random(n, random_state=0).as_rotvec()
    gtkps = np.concatenate([rng.uniform(100, 300, (n, 44, 2)), np.ones((n, 44, 1))], axis=2)
    return {
        "pose": pose,
        "betas": rng.normal(0, 1, (n, 10)),
        "gtkps": gtkps,
        "imgname": np.array([f"train/{i:06d}.jpg" for i in range(n)]),
        "center": rng.uniform(150, 250, (n, 2)),
        "side": rng.uniform(220, 300, n),  # px, of the box
    }


def fourdhumans() -> dict[str, Any]:
    """The layout of 4D-Humans' training labels."""
    p = people()
    rng = np.random.default_rng(1)
    return {
        "imgname": p["imgname"],
        "center": p["center"],
        "scale": p["side"],
        "body_pose": p["pose"].reshape(N, 72).astype(np.float32),
        "betas": p["betas"].astype(np.float32),
        "has_body_pose": np.ones(N, np.float32),
        "has_betas": np.ones(N, np.float32),
        "body_keypoints_2d": p["gtkps"][:, :25],
        "extra_keypoints_2d": p["gtkps"][:, 25:],
        "body_keypoints_3d": np.zeros((N, 25, 4)),
        "extra_keypoints_3d": rng.uniform(0.5, 1, (N, 19, 4)),
        "personid": np.arange(N),
        "extra_info": np.array([{"a": 1}] * N, dtype=object),  # no one asks for it
    }


def spin() -> dict[str, Any]:
    """The layout of SPIN's training labels."""
    p = people()
    part = np.concatenate([p["gtkps"][:, 25:], np.zeros((N, 5, 3))], axis=1)
    return {
        "imgname": p["imgname"],
        "center": p["center"],
        "scale": p["side"] / 200,
        "pose": p["pose"].reshape(N, 72),
        "shape": p["betas"],
        "has_smpl": np.ones(N, np.uint8),
        "openpose": p["gtkps"][:, :25],
        "part": part,
        "S": np.random.default_rng(1).uniform(0.5, 1, (N, 24, 4)),
        "gender": np.array(["m", "f"] * (N // 2)),
    }


def amass(n: int = N, joints: int = 52) -> dict[str, Any]:
    """A sequence as AMASS has it, of SMPL (24 joints), SMPL+H (52) or SMPL-X (55)."""
    p = people(n)
    poses = np.random.default_rng(2).normal(0, 0.2, (n, joints, 3))
    poses[:, :22] = p["pose"][:, :22]
    return {
        "poses": poses.reshape(n, -1),
        "betas": np.concatenate([p["betas"][0], np.full(6, 0.1)]),
        "trans": np.linspace([0, 0, 0.9], [1, 0, 0.9], n),
        "gender": np.array("female"),
        "mocap_framerate": np.array(120.0),
        "dmpls": np.zeros((n, 8)),
    }


def hmr2() -> dict[str, Any]:
    """What HMR2 puts out: rotation matrices, and cameras of the crop and of the image."""
    p = people()
    matrices = Rotation.from_rotvec(p["pose"].reshape(-1, 3)).as_matrix().reshape(N, 24, 3, 3)
    return {
        "global_orient": matrices[:, :1].astype(np.float32),
        "body_pose": matrices[:, 1:].astype(np.float32),
        "betas": p["betas"].astype(np.float32),
        "pred_cam": np.tile(np.array([0.9, 0.02, 0.05], np.float32), (N, 1)),
        "pred_cam_t": np.tile(np.array([0.02, 0.05, 43.4], np.float32), (N, 1)),
        "imgname": p["imgname"],
        "box_center": p["center"],
        "box_size": p["side"],
        "img_size": np.tile([640.0, 480.0], (N, 1)),
        "scaled_focal_length": np.full(N, FOCAL),
    }


def mesh() -> dict[str, Any]:
    """Meshes of about the size of people."""
    rng = np.random.default_rng(3)
    return {"vertices": rng.uniform(-0.85, 0.85, (N, 6890, 3)).astype(np.float32)}


LAYOUTS = {"4dhumans": fourdhumans, "spin": spin, "amass": amass, "hmr2": hmr2, "mesh": mesh}


def write(path: Path, columns: dict[str, Any]) -> Path:
    """A file of these columns, as its ending says; None leaves a column out."""
    columns = {k: v for k, v in columns.items() if v is not None}
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".npz":
        np.savez(path, **columns)
    elif path.suffix == ".pkl":
        path.write_bytes(pickle.dumps(columns, protocol=4))
    elif path.suffix == ".npy":
        (array,) = columns.values()
        np.save(path, array)
    else:
        with h5py.File(path, "w") as file:
            for key, value in columns.items():
                array = np.asarray(value)
                if array.dtype.kind == "U":
                    file.create_dataset(key, data=array.astype(object), dtype=h5py.string_dtype())
                elif array.dtype.kind != "O":
                    file[key] = array
    return path
