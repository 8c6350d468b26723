"""What training minimises: every term by hand, at the truth, and its gradient against finite differences."""

from __future__ import annotations

from dataclasses import replace
from math import cos, exp, sin
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from train_fakes import labelled_people, true_camera

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.dofs import NUM_DOFS, dof_index
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.errors import ModelError
from skelfit.learning.backbones.heatmaps import heatmap_loss, heatmap_training_loss
from skelfit.learning.backbones.keypoint_cnn import CELLS
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import Estimate, Prediction
from skelfit.learning.training.losses import (
    estimate_terms,
    keypoints2d_loss,
    keypoints3d_loss,
    parameter_terms,
    refinement_loss,
    training_loss,
)
from skelfit.learning.training.training_config import LossConfig

TERMS = ("keypoints2d", "keypoints3d", "betas", "orientation", "pose")


@pytest.fixture(scope="module")
def body(models: ModelSet) -> SkelKeypoints:
    return SkelKeypoints(models, "male", dtype=torch.float64)


@pytest.fixture(scope="module")
def people(models: ModelSet) -> tuple[TrainingBatch, Estimate]:
    """Three people, and the estimate that is true."""
    batch, trans = labelled_people(models, 3)
    return batch, Estimate(angles_to_pose(batch.poses), batch.betas, true_camera(batch, trans))


def off(estimate: Estimate, by: float = 0.1) -> Estimate:
    """An estimate beside the truth."""
    torch.manual_seed(5)
    return Estimate(*(value + by * torch.randn_like(value) for value in vars(estimate).values()))


def test_two_dimensions_by_hand() -> None:
    points, labels = torch.zeros(2, 44, 2), torch.zeros(2, 44, 3)
    labels[0, 3] = torch.tensor([0.1, -0.2, 1.0])  # 0.3
    labels[0, 5] = torch.tensor([0.5, 0.5, 0.4])  # 0.4 of 1
    labels[1, 7] = torch.tensor([0.9, 0.9, 0.0])  # not seen
    torch.testing.assert_close(keypoints2d_loss(points, labels), torch.tensor(0.7 / 2))


def test_three_dimensions_by_hand() -> None:
    points, labels = torch.zeros(2, 44, 3), torch.zeros(2, 44, 4)
    labels[..., 3] = 1
    labels[0, :, :3] += torch.tensor([1.0, 2, 3])  # where the person stands does not count
    labels[0, 4, :3] += torch.tensor([0.1, 0.2, -0.3])  # 0.6
    labels[0, 6] += torch.tensor([0.2, 0, 0, -0.5])  # half of 0.2
    labels[1, :, 0] = torch.arange(44.0)
    labels[1, 39, 3] = 0  # without its pelvis
    torch.testing.assert_close(keypoints3d_loss(points, labels), torch.tensor(0.7 / 2))


def test_the_pelvis_of_the_estimate_counts_too() -> None:
    points, labels = torch.zeros(1, 44, 3), torch.zeros(1, 44, 4)
    labels[..., 3] = 1
    points[0, 39, 1] = 0.01  # now each of the other 43 is off
    torch.testing.assert_close(keypoints3d_loss(points, labels), torch.tensor(0.43))


def people_of(count: int, models: ModelSet) -> tuple[TrainingBatch, Estimate]:
    """People with angles and betas 0, and the estimate that is true."""
    batch, trans = labelled_people(models, count)
    batch = replace(batch, poses=0 * batch.poses, betas=0 * batch.betas)
    return batch, Estimate(angles_to_pose(batch.poses), batch.betas.clone(), true_camera(batch, trans))


