"""The labels of crops, as the network and the losses see them: mirrored and turned as the crops' pixels are."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.learning.data.augmentation import Variation
from skelfit.learning.data.mirror import mirrored_keypoints
from skelfit.learning.data.person_stream import PersonSample
from skelfit.learning.data.supervision import SupervisionConfig, supervised
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.data.turn import turned_cameras, turned_center, turned_points, turned_poses, turns_of
from skelfit.shards.label_vector import FloatArray, unpack


def batch_of(
    people: Sequence[PersonSample],
    variations: Sequence[Variation],
    pixels: Tensor,
    supervision: SupervisionConfig,
) -> TrainingBatch:
    """The batch of B people whose crops have the pixels (B,3,crop,crop)."""
    parts = unpack(np.stack([person.label for person in people]))
    counts = supervised(parts, supervision)
    squares = np.array([variation.square for variation in variations], np.float32)
    center, side = squares[:, :2].copy(), squares[:, 2].copy()
    keypoints2d, keypoints3d = counts.keypoints2d, parts["keypoints3d"].copy()
    keypoints2d[..., :2] = (keypoints2d[..., :2] - center[:, None]) / side[:, None, None]
    for keypoints in (keypoints2d, keypoints3d):
        keypoints[~(keypoints[..., -1] > 0)] = 0  # coordinates without confidence are undefined
    poses = parts["skel_poses"].copy()
    metas = [person.meta for person in people]
    sizes = np.array([meta["image_size"] or (0, 0) for meta in metas], np.float32)
    known = np.array([meta["camera"] for meta in metas])
    cameras = np.where(known[:, None, None], parts["cam_int"], _diagonal_cameras(sizes))
    geometry = (keypoints2d, keypoints3d, poses, center, cameras)
    flipped = np.array([variation.flip for variation in variations])
    turn = np.array([variation.turn for variation in variations], np.float32)
    _mirror(geometry, flipped, sizes[:, 0])
    _turn(geometry, turn)
    return TrainingBatch(
        pixels=pixels,
        keypoints2d=torch.from_numpy(keypoints2d),
        keypoints3d=torch.from_numpy(keypoints3d),
        poses=torch.from_numpy(poses),
        betas=torch.from_numpy(counts.betas),
        female=torch.tensor([meta["skel_gender"] == "female" for meta in metas]),
        cam_int=torch.from_numpy(cameras),
        center=torch.from_numpy(center),
        box_size=torch.from_numpy(side),
        image_size=torch.from_numpy(sizes),
        flipped=torch.from_numpy(flipped),
        turn=torch.from_numpy(turn),
        has_pose=torch.from_numpy(counts.has_pose),
        has_betas=torch.from_numpy(counts.has_betas),
        extreme=torch.tensor([variation.extreme for variation in variations]),
        fitted_points=torch.tensor([meta["keypoints3d"] == "skel" for meta in metas]),
        left_out=torch.from_numpy(counts.left_out),
        keys=tuple(person.key for person in people),
    )


def _mirror(geometry: tuple[FloatArray, ...], flipped: NDArray[np.bool_], width: FloatArray) -> None:
    """Mirror those who are flipped, in place."""
    keypoints2d, keypoints3d, poses, center, cameras = geometry
    keypoints2d[flipped], keypoints3d[flipped] = map(
        mirrored_keypoints, (keypoints2d[flipped], keypoints3d[flipped])
    )
    poses[flipped] = mirrored_poses(poses[flipped])
    for x in (center[:, 0], cameras[:, 0, 2]):  # of the mirrored image, at x = 0 where its width is unknown
        x[flipped] = width[flipped] - x[flipped]


def _turn(geometry: tuple[FloatArray, ...], turn: FloatArray) -> None:
    """Turn those whose turn (B,) rad is not 0, in place."""
    keypoints2d, keypoints3d, poses, center, cameras = geometry
    moved = turn != 0
    if not moved.any():
        return
    turns = turns_of(turn[moved])
    keypoints2d[moved], keypoints3d[moved] = (
        turned_points(points[moved], turns) for points in (keypoints2d, keypoints3d)
    )
    poses[moved] = turned_poses(poses[moved], turns)
    center[moved] = turned_center(center[moved], cameras[moved], turns)
    cameras[moved] = turned_cameras(cameras[moved], turns)


def _diagonal_cameras(sizes: FloatArray) -> FloatArray:
    """Intrinsics (N,3,3) of images (N,2) px of unknown cameras: the focal length is the diagonal, as in CLIFF."""
    cameras = np.zeros((len(sizes), 3, 3), np.float32)
    cameras[:, 0, 0] = cameras[:, 1, 1] = np.hypot(sizes[:, 0], sizes[:, 1])
    cameras[:, :2, 2] = sizes / 2
    cameras[:, 2, 2] = 1
    return cameras
