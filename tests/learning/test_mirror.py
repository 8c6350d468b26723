"""People in a mirror: their labels and their pictures say the same, with no table of the module's own."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from train_fakes import labelled_people
from train_shards import STILL, data_config, same, write_people

from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.data.augmentation import draw
from skelfit.learning.data.data_loader import Loader
from skelfit.learning.data.mirror import mirrored_keypoints
from skelfit.learning.data.person_crops import Square

_TOES = [19, 20, 22, 23]


def test_a_mirrored_pose_is_the_mirrored_body(models: ModelSet) -> None:
    batch, _ = labelled_people(models, 8)
    body = SkelKeypoints(models, "male", dtype=torch.float64)
    mirrored = mirrored_keypoints(body(batch.poses, batch.betas).numpy())
    posed = body(torch.from_numpy(mirrored_poses(batch.poses.numpy())), batch.betas).numpy()
    off = np.linalg.norm((posed - posed[:, 39:40]) - (mirrored - mirrored[:, 39:40]), axis=-1)
    feet = [*_TOES, 21, 24]
    assert np.delete(off, feet, axis=1).max() < 2e-3  # m; ankles' correctives know of the feet
    assert 0.005 < off[:, feet].max() < 0.06  # the ankles' axes are no mirror images


def test_mirroring_twice_changes_nothing() -> None:
    rng = np.random.default_rng(0)
    angles, points = (rng.normal(size=shape).astype(np.float32) for shape in ((3, 46), (3, 44, 3)))
    assert np.array_equal(mirrored_poses(mirrored_poses(angles)), angles)
    assert np.array_equal(mirrored_keypoints(mirrored_keypoints(points)), points)
    assert not np.array_equal(mirrored_poses(angles), angles)


def test_a_flipped_batch_is_the_batch_in_a_mirror(tmp_path: Path) -> None:
    folder = write_people(tmp_path)
    plain, flipped, half = (
        next(iter(Loader(data_config(folder, batch_size=20, augment=replace(STILL, flip=flip)))))
        for flip in (0.0, 1.0, 0.5)
    )
    assert torch.equal(flipped.pixels, plain.pixels.flip(-1))
    wanted = {
        "poses": mirrored_poses(plain.poses.numpy()),
        "keypoints2d": mirrored_keypoints(plain.keypoints2d.numpy()),
        "keypoints3d": mirrored_keypoints(plain.keypoints3d.numpy()),
    }
    for name, values in wanted.items():
        assert np.array_equal(getattr(flipped, name).numpy(), values), name
    assert torch.equal(flipped.betas, plain.betas) and torch.equal(flipped.box_size, plain.box_size)
    # As far to the right of the camera's axis as it was to the left.
    beside = [b.center[:, 0] - b.cam_int[:, 0, 2] for b in (plain, flipped)]
    torch.testing.assert_close(beside[1], -beside[0])
    turned = (half.pixels == flipped.pixels).flatten(1).all(1)
    assert 3 <= turned.sum() <= 17 and not same(half, plain)
    assert torch.equal(half.poses, torch.where(turned[:, None], flipped.poses, plain.poses))


def test_flips_are_off_by_default() -> None:
    rng, keypoints = np.random.default_rng(0), np.ones((44, 3), np.float32)
    assert not any(draw(Square(0, 0, 1), keypoints, STILL, rng).flip for _ in range(100))