def test_betas_by_hand(models: ModelSet) -> None:
    batch, truth = people_of(2, models)
    truth.betas[0, :2], truth.betas[1, 0] = torch.tensor([1.0, -2.0]), 5.0
    squared = LossConfig(parameters="squared")

    def betas(batch: TrainingBatch, config: LossConfig) -> float:
        return float(parameter_terms(truth, batch, "male", config)["betas"])

    assert betas(batch, LossConfig()) == pytest.approx(4) and betas(batch, squared) == pytest.approx(15)
    # The second one's do not count.
    assert betas(replace(batch, has_betas=torch.tensor([True, False])), LossConfig()) == pytest.approx(1.5)
    assert betas(replace(batch, female=torch.tensor([False, True])), LossConfig()) == pytest.approx(1.5)


def test_rotations_by_hand(models: ModelSet) -> None:
    """A turn by an angle changes four of a matrix's numbers: two by 1 - cos, two by sin."""
    batch, truth = people_of(2, models)
    q = torch.zeros(2, NUM_DOFS, dtype=torch.float64)
    q[0, dof_index("knee_angle_r")] = torch.pi / 2
    q[0, dof_index("wrist_flexion_l")] = -0.3
    q[1, dof_index("pelvis_tilt")] = torch.pi / 2
    turned = replace(truth, pose=3 * angles_to_pose(q))  # vectors may have any length
    turned.pose[0, [18, 23], :2] /= 3  # but two-DoF joints are angles
    turned.pose[1, 3, 2:] = 9.0  # means nothing
    by = {"absolute": (4, 2 * (1 - cos(0.3)) + 2 * sin(0.3), 4), "squared": (4, 4 * (1 - cos(0.3)), 4)}
    for parameters, (knee, wrist, pelvis) in by.items():
        config = LossConfig(parameters=parameters)  # type: ignore[arg-type]
        terms = parameter_terms(turned, batch, "male", config)
        assert float(terms["pose"]) == pytest.approx((knee + wrist) / 2)
        assert float(terms["orientation"]) == pytest.approx(pelvis / 2)
        first = replace(batch, has_pose=torch.tensor([True, False]))
        terms = parameter_terms(turned, first, "male", config)
        assert float(terms["pose"]) == pytest.approx((knee + wrist) / 2) and terms["orientation"] == 0
        second = replace(batch, has_pose=torch.tensor([False, True]))
        terms = parameter_terms(turned, second, "male", config)
        assert terms["pose"] == 0 and float(terms["orientation"]) == pytest.approx(pelvis / 2)


def test_the_refinement_by_hand() -> None:
    target = torch.zeros(3, 24, 6)
    layers = torch.zeros(2, 3, 24, 6)
    layers[0, 0, 4, 2], layers[1, 1, 3, 5] = 1.44, -2.88  # of 144 numbers, used or not
    layers[1, 2] = 100.0
    counts = torch.tensor([True, True, False])
    torch.testing.assert_close(refinement_loss(layers, target, counts), torch.tensor([0.01 / 3, 0.02 / 3]))


def test_true_parameters_have_no_loss(people: tuple[TrainingBatch, Estimate], body: SkelKeypoints) -> None:
    """Against labels from the whole skin, another projection and another camera formula."""
    batch, truth = people
    terms = estimate_terms(truth, batch.cam_int, batch, body, LossConfig())
    assert set(terms) == set(TERMS)
    for name, value in terms.items():
        # keypoints44 is float32, and the labels of the demo body lie 5 m off
        assert value.item() < 1e-9, name
    wrong = estimate_terms(off(truth), batch.cam_int, batch, body, LossConfig())
    assert all(value.item() > 0.01 for value in wrong.values())


@pytest.mark.parametrize(
    ("name", "parameters"),
    [*((name, "absolute") for name in TERMS), *((name, "squared") for name in TERMS[2:])],
)
def test_gradients_of_an_estimate(
    name: str, parameters: Any, people: tuple[TrainingBatch, Estimate], body: SkelKeypoints
) -> None:
    (batch, truth), config = people, LossConfig(parameters=parameters)
    one = batch._with(lambda tensor: tensor[:1])
    pose, betas, camera = (v[:1].clone().requires_grad_() for v in vars(off(truth)).values())

    def term(pose: Tensor, betas: Tensor, camera: Tensor) -> Tensor:
        return estimate_terms(Estimate(pose, betas, camera), one.cam_int, one, body, config)[name]

    torch.autograd.gradcheck(term, (pose, betas, camera), fast_mode=True)


