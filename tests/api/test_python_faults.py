"""What Python callers get wrong, and results at the edge: none in them, masked, not finite."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from skelfit.api.convert_dataset import convert
from skelfit.api.fit_arrays import NumPyPeople, fit, fit_mesh, load_models
from skelfit.bodies.model_set import ModelSet, make_model_set, save_models
from skelfit.bodies.model_set import load_models as load_folder
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.errors import ArgumentError, ModelError
from skelfit.labels.demo_people import sample_labels
from skelfit.verification.verify_folders import verify

PEOPLE = 3
POSE, BETAS, _ = (np.array(x) for x in sample_labels(PEOPLE, 3, 0.3))


@pytest.fixture(scope="module")
def people() -> NumPyPeople:
    """Three people, the second with a number that is not finite."""
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


RATE = r"frames_per_second: expected a rate of 0\.1 to 10000 Hz, found "
SAME = "expected the same for all frames of a motion, with frames_per_second, found"
DENSE = "pose: expected a dense tensor of real numbers, found torch.float32, "


@pytest.mark.parametrize(("arguments", "said"), [
    ({"frames_per_second": "30"}, RATE + "'30'"),
    ({"frames_per_second": np.array([30.0, 25.0])}, RATE + r"array\(\[30\., 25\.\]\)"),
    ({"frames_per_second": True}, RATE + "True"),
    ({"frames_per_second": np.nan}, RATE + "nan"),
    ({"frames_per_second": 30, "gender": ["male", "male", "female"]}, f"gender: {SAME} female and male"),
    ({"frames_per_second": 30, "betas": BETAS}, f"betas: {SAME} 3 shapes in 3 frames"),
    ({"models": 3}, "models: expected a set of load_models, the path of a models folder, or None, found 3"),
    ({"pose": torch.zeros(3, 72).to_sparse()}, f"{DENSE}torch.sparse_coo, cpu"),
    ({"pose": torch.zeros(3, 72, device="meta")}, f"{DENSE}torch.strided, meta"),
    ({"pose": torch.zeros(3, 72, dtype=torch.complex64).conj()}, "pose: .* of real numbers, found torch.complex64"),
    ({"pose": [torch.zeros(72, requires_grad=True)]}, "pose: expected axis-angles .*, found no array"),
    ({"gender": []}, r"gender: expected leading dimensions that go with \(3,\), .* found shape \(0,\)"),
    ({"pose": POSE[:1], "gender": []}, r"gender: expected leading dimensions that go with \(1,\), .* \(0,\)"),
    ({"pose": POSE[0], "gender": []}, r"gender: expected leading dimensions that go with \(\), .* \(0,\)"),
    ({"pose": POSE[0], "betas": np.zeros((0, 10))}, "betas: expected leading dimensions that go with"),
])  # fmt: skip
def test_a_fault_of_a_fit_is_one_sentence(arguments: dict[str, Any], said: str) -> None:
    usual: dict[str, Any] = {"pose": POSE, "betas": BETAS[0], "device": "cpu"}
    with pytest.raises(ArgumentError, match=said) as caught:
        fit(**usual | arguments)
    assert len(str(caught.value).splitlines()) == 1


def test_a_frame_without_betas_is_of_the_motion() -> None:
    betas = np.tile(BETAS[0], (PEOPLE, 1))
    betas[1, 3] = np.nan
    motion = fit(POSE, betas, frames_per_second=30.0, device="cpu")
    assert motion.reason.tolist() == ["", "non_finite:betas", ""]
    # Two motions, each of a person of their own.
    pose, own = np.tile(POSE[0], (2, 2, 1, 1)), BETAS[:2, None]
    two = fit(pose, own, gender=[["male"], ["female"]], frames_per_second=30.0, device="cpu")
    assert two.skel_gender.tolist() == [["male"] * 2, ["female"] * 2]


def test_a_set_of_models_is_for_fits_alone(models: ModelSet, tmp_path: Path) -> None:
    said = (
        "models: expected the path of a models folder, or None, found a set of models, which fit and fit_mesh"
    )
    wrong: Any = models
    with pytest.raises(ArgumentError, match=said):
        verify(tmp_path, models=wrong)
    np.savez(tmp_path / "people.npz", poses=POSE.reshape(-1, 72))
    with pytest.raises(ArgumentError, match=said):
        convert(tmp_path / "out", labels=tmp_path / "people.npz", models=wrong)
    three: Any = 3
    with pytest.raises(ArgumentError, match="labels: expected .* found 3"):
        convert(tmp_path / "out", labels=three)
    with pytest.raises(ArgumentError, match="models: expected a path, or an address .* found 3"):
        load_models(three)


def test_a_body_is_made_of_its_asset(models: ModelSet) -> None:
    skel: Any = models.skel_of("male")
    male: Any = "male"
    with pytest.raises(ArgumentError, match=r"asset: expected a SkelAsset, as load_models.* found 'male'"):
        SkelModel(male)
    with pytest.raises(
        ArgumentError, match="asset: expected a SmplAsset, .* found a value of type SkelAsset"
    ):
        SmplModel(skel)


@pytest.mark.parametrize("name", [None, 3, "knee", ("a",)])
def test_an_angle_that_is_not_there(people: NumPyPeople, name: Any) -> None:
    said = "name: expected a name of DOF_NAMES, such as .*knee_angle_r"
    with pytest.raises(ArgumentError, match=said):
        people.angle(name)
    with pytest.raises(ArgumentError, match=said):
        people.angles[name]
    assert name not in people.angles and "knee_angle_l" in people.angles


def test_a_picture_that_cannot_be(people: NumPyPeople) -> None:
    three: Any = 3
    with pytest.raises(ArgumentError, match="up: expected x, y, z, -x, -y or -z, found 3"):
        people.plot(up=three)
    for limit in ("a", None, 0):
        wrong: Any = limit
        with pytest.raises(
            ArgumentError, match=f"limit: expected a number of people, at least 1, found {limit!r}"
        ):
            people.plot(wrong)


def test_one_person_is_no_row_of_people(people: NumPyPeople) -> None:
    assert bool(people) and not bool(people[:0])
    for use in (bool, len, list):
        with pytest.raises(TypeError, match="expected people along a dimension, found one person"):
            use(people[0])


def test_noise_is_ok_and_far_off() -> None:
    """As the quickstart says: the status does not judge accuracy."""
    noise = np.random.default_rng(0).normal(0, 0.2, (6890, 3))
    one = fit_mesh(noise, gender="male", device="cpu")
    assert one.status == "ok" and one.pve_mm > 100


def test_a_pickle_holds_no_models(people: NumPyPeople, models: ModelSet, tmp_path: Path) -> None:
    pickled = pickle.dumps(people)
    again = pickle.loads(pickled)
    assert len(pickled) < 10_000 and "models" not in again.__dict__
    assert repr(again) == repr(people) and again[0].poses.tobytes() == people[0].poses.tobytes()
    assert len(pickle.dumps(again)) < 10_000 and not hasattr(again, "model")
    assert again.joints().tobytes() == people.joints().tobytes() and again.models == people.models
    # A set of a folder, which is moved and then changed; and a set that is in memory alone.
    save_models(models, tmp_path / "models")
    own = replace(people, models=load_folder(tmp_path / "models"))
    there = pickle.loads(pickle.dumps(own))
    (tmp_path / "models").rename(tmp_path / "moved")
    with pytest.raises(ModelError, match="models: expected a models folder, found no such folder"):
        there.models  # noqa: B018
    male = {"male": models.skel_of("male")}
    save_models(make_model_set(models.smpl, male, "memory", None), tmp_path / "models")
    assert there[2].trans.tobytes() == people[2].trans.tobytes() and str(tmp_path / "models") in repr(there)
    with pytest.raises(
        ModelError, match="expected the models that the people were fitted with .* found others"
    ):
        there[2].vertices()
    memory = replace(people, models=make_model_set(models.smpl, male, "memory", None))
    assert pickle.loads(pickle.dumps(memory)).models.source == "memory"


def test_a_set_of_models_is_a_line(models: ModelSet) -> None:
    text = repr(models)
    genders = "SMPL neutral, male, female; SKEL male, female"
    assert text == f"<ModelSet of {models.source}: {genders}; sha256 {models.sha256[:12]}>"
