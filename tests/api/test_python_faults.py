"""What Python callers get wrong, and results at the edge: none in them, masked, not finite."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from skelfit.api.fit_arrays import NumPyPeople, fit
from skelfit.errors import ArgumentError
from skelfit.labels.demo_people import sample_labels

PEOPLE = 3
POSE, BETAS, _ = (np.array(x) for x in sample_labels(PEOPLE, 3, 0.3))


@pytest.fixture(scope="module")
def people() -> NumPyPeople:
    """Three people, of whom the second has a number that is not finite."""
    pose = POSE.copy()
    pose[1, 7, 1] = np.nan
    return fit(pose, BETAS, device="cpu")


def test_no_people_have_bodies_too(people: NumPyPeople) -> None:
    none: NumPyPeople = fit(np.zeros((0, 24, 3)), np.zeros(10), device="cpu")
    for empty in (none, people[people.status == "filtered"], people[1:2][[False]]):
        assert empty.vertices().shape == (0, 6890, 3) and empty.joints().shape == (0, 24, 3)
        assert empty.bones().shape[::2] == (0, 3) and empty.angle("knee_angle_l").shape == (0,)
        assert empty.usable.shape == (0,) and "none" in repr(empty) and list(empty) == []
    grid = fit(torch.zeros(2, 0, 24, 3), np.zeros(10), device="cpu")
    assert isinstance(grid.joints(), torch.Tensor) and grid.joints().shape == (2, 0, 24, 3)


def test_a_fit_that_is_not_finite_has_no_numbers() -> None:
    pose = np.concatenate([np.full((1, 24, 3), 1e30), POSE[:1]])
    huge = fit(pose, BETAS[:2], device="cpu")
    assert huge.status.tolist() == ["not_converged", "ok"]
    for name in ("poses", "betas", "trans", "pve_mm", "max_vertex_mm"):
        value = getattr(huge, name)
        assert np.isnan(value[0]).all() and np.isfinite(value[1]).all(), name


def test_masked_numbers_are_bad_input() -> None:
    pose: Any = np.ma.masked_array(POSE[:2])
    pose[1, 4, 0] = np.ma.masked
    betas = np.ma.masked_array(np.zeros(10, int), [False] * 10)
    masked = fit(pose, betas, device="cpu")
    assert masked.status.tolist() == ["ok", "bad_input"] and masked.reason[1] == "non_finite:pose"
    genders = np.ma.masked_array(["male", "female"], [False, True])
    with pytest.raises(ArgumentError, match="gender: expected neutral, .* found masked ones"):
        fit(pose, betas, gender=genders, device="cpu")