def test_gradients_of_the_refinement(people: tuple[TrainingBatch, Estimate]) -> None:
    batch, truth = people
    target = angles_to_pose(batch.poses)
    pose = off(truth).pose.requires_grad_()
    torch.autograd.gradcheck(lambda pose: refinement_loss(pose, target, batch.has_pose), pose)


def test_heatmaps_by_hand() -> None:
    logits, labels = torch.zeros(2, 44, CELLS, CELLS), torch.zeros(2, 44, 3)
    cell = 1 / CELLS
    cell_center = ((12.5 - CELLS / 2) * cell, (7.5 - CELLS / 2) * cell)  # the middle of column 12, row 7
    labels[0, 3] = torch.tensor([*cell_center, 1.0])  # the heatmap says nothing
    labels[0, 4] = torch.tensor([*cell_center, 0.5])
    labels[1, 5] = torch.tensor([*cell_center, 1.0])  # the heatmap is right
    labels[1, 6] = torch.tensor([0.3, 0.55, 1.0])  # out of the crop
    bell = np.array(
        [[exp(-((c - 12) ** 2 + (r - 7) ** 2) / (2 * 0.7**2)) for c in range(CELLS)] for r in range(CELLS)]
    )
    logits[1, 5] = torch.from_numpy(np.log(bell)) + 3  # a constant means nothing
    share = bell / bell.sum()
    against_nothing = float((share * np.log(share * CELLS**2)).sum())
    torch.testing.assert_close(heatmap_loss(logits, labels), torch.tensor(1.5 * against_nothing / 2))


