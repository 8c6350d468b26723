"""Turned images: labels, cameras and pixels agree, by projection of bodies that the turned labels stand for."""

from __future__ import annotations

from dataclasses import replace
from math import cos, sin
from pathlib import Path

import numpy as np
import pytest
import torch
from train_fakes import labelled_people
from train_shards import STILL, data_config, write_people

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.data.augmentation import draw
from skelfit.learning.data.data_loader import Loader
from skelfit.learning.data.person_crops import Square
from skelfit.learning.data.turn import turned_cameras, turned_center, turned_points, turned_poses, turns_of

ANGLES = np.array([0.7, -0.4, 0.02])


def in_image(points: np.ndarray, cameras: np.ndarray) -> np.ndarray:
    """Points (B, N, 2) px of points (B, N, 3) m, by the definition of a camera."""
    seen = np.einsum("bij,bnj->bni", cameras, points)
    return np.asarray(seen[..., :2] / seen[..., 2:])


@pytest.mark.parametrize("focal_y", [900.0, 1200.0], ids=["equal", "two focal lengths"])
def test_turned_labels_are_those_of_a_turned_camera(models: ModelSet, focal_y: float) -> None:
    """People far from the principal point, seen in perspective: the projection is exact."""
    batch, trans = labelled_people(models, 3)
    body = SkelKeypoints(models, "male", dtype=torch.float64)
    cameras, turns = batch.cam_int.numpy().copy(), turns_of(ANGLES)
    cameras[:, 1, 1] = focal_y
    points = body(batch.poses, batch.betas).numpy() + trans.numpy()[:, None] + np.array([1.5, -1.0, 0])
    pixels = in_image(points, cameras)
    center = pixels.mean(1)
    assert np.abs(center - cameras[:, :2, 2]).max() > 150
    crop = turned_points(pixels - center[:, None], turns)

    posed = body(torch.from_numpy(turned_poses(batch.poses.numpy(), turns)), batch.betas).numpy()
    where = turned_points(points, turns)
    posed += (where - posed)[
        :, 39:40
    ]  # SKEL turns about its own origin: the pelvis is put where it has to be
    new_center, new_cameras = turned_center(center, cameras, turns), turned_cameras(cameras, turns)
    np.testing.assert_allclose(in_image(posed, new_cameras) - new_center[:, None], crop, atol=1e-6)
    assert np.abs(new_center - center).max() > 50
    assert np.array_equal(new_cameras[:, :2, 2], cameras[:, :2, 2])
    if focal_y == 900:
        np.testing.assert_allclose(new_cameras, cameras, atol=1e-9)


def test_a_turned_batch_is_the_batch_turned(tmp_path: Path) -> None:
    folder = write_people(tmp_path)
    plain, turned, both, flipped = (
        next(iter(Loader(data_config(folder, batch_size=20, augment=replace(STILL, **changes)))))
        for changes in ({}, {"rotation": 30}, {"rotation": 30, "flip": 1.0}, {"flip": 1.0})
    )
    assert torch.equal(both.turn, turned.turn) and (turned.turn.abs() > 0.1).sum() > 8
    for before, after in ((plain, turned), (flipped, both)):
        for i, angle in enumerate(after.turn.tolist()):
            turn = torch.tensor([[cos(angle), -sin(angle)], [sin(angle), cos(angle)]])
            axis = before.cam_int[i, :2, 2]
            torch.testing.assert_close(after.center[i] - axis, turn @ (before.center[i] - axis))
            for name in ("keypoints2d", "keypoints3d"):
                points, moved = getattr(before, name)[i], getattr(after, name)[i]
                torch.testing.assert_close(moved[:, :2], points[:, :2] @ turn.T, rtol=1e-4, atol=1e-4)
                assert torch.equal(moved[:, 2:], points[:, 2:])
        assert torch.equal(before.poses[:, 3:], after.poses[:, 3:])
        assert torch.equal(before.box_size, after.box_size)
    # A mirror turns to the other side; the ramp's colours name the pixels of the source image.
    there = turned.turn.tolist().index(max(turned.turn.tolist()))
    right = both.pixels[there, 0].float()
    assert not torch.equal(both.pixels, turned.pixels.flip(-1))
    inside = (both.pixels[there, 2] == 255)[:, 1:] & (both.pixels[there, 2] == 255)[:, :-1]
    step = (right[:, 1:] - right[:, :-1])[inside].mean()  # along a row, x of the source falls in the mirror
    expected = -cos(turned.turn[there]) * float(both.box_size[there]) / 256
    assert float(step) == pytest.approx(expected, rel=0.05)


def test_turns_keep_to_their_rate_and_bounds() -> None:
    rng, keypoints = np.random.default_rng(0), np.ones((44, 3), np.float32)
    config = replace(STILL, rotation=30, rotation_rate=0.6, shift=0.02)
    drawn = [draw(Square(10, 20, 100), keypoints, config, rng) for _ in range(3000)]
    turns = np.degrees([one.turn for one in drawn])
    assert (turns != 0).mean() == pytest.approx(0.6, abs=0.03)
    assert np.abs(turns).max() == pytest.approx(60) and turns[turns != 0].std() == pytest.approx(28.8, abs=1)
    moved = np.array([(one.square.x - 10, one.square.y - 20) for one in drawn])
    assert np.abs(moved).max() == pytest.approx(2) and (np.abs(moved) < 1.99).mean() > 0.6
    assert abs(np.corrcoef(moved.T)[0, 1]) < 0.1
