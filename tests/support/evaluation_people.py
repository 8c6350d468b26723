"""Label files of published evaluations, with their keys, and predictions in files; all of open bodies."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.bodies.dofs import dof_index, dof_limits

Array = NDArray[np.float64]
OF_LAYOUT = {
    "camerahmr-3dpw": "camerahmr",
    "emdb": "camerahmr",
    "spec": "camerahmr",
    "moyo": "moyo",
    "moyo-hard": "moyo",
    "hmr2-3dpw": "hmr2",
    "hmr2-h36m-p2": "hmr2",
    "hmr2-coco": "hmr2",
    "lsp": "hmr2",
    "posetrack": "hmr2",
}


@dataclass(frozen=True)
class MadePeople:
    """N people: SMPL's labels and SKEL's predictions, which have nothing to do with each other, in a camera."""

    pose: Array  # (N,24,3)
    betas: Array  # (N,10)
    gender: list[str]  # of SMPL: m or f
    skel_poses: Array  # (N,46)
    skel_betas: Array  # (N,10)
    skel_gender: list[str]
    trans: Array  # (N,3)
    cam_int: Array  # (N,3,3)
    center: Array  # (N,2)
    size: Array  # (N,2)
    imgname: list[str]

    def __len__(self) -> int:
        return len(self.pose)


def made_people(count: int, seed: int = 0) -> MadePeople:
    """People of random poses, two in each image."""
    rng = np.random.default_rng(seed)
    low, high = np.where(np.isfinite(dof_limits()), dof_limits(), (-0.5, 0.5)).T
    low, high = low.copy(), high.copy()
    low[[dof_index("knee_angle_l"), dof_index("elbow_flexion_r")]] -= 0.6  # some are beyond their ranges
    high[[dof_index("pro_sup_l"), dof_index("pro_sup_r")]] += 0.6
    poses = rng.uniform(low, high, (count, 46))
    poses[:2, [dof_index(f"elbow_flexion_{side}") for side in "lr"]] = 1.0
    poses[0, dof_index("pro_sup_l")] = poses[1, dof_index("pro_sup_r")] = np.radians(
        80
    )  # in range, and beyond it
    cam_int = np.tile(np.array([[1000.0, 0, 320], [0, 1000, 240], [0, 0, 1]]), (count, 1, 1))
    return MadePeople(
        pose=rng.normal(0, 0.4, (count, 24, 3)),
        betas=rng.normal(0, 1, (count, 10)),
        gender=["m" if i % 3 else "f" for i in range(count)],
        skel_poses=poses,
        skel_betas=rng.normal(0, 1, (count, 10)),
        skel_gender=["female" if i % 2 else "male" for i in range(count)],
        trans=rng.normal(0, 0.2, (count, 3)) + (0, 0, 5),
        cam_int=cam_int,
        center=rng.uniform(100, 400, (count, 2)),
        size=rng.uniform(120, 260, (count, 2)),
        imgname=[f"seq_{i // 4}/image_{i // 2:05d}.jpg" for i in range(count)],
    )


def write_camerahmr(path: Path, people: MadePeople, **changed: Any) -> Path:
    """3dpw_test.npz, emdb_test.npz, spec_test.npz of CameraHMR."""
    columns = {
        "imgname": np.array(people.imgname),
        "center": people.center,
        "scale": people.size.max(1) / 200,
        "pose_cam": people.pose.reshape(len(people), 72),
        "shape": people.betas,
        "gender": np.array(people.gender),
        "cam_int": people.cam_int,
    }
    return _write(path, columns | changed)


def write_moyo(path: Path, people: MadePeople, **changed: Any) -> Path:
    """moyo_v2.npz of HSMR: the parameters are a dictionary in an array of one object."""
    flat = people.pose.reshape(len(people), 72)
    columns = {
        "names": np.array([name.split("/")[0] for name in people.imgname]),
        "img_paths": np.array(people.imgname),
        "centers": people.center,
        "scales": people.size,
        "smpl": {"global_orient": flat[:, :3], "body_pose": flat[:, 3:], "betas": people.betas},
    }
    return _write(path, columns | changed)


def write_hmr2(path: Path, people: MadePeople, points2d: Array, points3d: Array, **changed: Any) -> Path:
    """3dpw_test.npz, h36m_val_p2.npz, coco_val.npz and the like of 4D-Humans.

    points2d: (N,44,3) px and confidence; points3d: (N,44,3) m.
    """
    confident = np.concatenate([points3d, np.ones((*points3d.shape[:2], 1))], -1)
    columns = {
        "imgname": np.array([name.encode() for name in people.imgname]),
        "center": people.center,
        "scale": people.size,
        "body_keypoints_2d": points2d[:, :25],
        "extra_keypoints_2d": points2d[:, 25:],
        "body_keypoints_3d": confident[:, :25],
        "extra_keypoints_3d": confident[:, 25:],
    }
    return _write(path, columns | changed)


def write_skel(path: Path, people: MadePeople, **changed: Any) -> Path:
    """What `skelfit predict` writes of these people, as far as it counts."""
    half = people.size / 2
    columns = {
        "photo": np.array([f"data/images/{name}" for name in people.imgname]),
        "box": np.concatenate([people.center - half, people.size], 1),
        "skel_poses": people.skel_poses,
        "skel_betas": people.skel_betas,
        "skel_gender": np.array(people.skel_gender),
        "skel_trans": people.trans,
        "cam_int": people.cam_int,
    }
    return _write(path, columns | changed)


def write_smpl(path: Path, people: MadePeople, **changed: Any) -> Path:
    """Predictions of a network that estimates SMPL, in the layout of CameraHMR's labels."""
    columns = {"trans_cam": people.trans, "gender": np.array(people.gender)}
    return write_camerahmr(path, people, **columns, **changed)


def _write(path: Path, columns: dict[str, Any]) -> Path:
    np.savez(path, **{name: value for name, value in columns.items() if value is not None})
    return path
