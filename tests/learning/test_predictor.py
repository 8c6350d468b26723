"""From crops to people: batches, depth, cameras, predictions that are not finite."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from prediction_runs import TINY_VIT, crops_of

from skelfit.bodies.model_set import ModelSet
from skelfit.learning.inference.given_images import find_images
from skelfit.learning.inference.intrinsics import PhotoCamera, of_view
from skelfit.learning.inference.person_boxes import PersonBox, whole_photo
from skelfit.learning.inference.photos import PhotoSettings, predict_photos
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork


def test_people_are_predicted_independently(predictor: Predictor, photos: Path) -> None:
    made = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))
    together = predictor([*made, *made[:1]]).parameters()
    for i, crop in enumerate([*made, *made[:1]]):
        for name, value in predictor([crop]).parameters().items():
            np.testing.assert_allclose(together[name][i], value[0], rtol=1e-3, atol=1e-3, err_msg=name)
    assert np.abs(together["skel_poses"][0] - together["skel_poses"][1]).max() > 1e-3


def test_the_batch_size_does_not_change_results(predictor: Predictor, photos: Path) -> None:
    boxes = [PersonBox(0, 0, 256, 256), PersonBox(60, 40, 100, 150, 0.1), PersonBox(50, 50, 120, 120)]
    settings = PhotoSettings(lambda *_: boxes, of_view(60), min_score=0.5)
    one, many = (
        list(predict_photos(find_images([photos]).images(StepTimes()), settings, predictor, size))
        for size in (1, 32)
    )
    for few, all_at_once in zip(one, many, strict=True):
        assert few.boxes == all_at_once.boxes
        assert [f.status for f in few.boxes] == ["ok", "low_score", "ok"]
        assert few.people is not None and all_at_once.people is not None and len(few.people) == 2
        np.testing.assert_allclose(few.people.joints, all_at_once.people.joints, atol=1e-3)


@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_prediction_that_is_not_finite(network: SkelCfNetwork, models: ModelSet, photos: Path) -> None:
    broken = SkelCfNetwork(TINY_VIT)
    broken.load_state_dict(network.state_dict())
    broken.start.betas[:] = torch.nan
    images = find_images([photos]).images(StepTimes())
    results = predict_photos(
        images, PhotoSettings(whole_photo, of_view(60)), Predictor(broken, models, "male"), 2
    )
    assert [(f.status, result.people) for result in results for f in result.boxes] == [
        ("not_finite", None)
    ] * 2


def test_depth_is_proportional_to_the_focal_length(predictor: Predictor, photos: Path) -> None:
    crop = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[0]
    near = predictor([crop])
    far = predictor([crop._replace(camera=PhotoCamera(2 * crop.camera.fx, 2 * crop.camera.fy, 128, 128))])
    np.testing.assert_allclose(far.skel_trans[0, 2], 2 * near.skel_trans[0, 2], rtol=1e-5)
    np.testing.assert_allclose(far.skel_poses, near.skel_poses, atol=1e-5)
    s, tx, _ = near.crop_camera[0].tolist()
    np.testing.assert_allclose(near.skel_trans[0, 2], 2 * crop.camera.fx / (s * crop.square.side), rtol=1e-5)
    np.testing.assert_allclose(near.skel_trans[0, 0], tx, atol=1e-5)  # the crop is on the axis
    uneven = predictor([crop._replace(camera=PhotoCamera(500, 600, 100, 120))])
    np.testing.assert_array_equal(uneven.cam_int[0], [[500, 0, 100], [0, 600, 120], [0, 0, 1]])
    aside = predictor([crop._replace(camera=crop.camera._replace(cx=28.0))])
    expected = tx + 100 / crop.camera.fx * near.skel_trans[0, 2]
    np.testing.assert_allclose(aside.skel_trans[0, 0], expected, rtol=1e-4)


def test_a_network_without_camera_predicts_a_far_camera(models: ModelSet, photos: Path) -> None:
    """Its intrinsics are those of a camera far away, and so are its people."""
    far = Predictor(SkelCfNetwork(replace(TINY_VIT, camera=False)), models, "male")
    crop = crops_of(photos, PhotoSettings(whole_photo, of_view(60)))[0]
    people = far([crop])
    assert people.cam_int[0, 0, 0] > 20 * crop.camera.fx
    assert np.abs(people.keypoints2d[0] - 128).max() < 400
