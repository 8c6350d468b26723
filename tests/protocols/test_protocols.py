"""Each protocol against a naive twin, on label files with the published keys; and what perfect predictions score."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import naive_protocols as naive
import numpy as np
import pytest
import torch
from evaluation_people import (
    OF_LAYOUT,
    MadePeople,
    made_people,
    write_camerahmr,
    write_hmr2,
    write_moyo,
    write_skel,
    write_smpl,
)
from numpy.typing import NDArray

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.bodies.smpl import SmplModel
from skelfit.protocols.evaluation_run import evaluate
from skelfit.protocols.figures import BEYOND_DEG
from skelfit.protocols.protocol_table import PROTOCOLS

Array = NDArray[np.float64]
COUNT = 4
IN_3D = [name for name in PROTOCOLS if PROTOCOLS[name].errors and name != "moyo-hard"]
IN_2D = [name for name in PROTOCOLS if PROTOCOLS[name].pck_at]


@pytest.fixture(scope="module")
def models(models: ModelSet) -> ModelSet:
    """With a regressor whose pelvis is not between the hips, as the open body's is."""
    rng = np.random.default_rng(3)
    table = np.zeros((17, 6890), np.float32)
    for row in table:
        row[rng.choice(6890, 20, replace=False)] = rng.dirichlet(np.ones(20))
    return replace(models, joint_regressors={"h36m17": table}, sha256="another regressor")


@pytest.fixture(scope="module")
def people() -> MadePeople:
    return made_people(COUNT)


@pytest.fixture(scope="module")
def skins(models: ModelSet, people: MadePeople) -> Array:
    """Predicted skins (N,V,3)."""
    made = []
    for i, gender in enumerate(people.skel_gender):
        model = SkelModel(models.skel_of(gender))
        shape = model.shape(torch.tensor(people.skel_betas[i : i + 1]).float())
        made.append(model.forward(shape, torch.tensor(people.skel_poses[i : i + 1]).float()).vertices[0])
    return torch.stack(made).double().numpy()


@pytest.fixture(scope="module")
def keypoints(models: ModelSet, skins: Array) -> Array:
    """The predicted 44 keypoints (N,44,3)."""
    table = naive.regressors(models)["44"]
    return np.array([naive.regressed(table, skin) for skin in skins])


@pytest.fixture(scope="module")
def pixels(people: MadePeople, keypoints: Array) -> Array:
    """The predicted 44 keypoints in the image (N,44,2)."""
    seen = keypoints + people.trans[:, None]
    return 1000 * seen[..., :2] / seen[..., 2:] + (320, 240)


@pytest.fixture(scope="module")
def targets(models: ModelSet, people: MadePeople) -> dict[str, Array]:
    """SMPL's skins (N,V,3) of the labels, by gender."""
    pose, betas = (torch.tensor(v).float() for v in (people.pose, people.betas))
    return {g: SmplModel(a).vertices(pose, betas).double().numpy() for g, a in models.smpl.items()}


def run(predictions: Path, protocol: str, labels: Path, models: ModelSet, **options: Any) -> dict[str, Any]:
    return evaluate(predictions, protocol=protocol, labels=labels, models=models, **options).report


def expected_in_3d(
    protocol: str,
    models: ModelSet,
    people: MadePeople,
    targets: dict[str, Array],
    skins: Array,
    labelled: Array,
) -> Array:
    """The twin's errors, (N,2) or (N,3)."""
    kind = naive.FACTS[protocol][0]
    table = naive.regressors(models)[kind]
    errors = []
    for i, skin in enumerate(skins):
        points = naive.regressed(table, skin)
        target = None
        if kind == "44":
            target_points = labelled[i]
        elif kind == "posed":
            target = targets["neutral"][i]
            target_points = naive.posed_joints(models.smpl["neutral"], people.pose[i], people.betas[i])
        else:
            target = targets[{"m": "male", "f": "female"}[people.gender[i]]][i]
            target_points = naive.regressed(table, target)
        errors.append(naive.errors_of_person(protocol, target_points, points, target, skin))
    return np.array(errors)


@pytest.mark.parametrize("protocol", IN_3D)
def test_a_protocol_in_3d_against_a_naive_twin(
    tmp_path: Path,
    models: ModelSet,
    people: MadePeople,
    targets: dict[str, Array],
    skins: Array,
    keypoints: Array,
    protocol: str,
) -> None:
    rng = np.random.default_rng(1)
    labelled = keypoints + rng.normal(0, 0.03, keypoints.shape) + (0.5, 0, 0)
    labels = tmp_path / "labels.npz"
    if OF_LAYOUT[protocol] == "camerahmr":
        write_camerahmr(labels, people)
    elif OF_LAYOUT[protocol] == "moyo":
        write_moyo(labels, people)
    else:
        write_hmr2(labels, people, np.zeros((COUNT, 44, 3)), labelled)
    order = rng.permutation(COUNT)  # predictions are not in the order of labels
    shuffled = replace(
        people,
        **{
            name: getattr(people, name)[order]
            for name in ("skel_poses", "skel_betas", "trans", "cam_int", "center", "size")
        },
        skel_gender=[people.skel_gender[i] for i in order],
        imgname=[people.imgname[i] for i in order],
    )
    table = tmp_path / "rows.csv"
    report = run(write_skel(tmp_path / "p.npz", shuffled), protocol, labels, models, rows=table)
    expected = expected_in_3d(protocol, models, people, targets, skins, labelled)
    found = np.array(
        [[float(x) for x in line.split(",")[4:7] if x] for line in table.read_text().splitlines()[1:]]
    )
    np.testing.assert_allclose(found, expected, atol=2e-3)
    (stage,) = report["stages"]
    means = [histogram["mean"] for histogram in stage["errors"].values()]
    np.testing.assert_allclose(means, expected.mean(0), atol=2e-3)
    assert report["rows"]["statuses"] == {"ok": COUNT} and stage["people"] == COUNT
    for joint, shares in stage["knees_elbows"]["joints"].items():
        counted = [
            np.mean([naive.violating(q, joint, degrees) for q in people.skel_poses]) for degrees in BEYOND_DEG
        ]
        np.testing.assert_allclose(shares, counted)
    beyond = np.array(list(stage["knees_elbows"]["joints"].values()))
    assert beyond[:, 0].max() > 0 and beyond.min() < 1


