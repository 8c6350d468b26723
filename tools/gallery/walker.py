"""A made-up person who walks past a camera: the frames of a video, and labels in the layout of 3DPW.

    python -m tools.gallery.walker --out walker

writes `walker/walk.pkl` and `walker/images/walk/image_*.jpg`. Body, movement and room are made up; the camera stands
still and level. The label is exact: it is what the frames are drawn from.
"""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial.transform import Rotation

from skelfit.bodies.model_set import ModelSet, find_models
from skelfit.bodies.smpl import SmplModel
from skelfit.labels.demo_pictures import draw_person, make_surface
from tools.studies.motions import make_motion

Array = NDArray[np.float32]
FRAME_RATE = 30  # Hz, 3DPW's
FRAMES = 60
SIZE = 960  # px, width and height of a frame
GENDER = "male"
_SEED = 14  # of colours and room
_BETAS = (-0.6, 0.3, 0.8, -0.4, 0.2)  # a slim person; the others are 0
_FOCAL = 1.3  # in sizes of the frame
_AWAY, _HIGH = 5.2, 1.1  # m; where the camera is from the path, and above the floor
_HEADING = np.radians(-68)  # of the walk: -90 goes to the left of the image, 0 towards the camera
_CAMERA_FROM_BODY = Rotation.from_euler("x", np.pi)  # of axes y up, z forward: to x right, y down, z away


def walking(frames: int) -> tuple[Array, Array, Array]:
    """Pose (F,24,3) rad, betas (10,), and translation (F,3) m of SMPL in the camera: x right, y down, z away."""
    motion = make_motion("walk")
    every = round(motion.frame_rate / FRAME_RATE)
    rows = slice(0, every * frames, every)
    to_y_up = Rotation.from_euler("x", -90, degrees=True)  # the motion's world has z up
    to_camera = _CAMERA_FROM_BODY * Rotation.from_euler("y", _HEADING)
    pose = motion.pose[rows].copy()
    pose[:, 0] = (to_camera * to_y_up * Rotation.from_rotvec(pose[:, 0])).as_rotvec()
    path = to_y_up.apply(motion.transl[rows])
    path[:, [0, 2]] -= path[:, [0, 2]].mean(0)
    betas = np.zeros(10, np.float32)
    betas[: len(_BETAS)] = _BETAS
    placed = to_camera.apply(path) + [0.0, _HIGH, _AWAY]
    return pose, betas, placed.astype(np.float32)


def write_walker(folder: Path, models: ModelSet, frames: int = FRAMES, size: int = SIZE) -> Path:
    """Write the frames and the label file; returns the latter. Raises ModelError, OSError."""
    asset = models.smpl_of(GENDER)
    pose, betas, transl = walking(frames)
    (folder / "images" / "walk").mkdir(parents=True, exist_ok=True)
    camera = np.array([[_FOCAL * size, 0, size / 2], [0, _FOCAL * size, size / 2], [0, 0, 1]], np.float32)
    shape = torch.tensor(betas).expand(frames, -1)
    with torch.no_grad():
        skins = SmplModel(asset).vertices(torch.tensor(pose), shape, torch.tensor(transl)).numpy()
    surface, up = make_surface(asset), np.array([0, -1, 0], np.float32)
    for k, skin in enumerate(skins):
        picture = draw_person(surface, skin, camera, up, size, np.random.default_rng(_SEED))
        picture.save(folder / "images" / "walk" / f"image_{k:05d}.jpg", quality=92)
    label = {
        "sequence": "walk",
        "betas": [betas],
        "poses": [pose.reshape(frames, 72)],
        "trans": [transl],
        "genders": [GENDER[0]],
        "cam_intrinsics": camera,
        "cam_poses": np.tile(np.eye(4), (frames, 1, 1)),
        "campose_valid": [np.ones(frames, np.int64)],
    }
    (folder / "walk.pkl").write_bytes(pickle.dumps(label, protocol=2))
    return folder / "walk.pkl"


def main(words: Sequence[str] | None = None) -> None:
    """Write the files of a walk."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.gallery.walker", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="the folder to write to")
    parser.add_argument("--frames", type=int, default=FRAMES, help="at 30 Hz (default: %(default)s)")
    parser.add_argument("--size", type=int, default=SIZE, help="of a frame, px (default: %(default)s)")
    given = parser.parse_args(words)
    print(write_walker(given.out, find_models(None), given.frames, given.size))


if __name__ == "__main__":
    main()