def test_gradients_of_heatmaps() -> None:
    torch.manual_seed(0)
    labels = torch.rand(1, 44, 3, dtype=torch.float64) - 0.5
    labels[..., 2] = 1
    logits = torch.randn(1, 44, CELLS, CELLS, dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(lambda maps: heatmap_loss(maps, labels), (logits,), fast_mode=True)


def test_the_loss_of_a_detector(people: tuple[TrainingBatch, Estimate]) -> None:
    batch, _ = people
    maps = torch.randn(3, 44, CELLS, CELLS, dtype=torch.float64)
    detector: Any = lambda image: maps + image.mean()  # noqa: E731  # a constant means nothing
    loss, terms = heatmap_training_loss(detector, batch)
    torch.testing.assert_close(
        loss, heatmap_loss(maps, batch.keypoints2d), rtol=1e-5, atol=0, check_dtype=False
    )
    assert terms == {"heatmaps": loss}


def made(truth: Estimate, batch: TrainingBatch, encoder: bool = True) -> Prediction:
    layers = (off(truth, 0.2), off(truth, 0.1), off(truth, 0.05))
    return Prediction(off(truth, 0.3) if encoder else None, layers, batch.cam_int)


def test_the_loss_is_the_weighted_sum_of_its_terms(
    people: tuple[TrainingBatch, Estimate], body: SkelKeypoints
) -> None:
    batch, truth = people
    prediction = made(truth, batch)
    total, terms = training_loss(prediction, batch, body, LossConfig())
    weights = {"keypoints2d": 0.05, "keypoints3d": 0.05, "betas": 0.0005, "pose": 0.001, "orientation": 0.002}
    names = {f"{part}/{term}": weight for part in ("encoder", "decoder") for term, weight in weights.items()}
    assert set(terms) == names.keys() | {"refinement"}
    expected = sum(weight * terms[name] for name, weight in names.items()) + 0.1 * terms["refinement"]
    torch.testing.assert_close(total, expected)
    target = angles_to_pose(batch.poses)
    of_layers = [refinement_loss(layer.pose, target, batch.has_pose) for layer in prediction.layers]
    torch.testing.assert_close(terms["refinement"], sum(of_layers))
    between = LossConfig(refinement_layers="between")
    _, terms = training_loss(prediction, batch, body, between)
    torch.testing.assert_close(terms["refinement"], sum(of_layers[:2]))


def test_without_the_refinement(people: tuple[TrainingBatch, Estimate], body: SkelKeypoints) -> None:
    batch, truth = people
    with_it, terms = training_loss(made(truth, batch), batch, body, LossConfig())
    without, fewer = training_loss(made(truth, batch), batch, body, LossConfig(refinement=0))
    assert terms.keys() - fewer.keys() == {"refinement"}
    torch.testing.assert_close(with_it - without, 0.1 * terms["refinement"])


def test_full_supervision_is_on_every_layer(
    people: tuple[TrainingBatch, Estimate], body: SkelKeypoints
) -> None:
    batch, truth = people
    _, terms = training_loss(made(truth, batch), batch, body, LossConfig(full_supervision=True))
    parts = ("encoder", "layer1", "layer2", "decoder")
    assert set(terms) == {f"{part}/{term}" for part in parts for term in TERMS}
    assert terms["layer1/pose"] > terms["layer2/pose"] > terms["decoder/pose"]


def test_without_an_encoder(people: tuple[TrainingBatch, Estimate], body: SkelKeypoints) -> None:
    batch, truth = people
    prediction = replace(made(truth, batch, encoder=False), layers=(truth,))
    _, terms = training_loss(prediction, batch, body, LossConfig(refinement_layers="between"))
    assert set(terms) == {f"decoder/{term}" for term in TERMS}


def test_the_loss_of_two_halves_is_that_of_the_batch(
    people: tuple[TrainingBatch, Estimate], body: SkelKeypoints, models: ModelSet
) -> None:
    """What two processes find, on average, is what one finds with both batches."""
    batch, trans = labelled_people(models, 4)
    estimate = off(Estimate(angles_to_pose(batch.poses), batch.betas, true_camera(batch, trans)))

    def loss(rows: slice) -> Tensor:
        def take(value: Tensor) -> Tensor:
            return value[rows]

        few = Estimate(*(take(value) for value in vars(estimate).values()))
        prediction = Prediction(few, (few, few), take(batch.cam_int))
        return training_loss(prediction, batch._with(take), body, LossConfig())[0]

    halves = (loss(slice(0, 2)) + loss(slice(2, 4))) / 2
    torch.testing.assert_close(halves, loss(slice(0, 4)))


def test_betas_of_the_other_body_do_not_count(
    people: tuple[TrainingBatch, Estimate], body: SkelKeypoints
) -> None:
    batch, truth = people
    women = replace(batch, female=torch.ones(3, dtype=torch.bool))
    terms = estimate_terms(off(truth), batch.cam_int, women, body, LossConfig())
    assert terms["betas"].item() == 0 and terms["pose"].item() > 0


def test_keypoints_need_their_regressor(models: ModelSet) -> None:
    with pytest.raises(ModelError, match="keypoints44.npz \\(make it with"):
        SkelKeypoints(replace(models, keypoints44=None), "male")


def test_autocast_does_not_change_the_loss(models: ModelSet) -> None:
    """Autocast around the loss leaves it in float32."""
    batch, trans = labelled_people(models, 2)
    batch = batch._with(lambda t: t.float() if t.is_floating_point() else t)
    body = SkelKeypoints(models, "male")
    truth = Estimate(angles_to_pose(batch.poses), batch.betas, true_camera(batch, trans.float()))
    prediction = Prediction(None, (off(truth, 0.02),), batch.cam_int)
    plain, _ = training_loss(prediction, batch, body, LossConfig())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed, _ = training_loss(prediction, batch, body, LossConfig())
    assert torch.equal(plain, mixed)
