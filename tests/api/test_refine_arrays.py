"""`skelfit.refine`: the shapes of the call, what becomes of people, and what is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from refine_people import make_problem

import skelfit
from skelfit.bodies.model_set import ModelSet
from skelfit.errors import ArgumentError


@pytest.fixture(scope="module")
def given(models: ModelSet) -> dict[str, Any]:
    problem, _ = make_problem(models, 6)
    start = problem.start
    return {
        "poses": start.angles.numpy(),
        "betas": start.betas.numpy(),
        "trans": start.transl.numpy(),
        "keypoints2d": problem.keypoints2d.numpy(),
        "cam_int": problem.cam_int.numpy(),
        "gender": np.where(problem.female.numpy(), "female", "male"),
        "models": models,
        "device": "cpu",
    }


def test_people_get_nearer_to_their_keypoints(given: dict[str, Any]) -> None:
    keypoints = given["keypoints2d"].copy()
    keypoints[2, :, 2] = 0
    whole = skelfit.refine(**given | {"keypoints2d": keypoints})
    assert whole.status.tolist() == ["refined"] * 2 + ["few_keypoints"] + ["refined"] * 3
    assert (whole.reprojection_px[whole.ok, 1] < 0.6 * whole.reprojection_px[whole.ok, 0]).all()
    assert np.array_equal(whole.poses[2], given["poses"][2]) and whole.poses.dtype == np.float32
    names = ("poses", "betas", "trans", "keypoints2d", "cam_int")
    tensors = {n: torch.from_numpy(given[n][:4].copy()).unflatten(0, (2, 2)) for n in names}
    tensors["cam_int"] = tensors["cam_int"][0, 0]  # one for all
    tensors["keypoints2d"] = torch.from_numpy(keypoints[:4]).unflatten(0, (2, 2))
    pairs = skelfit.refine(**given | tensors | {"gender": given["gender"][:4].reshape(2, 2)})
    assert isinstance(pairs.poses, torch.Tensor) and pairs.status.shape == (2, 2)
    assert np.array_equal(pairs.poses.flatten(0, 1).numpy(), whole.poses[:4]), "nothing couples people"
    assert tuple(pairs.objective.shape) == (2, 2, 2)


def test_a_camera_that_is_not_known_is_estimated(given: dict[str, Any]) -> None:
    """From none of all, or zeros of some; who has one keeps it."""
    known = skelfit.refine(**given)
    assert np.array_equal(known.cam_int, given["cam_int"])
    unknown = skelfit.refine(**given | {"cam_int": None})
    assert unknown.status.tolist() == ["no_camera"] * 6 and not unknown.cam_int.any()
    none = skelfit.refine(**given | {"cam_int": None, "image_size": (256, 200)})
    assert none.ok.all() and (none.cam_int[:, 0, 2] == 128).all() and (none.cam_int[:, 1, 2] == 100).all()
    focal = none.cam_int[:, 0, 0]
    assert (focal > 100).all() and (focal < 1000).all() and np.ptp(focal) > 1
    assert np.allclose(none.trans[:, 2] / given["trans"][:, 2], focal / 300, rtol=0.2), "depth goes along"
    some = given["cam_int"].copy()
    some[3:] = 0
    mixed = skelfit.refine(**given | {"cam_int": some, "image_size": np.full((6, 2), (256, 200))})
    assert np.array_equal(mixed.poses[:3], known.poses[:3])
    assert np.array_equal(mixed.poses[3:], none.poses[3:]) and np.array_equal(mixed.trans[3:], none.trans[3:])


def test_frames_of_a_motion_are_refined_together(given: dict[str, Any]) -> None:
    names = ("poses", "betas", "trans", "keypoints2d", "cam_int")
    two = {name: given[name].reshape(2, 3, *given[name].shape[1:]) for name in names} | {"gender": "male"}
    motions = skelfit.refine(**given | two, frames_per_second=30)
    assert motions.ok.all() and (motions.betas == motions.betas[:, :1]).all()
    assert (motions.betas[0] != motions.betas[1]).any()
    single = skelfit.refine(**given | two)
    assert not (single.betas == single.betas[:, :1]).all()
    second = {name: two[name][1] for name in names} | {"gender": "male"}
    assert np.array_equal(skelfit.refine(**given | second, frames_per_second=30).poses, motions.poses[1])
    with pytest.raises(ArgumentError, match="frames_per_second"):
        skelfit.refine(**given | two, frames_per_second=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"poses": np.zeros((6, 45))}, "poses: expected shape .*46.*, found shape .*45"),
        ({"poses": "all"}, "poses: expected numbers"),
        ({"betas": np.zeros((5, 10))}, "betas: expected shape .6, 10.*found shape .5, 10"),
        ({"keypoints2d": np.zeros((6, 24, 3))}, "keypoints2d: expected shape"),
        ({"image_size": (1, 2, 3)}, "image_size: expected shape .6, 2"),
        ({"gender": "neutral"}, "gender: expected male or female, found neutral"),
        ({"gender": ["male"] * 4}, "gender: expected one, or shape"),
        ({"settings": {"phases": []}}, "settings: expected a RefineConfig, or None, found dict"),
    ],
)
def test_what_is_refused(given: dict[str, Any], changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArgumentError, match=message):
        skelfit.refine(**given | changes)
