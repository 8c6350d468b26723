"""`skelfit.to_smpl`: any shape of arguments, people that cannot be fitted, one sentence for each fault."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest
import torch

from skelfit.api.fit_arrays import NumPyPeople, fit
from skelfit.api.smpl_arrays import SmplPeople, to_smpl
from skelfit.bodies.model_set import open_models
from skelfit.bodies.smpl import SmplModel
from skelfit.errors import ArgumentError
from skelfit.labels.demo_people import sample_labels

PEOPLE = 8
LOST = 3


@cache
def people() -> NumPyPeople:
    """People of both genders, one without a fit."""
    pose, betas, pelvis = sample_labels(PEOPLE, 5, 0.3)
    pose = pose.copy()
    pose[LOST, 7, 1] = np.nan
    return fit(pose, betas, pelvis, gender=np.array(["male", "female"] * (PEOPLE // 2)), device="cpu")


@cache
def back() -> SmplPeople[Any]:
    given = people()
    return to_smpl(given.poses, given.betas, given.trans, gender=given.skel_gender, device="cpu")


def test_people_of_a_fit_come_back() -> None:
    given, actual = people(), back()
    others = np.arange(PEOPLE) != LOST
    assert actual.status.tolist() == ["bad_input" if i == LOST else "ok" for i in range(PEOPLE)]
    assert actual.reason[LOST] == "non_finite:poses; non_finite:betas; non_finite:trans; no_gender"
    assert set(actual.reason[others]) == {""}
    assert actual.gender.tolist() == given.skel_gender.tolist()
    for array, shape in ((actual.pose, (24, 3)), (actual.betas, (10,)), (actual.transl, (3,))):
        assert array.dtype == np.float32 and array.shape == (PEOPLE, *shape)
        assert np.isnan(array[LOST]).all() and np.isfinite(array[others]).all()
    assert np.array_equal(actual.body_pose, actual.pose[:, 1:], equal_nan=True)
    assert np.array_equal(actual.global_orient, actual.pose[:, 0], equal_nan=True)
    skel = given.vertices()
    for i in np.flatnonzero(others):
        model = SmplModel(open_models().smpl_of(str(actual.gender[i])))
        skin = model.vertices(*(torch.tensor(x[i]) for x in (actual.pose, actual.betas, actual.transl)))
        distance = 1000 * np.linalg.norm(skin.numpy() - skel[i], axis=1)
        assert abs(distance.mean() - actual.pve_mm[i]) < 1e-3 and actual.pve_mm[i] < 10
        assert abs(distance.max() - actual.max_vertex_mm[i]) < 1e-2


def test_leading_dimensions_and_tensors() -> None:
    given, whole = people(), back()
    rows = [0, 2]
    pairs = to_smpl(
        torch.tensor(given.poses[rows])[:, None],
        given.betas[0],
        torch.tensor(given.trans[[0, 2, 4]]),
        gender="male",
        device="cpu",
    )
    assert isinstance(pairs.pose, torch.Tensor) and pairs.pose.shape == (2, 3, 24, 3)
    assert pairs.status.shape == (2, 3) and (pairs.status == "ok").all()
    assert torch.equal(pairs.pose[0, 0], torch.tensor(whole.pose[0]))
    # The translation is no part of the fit.
    assert torch.equal(pairs.body_pose[1, 0], pairs.body_pose[1, 2])
    one = to_smpl(given.poses[0], given.betas[0], gender="male", device="cpu")
    assert one.pose.shape == (24, 3) and one.status.shape == () and one.status == "ok"
    assert np.array_equal(one.pose, whole.pose[0])
    none = to_smpl(np.zeros((0, 46)), np.zeros(10), gender="female", device="cpu")
    assert none.pose.shape == (0, 24, 3) and none.status.shape == (0,)


def test_a_person_too_far_away() -> None:
    trans = np.array([[0, 0, 3.0], [0, 0, 1e9]])
    far = to_smpl(np.zeros((2, 46)), np.zeros(10), trans, gender="male", device="cpu")
    assert far.status.tolist() == ["ok", "bad_input"]
    assert far.reason[1] == "bad_translation: trans is 1000000000 m from the origin, more than 5000"


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"poses": np.zeros((2, 45))}, r"poses: expected shape \(\.\.\., 46\), found shape \(2, 45\)"),
        ({"betas": np.zeros(9)}, r"betas: expected shape \(\.\.\., 10\), found shape \(9,\)"),
        ({"trans": np.zeros(2)}, r"trans: expected shape \(\.\.\., 3\), found shape \(2,\)"),
        ({"betas": np.zeros((3, 10))}, "betas: expected leading dimensions that go with"),
        ({"gender": "neutral"}, "gender: expected male or female, .* found 'neutral'"),
        ({"poses": "all"}, "poses: expected numbers"),
        ({"device": "tpu"}, "device: expected auto, cpu or cuda"),
    ],
)
def test_faults_of_arguments(changes: dict[str, Any], message: str) -> None:
    usual: dict[str, Any] = {"poses": np.zeros((2, 46)), "betas": np.zeros(10), "gender": "male"}
    with pytest.raises(ArgumentError, match=message):
        to_smpl(**usual | changes)