@pytest.mark.parametrize("protocol", IN_2D)
def test_a_protocol_in_2d_against_a_naive_twin(
    tmp_path: Path, models: ModelSet, people: MadePeople, pixels: Array, protocol: str
) -> None:
    rng = np.random.default_rng(2)
    confidence = rng.choice([0.0, 0.5, 0.51, 1.0], (COUNT, 44, 1))
    confidence[:, 7] = 0.5  # never labelled: not in the mean
    labelled = np.concatenate([pixels + rng.normal(0, 10, pixels.shape), confidence], -1)
    labels = write_hmr2(tmp_path / "labels.npz", people, labelled, np.zeros((COUNT, 44, 3)))
    predictions = write_skel(tmp_path / "p.npz", people)
    (stage,) = run(predictions, protocol, labels, models)["stages"]
    for figure in stage["pck"]:
        expected = naive.pck(pixels, labelled, people.size, figure["at"])
        assert 0.1 < expected < 0.95 and figure["mean"] == pytest.approx(expected)
        assert figure["keypoints"][7] is None
    perfect = np.concatenate([pixels, confidence], -1)
    labels = write_hmr2(tmp_path / "labels.npz", people, perfect, np.zeros((COUNT, 44, 3)))
    (stage,) = run(predictions, protocol, labels, models)["stages"]
    assert [figure["mean"] for figure in stage["pck"]] == [1.0, 1.0]


@pytest.mark.parametrize("name", ["hmr2-3dpw", "hmr2-h36m-p2"])
def test_planted_errors_of_keypoints(
    tmp_path: Path, models: ModelSet, people: MadePeople, keypoints: Array, name: str
) -> None:
    """28 mm at one of the 14 joints are 2 mm; at another keypoint nothing; at the root 28."""
    nothing = np.zeros((COUNT, 44, 3))
    predictions = write_skel(tmp_path / "p.npz", people)

    def mpjpe(keypoint: int | None) -> tuple[float, float]:
        labelled = keypoints.copy()
        if keypoint is not None:
            labelled[:, keypoint, 1] += 0.028
        labels = write_hmr2(tmp_path / "labels.npz", people, nothing, labelled)
        errors = run(predictions, name, labels, models)["stages"][0]["errors"]
        return errors["mpjpe_mm"]["mean"], errors["pa_mpjpe_mm"]["max"]

    assert mpjpe(None) == pytest.approx((0, 0), abs=1e-3)
    assert mpjpe(43)[0] == mpjpe(25)[0] == pytest.approx(2, abs=1e-3)
    assert mpjpe(38) == mpjpe(42) == mpjpe(0) == pytest.approx((0, 0), abs=1e-3)
    assert mpjpe(39) == pytest.approx((28, 0), abs=1e-3)


@pytest.mark.parametrize("protocol", ["camerahmr-3dpw", "emdb", "spec", "moyo"])
def test_smpl_predictions_that_are_the_labels(
    tmp_path: Path, models: ModelSet, people: MadePeople, protocol: str
) -> None:
    """They score 0 mm, and those that are turned are 0 mm off after Procrustes; the SKEL fitted to them is not."""
    same = replace(people, gender=["n"] * COUNT) if protocol == "moyo" else people
    write = write_moyo if protocol == "moyo" else write_camerahmr
    labels = write(tmp_path / "labels.npz", same)
    turned = same.pose.copy()
    turned[:2, 0] += 0.5
    predictions = write_smpl(tmp_path / "p.npz", replace(same, pose=turned))
    table = tmp_path / "rows.csv"
    report = run(predictions, protocol, labels, models, limit=3, device="cpu", rows=table)
    smpl, skel = report["stages"]
    assert smpl["name"] == "SMPL, as predicted" and skel["people"] == 3
    errors = smpl["errors"]
    assert errors["pa_mpjpe_mm"]["max"] < 1e-2 and errors["mpjpe_mm"]["max"] > 50
    assert errors["mpjpe_mm"]["min"] < 1e-2 and errors["pve_mm"]["min"] < 1e-2
    assert 1 < skel["errors"]["pa_mpjpe_mm"]["mean"] < 40
    assert report["fit"]["people"] == 3 and report["fit"]["seconds"] > 0
    assert table.read_text().splitlines()[4].split(",")[2] == "beyond_limit"
