"""Labels that get better while a network learns: which are kept, for which person and picture, and after a restart."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import programs
import pytest
import torch
from train_fakes import labelled_people, true_camera
from training_runs import CPU, SilentObserver, flat_weights, log_lines, run_train, short_config, torchrun

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.mirrored_dofs import mirrored_poses
from skelfit.bodies.model_set import ModelSet
from skelfit.errors import ConfigError
from skelfit.learning.cameras import project
from skelfit.learning.data import better_labels
from skelfit.learning.data.augmentation import AugmentConfig, draw
from skelfit.learning.data.better_labels import BetterLabels, BetterLabelsConfig, PosedPeople, errors_2d
from skelfit.learning.data.person_crops import Square
from skelfit.learning.data.person_stream import Part
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.data.turn import turned_cameras, turned_center, turned_points, turned_poses, turns_of
from skelfit.learning.networks.network import Estimate, Prediction
from skelfit.learning.training.checkpoint import load, load_network
from skelfit.learning.training.training_loop import train

COUNT = 4


@dataclass
class Case:
    """People whose labels are wrong, and a refiner that knows better."""

    truth: TrainingBatch
    trans: torch.Tensor
    betas: torch.Tensor  # that the refiner finds
    done: torch.Tensor = field(default_factory=lambda: torch.ones(COUNT, dtype=torch.bool))

    @property
    def bad(self) -> TrainingBatch:
        return replace(self.truth, poses=self.truth.poses + 0.2, betas=torch.zeros(COUNT, 10))

    def refine(self, people: PosedPeople) -> tuple[PosedPeople, torch.Tensor]:
        """The true poses of those who were seen."""
        torch.testing.assert_close(people.trans, self.trans[: len(people.trans)], rtol=0, atol=1e-3)
        count = len(people.poses)
        return replace(people, poses=self.truth.poses[:count], betas=self.betas[:count]), self.done[:count]


def nudged(people: PosedPeople) -> tuple[PosedPeople, torch.Tensor]:
    """As they are, but for betas, which are small."""
    done = torch.ones(len(people.poses), dtype=torch.bool)
    return replace(people, betas=people.betas.clamp(-1, 1)), done


@pytest.fixture
def case(models: ModelSet) -> Case:
    batch, trans = labelled_people(models, COUNT)
    batch = batch._with(lambda t: t.float() if t.is_floating_point() else t)
    betas = batch.betas.clamp(-1.9, 1.9)
    return Case(batch, trans.float(), betas)


def made(case: Case, models: ModelSet, group: ProcessGroup = CPU, **config: Any) -> BetterLabels:
    settings = BetterLabelsConfig(**{"after": 1, "every": 1, "last": 100} | config)
    return BetterLabels(settings, "male", models, group, case.refine)


def predicted(case: Case, batch: TrainingBatch) -> Prediction:
    camera = true_camera(batch, case.trans).float()
    estimate = Estimate(angles_to_pose(batch.poses), batch.betas, camera)
    return Prediction(None, (estimate,), batch.cam_int)


def learn(labels: BetterLabels, case: Case, batch: TrainingBatch) -> dict[str, int] | None:
    labels.see(predicted(case, batch), batch, 0)
    return labels.after_step(1)


def test_the_better_label_is_learnt_from(case: Case, models: ModelSet) -> None:
    labels, bad = made(case, models), case.bad
    assert labels.better(bad) is bad
    assert learn(labels, case, bad) == {"tried": COUNT, "better": COUNT, "labels": COUNT}
    found = labels.better(replace(bad, fitted_points=torch.tensor([True, False, True, False])))
    assert torch.equal(found.poses, case.truth.poses) and torch.equal(found.betas, case.betas)
    moved = (found.keypoints3d != bad.keypoints3d).any(-1).any(-1)
    assert moved.tolist() == [True, False, True, False], "3D keypoints that were measured stay"
    points = found.keypoints3d[0, :, :3] + case.trans[0]
    off = project(points[None], bad.cam_int[:1])[0] - pixels(bad)[0, :, :2]
    assert off.norm(dim=-1).mean() < 5
    mirror = replace(bad, flipped=torch.ones(COUNT, dtype=torch.bool))
    assert labels.better(mirror) is mirror, "the mirror image has its own label"
    assert labels.after_step(2) == {"tried": 0, "better": 0, "labels": COUNT}


def pixels(batch: TrainingBatch) -> torch.Tensor:
    points = batch.keypoints2d[..., :2] * batch.box_size[:, None, None] + batch.center[:, None]
    return torch.cat((points, batch.keypoints2d[..., 2:]), -1)


def test_what_is_not_better_is_not_kept(case: Case, models: ModelSet) -> None:
    case.betas[0, 3] = -2.1  # too large
    case.done[1] = False  # the refiner gave up
    bad = replace(case.bad, extreme=torch.tensor([False, False, True, False]))
    labels = made(case, models)
    case.truth = replace(case.truth, poses=case.truth.poses[[0, 1, 3, 2]])  # in order of those who are seen
    case.betas, case.trans = case.betas[[0, 1, 3, 2]], case.trans[[0, 1, 3, 2]]
    order = case.trans[[0, 1, 3, 2]]
    camera = true_camera(bad, order).float()
    estimate = Estimate(angles_to_pose(bad.poses), bad.betas, camera)
    labels.see(Prediction(None, (estimate,), bad.cam_int), bad, 0)
    assert labels.after_step(1) == {"tried": 3, "better": 1, "labels": 1}
    assert list(labels.labels) == [("p3", False)]


def test_a_label_never_gets_worse(case: Case, models: ModelSet) -> None:
    labels = made(case, models)
    learn(labels, case, case.bad)
    best = {who: label.error for who, label in labels.labels.items()}
    truth = case.truth.poses
    case.truth = replace(case.truth, poses=truth + 0.05)
    assert learn(labels, case, case.bad) == {"tried": COUNT, "better": 0, "labels": COUNT}
    assert {who: label.error for who, label in labels.labels.items()} == best
    right = replace(case.truth, poses=truth)
    fresh = made(case, models)
    assert learn(fresh, case, right) == {"tried": COUNT, "better": 0, "labels": 0}, (
        "the shard's label is better"
    )


def test_a_turned_picture_has_the_same_label(case: Case, models: ModelSet) -> None:
    angle = torch.full((COUNT,), 0.7)
    turns = turns_of(angle.numpy())
    truth, trans = case.truth, case.trans
    turned = replace(
        truth,
        keypoints2d=torch.from_numpy(turned_points(truth.keypoints2d.numpy(), turns)),
        poses=torch.from_numpy(turned_poses(truth.poses.numpy(), turns)),
        center=torch.from_numpy(turned_center(truth.center.numpy(), truth.cam_int.numpy(), turns)),
        cam_int=torch.from_numpy(turned_cameras(truth.cam_int.numpy(), turns)),
        turn=angle,
    )
    case.truth = turned
    case.trans = torch.from_numpy(turned_points(trans[:, None].numpy(), turns))[:, 0]
    labels = made(case, models)
    learn(labels, case, case.bad)
    upright = labels.better(replace(truth, poses=torch.zeros(COUNT, 46)))
    torch.testing.assert_close(angles_to_pose(upright.poses), angles_to_pose(truth.poses), rtol=0, atol=2e-5)
    again = labels.better(case.bad)
    torch.testing.assert_close(angles_to_pose(again.poses), angles_to_pose(turned.poses), rtol=0, atol=4e-5)


def test_when_and_how_many(case: Case, models: ModelSet) -> None:
    labels = made(case, models, after=5, every=2, last=COUNT + 1)
    labels.refine = nudged
    kept = []
    for step in range(1, 10):
        labels.see(predicted(case, case.bad), case.bad, step - 1)
        kept.append(labels.count)
        counts = labels.after_step(step)
        assert (counts is not None) == (step in (5, 7, 9)), step
        assert counts is None or (counts["tried"], labels.count) == (COUNT + 1, 0)
    assert kept[:5] == [0, 0, 0, COUNT, 2 * COUNT], "what would be forgotten is not kept"


def test_errors_in_the_picture(case: Case, models: ModelSet) -> None:
    batch = case.truth
    labels = made(case, models)
    points = labels.bodies[False](batch.poses, batch.betas)
    given = pixels(batch)
    assert errors_2d(points, given, batch.cam_int).max() < 0.01, "wherever the body is"
    given[0, 4, :2] += 1e3
    given[0, 4, 2] = 0  # not seen
    given[1, 37, :2] += 1e3  # never counts
    given[2, :, 2] = 0
    given[3, 3:, 2] = 0
    error = errors_2d(points, given, batch.cam_int)
    assert error[:2].max() < 0.01 and error[2].isinf() and error[3] < 0.01
    given = pixels(batch)
    given[0, 4, 0] += 40
    given[1, 4, 0] += 40
    given[1, 4, 2] = 0.01
    error = errors_2d(points, given, batch.cam_int)
    assert 0.5 < error[0] < 3 and error[1] < 0.1 * error[0]
    behind = errors_2d(points * torch.tensor([-1.0, -1.0, 1.0]), pixels(batch), batch.cam_int)
    assert (behind > 50).all()


class PairedGroup(ProcessGroup):
    """One of two processes that are threads."""

    def gather(self, items: Any) -> list[Any]:
        BOARD[self.part.number] = items
        BARRIER.wait(20)
        both = [item for part in BOARD for item in part]
        BARRIER.wait(20)
        return both


BOARD: list[Any] = [[], []]
BARRIER = threading.Barrier(2)


def test_processes_share_labels(case: Case, models: ModelSet) -> None:
    groups = [PairedGroup(torch.device("cpu"), Part(number, 2)) for number in (0, 1)]
    both = [made(case, models, group) for group in groups]
    batches = [case.bad, replace(case.bad, keys=("p0", "q1", "q2", "q3"))]
    counts: list[Any] = [None, None]
    states: list[Any] = [None, None]

    def process(number: int) -> None:
        counts[number] = learn(both[number], case, batches[number])
        both[number].see(predicted(case, case.bad), batches[number], 1)
        states[number] = both[number].state()

    threads = [threading.Thread(target=process, args=(number,)) for number in (0, 1)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert counts[0] == counts[1] == {"tried": 8, "better": 7, "labels": 7}
    names = {key for key, _ in both[0].labels}
    assert list(both[0].labels) == list(both[1].labels) and names == {
        "p0",
        "p1",
        "p2",
        "p3",
        "q1",
        "q2",
        "q3",
    }
    again = made(case, models, groups[1])
    again.resume(states[0])
    assert again.count == COUNT and again.seen[0].keys == batches[1].keys
    assert {k: v.error for k, v in again.labels.items()} == {k: v.error for k, v in both[1].labels.items()}


def test_extreme_crops_are_marked() -> None:
    rng, square = np.random.default_rng(0), Square(100, 100, 100)
    keypoints = torch.rand(44, 3).mul(100).numpy()
    always, never = AugmentConfig(extreme_crop=1), AugmentConfig(extreme_crop=0)
    assert draw(square, keypoints, always, rng).extreme and not draw(square, keypoints, never, rng).extreme
    keypoints[:, 2] = 0
    assert not draw(square, keypoints, always, rng).extreme, "no part of this person is known"


@pytest.mark.usefixtures("one_thread")
def test_a_stopped_training_resumes_exactly(
    shards: Path, config_file: Path, tmp_path: Path, models: ModelSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The keypoints of these people are noise: no body is near them.
    monkeypatch.setattr(better_labels, "errors_2d", lambda points, *_: points[..., 0].abs().sum(-1).double())
    config = short_config(config_file, shards)
    config = replace(
        config,
        better_labels=BetterLabelsConfig(after=2, every=3, last=10),
        data=replace(config.data, augment=AugmentConfig(flip=0.5, extreme_crop=0.2, rotation_rate=0.5)),
    )
    one, other = tmp_path / "one", tmp_path / "other"
    train(config, one, models, CPU, SilentObserver(), refine=nudged)
    made = [line["better_labels"] for line in log_lines(one) if "better_labels" in line]
    assert len(made) == 3 and made[-1]["labels"] > made[0]["labels"] > 0
    for stop in (4, 7):
        train(config, other, models, CPU, SilentObserver(until=stop), resume=True, refine=nudged)
    state = load(other / "checkpoints/step-00000007.pt")["training"]["labels"]
    assert len(state["keys"]) and sum(len(keys) for keys, _ in state["seen"][0]) > 3
    end = train(config, other, models, CPU, SilentObserver(), resume=True, refine=nudged)
    assert end.finished and log_lines(other) == log_lines(one)
    assert torch.equal(*(flat_weights(load_network(out).network) for out in (one, other)))


@pytest.mark.soak
@pytest.mark.usefixtures("one_thread")
def test_two_processes_read_what_the_other_found(shards: Path, config_file: Path, tmp_path: Path) -> None:
    """Two that torchrun starts and gloo connects; one training is stopped and goes on, the other is not."""
    config = tmp_path / "two.yaml"
    settings = "better_labels: {after: 2, every: 2, last: 8}\n"
    config.write_text(config_file.read_text().replace("held_out: 0.2", "held_out: 0") + settings)
    program = [programs.SUPPORT / "train_beside_another.py", config, shards]
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    torchrun(whole, 0, program=program)
    one, other = (json.loads((whole / f"read-{number}.json").read_text()) for number in (0, 1))
    for mine, yours in ((one, other), (other, one)):
        assert mine["found"] and mine["other"], "it has read what it has not found"
        assert all(who in yours["found"] for who in mine["other"])
    torchrun(stopped, 5, program=program)
    kept = load(stopped / "checkpoints/step-00000005.pt")["training"]["labels"]
    found = [json.loads((stopped / f"read-{number}.json").read_text())["found"] for number in (0, 1)]
    assert {*zip(kept["keys"], kept["flipped"], strict=True)} == {tuple(who) for of in found for who in of}
    torchrun(stopped, 0, program=program)
    assert log_lines(stopped) == log_lines(whole)
    assert torch.equal(*(flat_weights(load_network(out).network) for out in (stopped, whole)))


def test_a_refiner_and_the_option_go_together(
    shards: Path, config_file: Path, tmp_path: Path, models: ModelSet
) -> None:
    config = short_config(config_file, shards)
    with pytest.raises(
        ConfigError, match="better_labels.*: expected a function that refines.*found one without it"
    ):
        train(config, tmp_path, models, CPU, SilentObserver(), refine=nudged)
    config = replace(config, better_labels=BetterLabelsConfig())
    with pytest.raises(ConfigError, match="better_labels.*found none"):
        train(config, tmp_path, models, CPU, SilentObserver())


@pytest.mark.parametrize("refiner", ["published", "anchored"])
def test_the_command_refines(shards: Path, config_file: Path, tmp_path: Path, refiner: str) -> None:
    path = tmp_path / "config.yaml"
    text = config_file.read_text().replace("steps: 10", "steps: 3")
    path.write_text(text + f"better_labels: {{after: 1, every: 2, refiner: {refiner}}}\n")
    result = run_train(path, "--shards", shards, "--out", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "refined predictions are better labels" in result.output
    lines = [line["better_labels"] for line in log_lines(tmp_path / "out") if "better_labels" in line]
    assert [line["tried"] for line in lines] == [4, 8]


def test_mirrored_labels_are_stored_as_the_mirror_shows_them(case: Case, models: ModelSet) -> None:
    case.truth = replace(case.truth, poses=torch.from_numpy(mirrored_poses(case.truth.poses.numpy())))
    labels = made(case, models)
    flipped = torch.tensor([True, False, True, False])
    bad = replace(case.bad, flipped=flipped)
    labels.see(predicted(case, bad), bad, 0)
    labels.after_step(1)
    assert all(flag == bool(flipped[int(key[1])]) for key, flag in labels.labels)
