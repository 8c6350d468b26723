"""The training loop: steps, checkpoints, going on, several processes, what is measured, and the command."""

from __future__ import annotations

import json
import os
import pickle
import shlex
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import programs
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from test_loader_data import write_people
from torch import nn
from train_fakes import labelled_people, true_camera

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.dofs import dof_index
from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.bodies.skins import SkelSkins
from skelfit.cli import main
from skelfit.cli.train import stage_at
from skelfit.errors import ConfigError, ModelError, SkelfitError
from skelfit.learning.backbones.vitpose import Backbone
from skelfit.learning.data.data_loader import DataConfig, Loader, each_once
from skelfit.learning.data.person_stream import ALL, SubsetConfig
from skelfit.learning.data.process_group import Team
from skelfit.learning.data.training_batch import Batch
from skelfit.learning.evaluation.validation import validate
from skelfit.learning.networks.skel_cf_network import Estimate, Network, Prediction
from skelfit.learning.training import trainer as trainer_module
from skelfit.learning.training import training_loop as loop_module
from skelfit.learning.training.checkpoint import CheckpointError, latest, load, load_network
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.trainer import Trainer, share_of_peak
from skelfit.learning.training.training_config import (
    NetworkConfig,
    OptimizerConfig,
    TrainConfig,
    ValidationConfig,
    load_train_config,
    ready,
)
from skelfit.learning.training.training_log import read_log
from skelfit.learning.training.training_loop import set_mean, train, validation_people
from skelfit.learning.training.training_stages import Course

TINY = NetworkConfig(backbone="tiny", random=True, dim=16, heads=2, layers=2)
PEOPLE, BATCH, STEPS = 24, 4, 10
HERE = Team(torch.device("cpu"))
YAML = """
name: short
data: {held_out: 0.2, batch_size: 4, workers: 0, shuffle: 4}
network: {backbone: tiny, random: true, dim: 16, heads: 2, layers: 2}
optimizer: {steps: 10, learning_rate: 1e-3, warm_up: 2}
validation: {every: 5}
output: {log: 1, checkpoint: 2, keep: 2}
"""
TIMES = ("samples_per_second", "waiting_share")


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads, and a child of these tests has one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("shards"), PEOPLE, camera=[False] * PEOPLE)


@pytest.fixture(scope="module")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.yaml"
    path.write_text(YAML)
    return path


@pytest.fixture(scope="module")
def whole(shards: Path, config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    result = run(config_file, "--shards", shards, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="module")
def people(models: ModelSet) -> Batch:
    made, _ = labelled_people(models, 4)
    return made._with(lambda t: t.float() if t.is_floating_point() else t)


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["train", *map(str, arguments)], catch_exceptions=False)


def losses(out: Path) -> list[dict[str, Any]]:
    """What the log says, without what a clock says."""
    return [{k: v for k, v in line.items() if k not in TIMES} for line in read_log(out)]


def config_of(shards: Path | str = "", **optimizer: Any) -> TrainConfig:
    data = DataConfig((SubsetConfig(f"{shards}/*.tar"),), batch_size=BATCH, workers=0, shuffle=4)
    settings = {"steps": STEPS, "learning_rate": 1e-3, "warm_up": 0} | optimizer
    return TrainConfig(data=data, network=TINY, optimizer=OptimizerConfig(**settings))


def short(config_file: Path, shards: Path) -> TrainConfig:
    """What the command makes of the file and the folder."""
    config = load_train_config(config_file)
    return replace(config, data=replace(config.data, subsets=(SubsetConfig(f"{shards}/*.tar"),)))


def make(models: ModelSet, **optimizer: Any) -> Trainer:
    torch.manual_seed(1)
    config, body = config_of(**optimizer), SkelKeypoints(models, "male")

    def lesson(network: nn.Module, batch: Batch) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
        return training_loss(prediction, batch, body, config.losses)

    return Trainer(Network(TINY), lesson, config.optimizer, HERE, seed=0)


def rows(batch: Batch, which: slice) -> Batch:
    return replace(batch._with(lambda t: t[which]), keys=batch.keys[which])


def weights(network: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in network.parameters()])


class Silent:
    """Says nothing, and may stop a training."""

    def __init__(self, until: int = 0) -> None:
        self.done, self.until = 0, until

    def step(self, done: int, loss: float) -> None:
        self.done = done

    def say(self, line: str) -> None:
        pass

    def measured(self, done: int, found: dict[str, Any]) -> None:
        pass

    def stop(self) -> bool:
        return self.done == self.until


def test_the_learning_rate_rises_and_falls() -> None:
    config = OptimizerConfig(steps=110, warm_up=10)
    rates = [share_of_peak(step, config) for step in range(111)]
    assert rates[:3] == pytest.approx([1 / 11, 2 / 11, 3 / 11])
    assert rates[10] == 1 and rates[60] == pytest.approx(0.5) and rates[110] == pytest.approx(0)
    assert rates[11:] == sorted(rates[11:], reverse=True)


def test_every_optimizer_has_its_share_of_its_peak(models: ModelSet, people: Batch) -> None:
    trainer = make(models, warm_up=2, muon=0.1)
    assert len(trainer.optimizers) == 2  # the ViT's patches are convolutions
    for step in range(3):
        found = trainer.step([people])
        share = (step + 1) / 3
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([share * 1e-3, share * 0.1])
        assert found["learning_rate"] == pytest.approx(share * 1e-3)


def test_batches_that_accumulate_are_one(models: ModelSet, people: Batch) -> None:
    one, two = make(models), make(models)
    for _ in range(3):
        whole = one.step([people])
        parts = two.step([rows(people, slice(0, 2)), rows(people, slice(2, 4))])
        assert parts == pytest.approx(whole, rel=1e-4)
    # Adam divides by the size of the gradient: where that is all but 0, rounding shows.
    torch.testing.assert_close(weights(two.network), weights(one.network), rtol=0, atol=1e-4)


def test_the_mean_of_the_weights(models: ModelSet, people: Batch) -> None:
    trainer = make(models, ema=0.4)
    seen = []
    for _ in range(3):
        trainer.step([people])
        seen.append(weights(trainer.network))
    expected = seen[0]
    for new, kept in zip(seen[1:], (2 / 11, 3 / 12), strict=True):  # (n + 1) / (n + 10), at most 0.4
        expected = kept * expected + (1 - kept) * new
    torch.testing.assert_close(weights(trainer.best_network), expected)
    trainer.network.mean += 1  # as statistics of batches change
    trainer.step([people])
    assert torch.equal(trainer.best_network.mean, trainer.network.mean)
    assert make(models, ema=0.0).best_network is not None


def test_statistics_of_batches_are_evened_out() -> None:
    team: Any = SimpleNamespace(mean=lambda values: values + 3, part=ALL, device=torch.device("cpu"))
    network = nn.BatchNorm1d(2)
    trainer = Trainer(network, lambda model, batch: (model(batch), {}), OptimizerConfig(), team, seed=0)
    trainer.even_out()
    for module in (trainer.network, trainer.best_network):
        assert module.running_mean.tolist() == [3, 3] and module.running_var.tolist() == [4, 4]
        assert module.num_batches_tracked == 0 and module.weight.tolist() == [1, 1]


def test_the_gradient_is_clipped(models: ModelSet, people: Batch) -> None:
    trainer = make(models, clip=1e-3)
    norms: list[float] = []
    step = trainer.optimizers[0].step

    def spy(*args: Any, **kwargs: Any) -> Any:
        norms.append(float(torch.cat([p.grad.flatten() for p in trainer.network.parameters()]).norm()))
        return step(*args, **kwargs)

    trainer.optimizers[0].step = spy  # type: ignore[method-assign]
    found = trainer.step([people])
    assert found["gradient_norm"] > 0.01 and norms == [pytest.approx(1e-3, rel=1e-2)]


def test_what_is_not_finite_teaches_nothing(
    models: ModelSet, people: Batch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(models)
    trainer.step([people])
    before, mean = weights(trainer.network), weights(trainer.best_network)
    bad = replace(people, betas=people.betas * torch.nan)
    found = trainer.step([people, bad])
    assert found["loss"] != found["loss"] and (trainer.skipped, trainer.steps) == (1, 2)
    assert torch.equal(weights(trainer.network), before)
    assert torch.equal(weights(trainer.best_network), mean)
    trainer.step([people])
    assert not torch.equal(weights(trainer.network), before)
    monkeypatch.setattr(trainer_module, "PATIENCE", 3)
    trainer.step([bad])
    trainer.step([bad])
    with pytest.raises(SkelfitError, match=r"step 5: expected finite losses.*3 steps in a row \(loss nan"):
        trainer.step([bad])


def test_who_is_held_out_is_never_trained_on(shards: Path) -> None:
    data = replace(config_of(shards).data, held_out=0.3)
    held = [key for batch in each_once(data, held_out=True, images=False) for key in batch.keys]
    others = [key for batch in each_once(data, images=False) for key in batch.keys]
    assert len(held) >= 3 and not set(held) & set(others) and len(held + others) == PEOPLE
    loader = Loader(data)
    assert loader.samples == round(0.7 * PEOPLE)
    seen = {key for _ in range(3) for batch in loader for key in batch.keys}
    assert seen <= set(others)
    other = replace(data, held_out=0.2, epoch_samples=loader.samples)
    with pytest.raises(SkelfitError, match="'held_out': expected 0.3"):
        Loader(other).resume(loader.state())


def test_the_network_starts_from_the_mean_of_the_labels(shards: Path) -> None:
    config = config_of(shards)
    network = Network(TINY)
    first = network.mean.clone()
    set_mean(network, config)
    batch = next(iter(each_once(replace(config.data, batch_size=PEOPLE), images=False)))
    pose = angles_to_pose(batch.poses).mean(0).flatten()
    assert torch.equal(network.mean[:6], first[:6]) and torch.equal(network.mean[154:], first[154:])
    # 2000 are 83 passes over 24 people, and some of them once more.
    torch.testing.assert_close(network.mean[6:144], pose[6:], rtol=0, atol=0.02)
    torch.testing.assert_close(network.mean[144:154], batch.betas[~batch.female].mean(0), rtol=0, atol=0.05)


class Knowing(nn.Module):
    """Says what it was told."""

    def __init__(self, poses: torch.Tensor, betas: torch.Tensor, camera: torch.Tensor) -> None:
        super().__init__()
        self.estimate = Estimate(angles_to_pose(poses), betas, camera)
        self.mean = torch.cat((angles_to_pose(poses[0]).flatten(), betas[0], camera[0]))

    def forward(self, image: torch.Tensor, cam_int: torch.Tensor, *_: torch.Tensor) -> Prediction:
        return Prediction(None, (self.estimate,), cam_int)


def test_what_is_measured(models: ModelSet) -> None:
    made, trans = labelled_people(models, 3)
    camera = true_camera(made, trans).float()
    batch = made._with(lambda t: t.float() if t.is_floating_point() else t)
    skins = SkelSkins(models, "male")

    def measured(poses: torch.Tensor, camera: torch.Tensor = camera) -> dict[str, Any]:
        network: Any = Knowing(poses, batch.betas, camera)
        found = validate(network, [batch], skins, HERE)
        assert found is not None
        return found

    true = measured(batch.poses)
    assert true["people"] == 3 and true["pck_0.05"] == true["pck_0.1"] == 1
    assert max(true[name] for name in ("mpjpe_mm", "pa_mpjpe_mm", "pve_mm")) < 0.01
    assert true["mean_pose"]["pa_mpjpe_mm"] > 10  # the first one's pose for all three
    assert true["violations"]["any"] == [0, 0, 0, 0]

    turned = batch.poses.clone()
    turned[:, dof_index("pelvis_rotation")] += 1
    found = measured(turned)
    assert found["pa_mpjpe_mm"] < 0.01 < 100 < found["mpjpe_mm"] and found["pve_mm"] > 50

    bent = batch.poses.clone()
    bent[:2, dof_index("knee_angle_r")] = -0.3  # 17 degrees the wrong way
    assert measured(bent)["violations"]["any"] == pytest.approx([2 / 3, 2 / 3, 0, 0], abs=1e-5)
    assert measured(bent)["violations"]["dofs"]["knee_angle_r"][1] == pytest.approx(2 / 3, abs=1e-5)

    beside = camera + torch.tensor([0.0, 0.07 * 2 / camera[:, 0].mean(), 0.0])  # 0.07 of the crop's side
    near = measured(batch.poses, beside)
    assert near["pck_0.05"] < 0.4 < 0.8 < near["pck_0.1"]


def test_labels_of_both_bodies_are_measured(models: ModelSet) -> None:
    made, _ = labelled_people(models, 3)
    batch = made._with(lambda t: t.float() if t.is_floating_point() else t)
    mixed = replace(batch, female=torch.tensor([True, False, True]))
    skins = SkelSkins(models, "male")
    male, both = (skins.of_either(b.female, b.poses, b.betas) for b in (batch, mixed))
    # Alone or among others: products of matrices differ by rounding on some processors.
    torch.testing.assert_close(male[1], both[1], rtol=0, atol=1e-6)
    assert ((male - both).norm(dim=-1).mean(1) > 1e-3).tolist() == [True, False, True]


def test_a_run_and_its_files(whole: Path, models: ModelSet) -> None:
    lines = losses(whole)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, STEPS + 1))
    assert {"decoder/keypoints3d", "encoder/pose", "refinement", "gradient_norm", "learning_rate"} <= set(
        steps[0]
    )
    assert [line["step"] for line in lines if "validation" in line] == [5, 10]
    assert sorted(p.name for p in (whole / "checkpoints").iterdir()) == [
        "step-00000008.pt",
        "step-00000010.pt",
    ]
    network, config, sha256 = load_network(whole)
    best = load(whole / "best.pt")
    assert best["training"] is None and config.name == "short" and not network.training
    assert sha256 == models.sha256
    last = load(whole / "checkpoints/step-00000010.pt")
    averaged = last["training"]["trainer"]["averaged"]
    assert all(torch.equal(averaged[k], v) for k, v in last["weights"].items())
    assert not torch.equal(
        weights(network),
        torch.cat([v.flatten() for v in last["training"]["trainer"]["network"].values()])[
            : len(weights(network))
        ],
    )
    assert list((whole / "tensorboard").glob("events*"))
    with Image.open(whole / "curve.png") as curve:
        assert curve.width > 500


def test_a_run_that_is_killed_goes_on_as_if_it_had_not_been(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    child = programs.start("-m", "skelfit", "train", config_file, "--shards", shards, "--out", tmp_path)
    limit = time.monotonic() + 200
    while len(losses(tmp_path)) < 6 and child.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    found = run(config_file, "--shards", shards, "--out", tmp_path, "--resume")
    assert found.exit_code == 0 and "going on after step" in found.output
    assert losses(tmp_path) == losses(whole)


def test_a_run_that_is_asked_to_stop_goes_on(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path, models: ModelSet
) -> None:
    config = short(config_file, shards)
    end = train(config, tmp_path, models, HERE, Silent(until=3))
    assert (end.step, end.finished, end.checkpoint.name) == (3, False, "step-00000003.pt")
    end = train(config, tmp_path, models, HERE, Silent(), resume=True)
    assert end.finished and losses(tmp_path) == losses(whole)


@pytest.fixture(scope="module")
def three_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that learns keypoints for four steps, a first estimate for three, and then all for six."""
    path = tmp_path_factory.mktemp("config") / "three.yaml"
    text = YAML.replace("backbone: tiny, random: true", "backbone: keypoint-tiny").replace(
        "steps: 10", "steps: 6"
    )
    text += "keypoints: {steps: 4, learning_rate: 1e-3, muon: 0.01, warm_up: 1}\n"
    path.write_text(text + "coarse: {steps: 3, learning_rate: 1e-3, warm_up: 1, accumulate: 2}\n")
    return path


@pytest.fixture(scope="module")
def keypoints_first(shards: Path, three_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keypoints")
    torch.set_num_threads(1)
    result = run(three_stages, "--shards", shards, "--out", out)
    assert result.exit_code == 0 and "short: 13 steps" in result.output, result.output
    return out


def test_keypoints_are_learnt_first_and_then_stay(keypoints_first: Path) -> None:
    lines = [line for line in losses(keypoints_first) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 14))
    assert ["heatmaps" in line for line in lines] == [True] * 4 + [False] * 9
    assert ["encoder/pose" in line for line in lines] == [False] * 4 + [True] * 9
    assert ["decoder/pose" in line for line in lines] == [False] * 7 + [True] * 6
    measured = [line["step"] for line in losses(keypoints_first) if "validation" in line]
    assert measured == [5, 10, 13]
    weights = load(keypoints_first / "checkpoints/step-00000013.pt")
    eyes = [
        {name: values for name, values in found.items() if name.startswith("backbone.eye.")}
        for found in (weights["weights"], weights["training"]["trainer"]["network"])
    ]
    assert all(torch.equal(eyes[0][name], values) for name, values in eyes[1].items())


def test_each_stage_has_a_bar_of_its_own() -> None:
    config = load_train_config(Path(__file__).parents[2] / "pipelines/train-tiny.yaml")
    assert config.keypoints is not None and config.coarse is not None
    first, second = config.keypoints.steps, config.keypoints.steps + config.coarse.steps
    assert stage_at(1, config) == stage_at(first, config) == ("keypoints", 0, config.keypoints)
    assert stage_at(first + 1, config) == stage_at(second, config) == ("first estimate", first, config.coarse)
    assert stage_at(second + 1, config) == ("network", second, config.optimizer)
    assert stage_at(config.steps, config)[0] == "network"
    assert stage_at(1, config_of()) == ("network", 0, config_of().optimizer)


def test_what_is_measured_is_what_is_kept(
    keypoints_first: Path, shards: Path, three_stages: Path, models: ModelSet
) -> None:
    config = short(three_stages, shards)
    content = load(keypoints_first / "checkpoints/step-00000013.pt")
    network = Network(config.network)
    network.load_state_dict(content["weights"])
    found = validate(network, validation_people(config, HERE, 128), SkelSkins(models, "male"), HERE)
    assert found is not None and found["pve_mm"] == pytest.approx(content["measured"]["pve_mm"], rel=1e-5)
    network.load_state_dict(content["training"]["trainer"]["network"])
    other = validate(network, validation_people(config, HERE, 128), SkelSkins(models, "male"), HERE)
    assert other is not None and abs(other["pve_mm"] - found["pve_mm"]) > 1e-3


@pytest.mark.parametrize("until", [3, 4, 6, 9], ids=["keypoints", "between", "first estimate", "all"])
def test_stages_go_on_where_they_were(
    until: int, shards: Path, three_stages: Path, keypoints_first: Path, tmp_path: Path, models: ModelSet
) -> None:
    config = short(three_stages, shards)
    end = train(config, tmp_path, models, HERE, Silent(until=until))
    assert (end.step, end.finished) == (until, False)
    half = load(end.checkpoint)["weights"]
    end = train(config, tmp_path, models, HERE, Silent(), resume=True)
    assert end.finished and losses(tmp_path) == losses(keypoints_first)
    found, expected = (load_network(out).network.state_dict() for out in (tmp_path, keypoints_first))
    assert all(torch.equal(found[name], values) for name, values in expected.items())
    if until >= 4:  # what was learnt, in the mean, is what the next stage begins with
        eye = {name: values for name, values in half.items() if name.startswith("backbone.eye.")}
        assert len(eye) > 50 and all(torch.equal(found[name], values) for name, values in eye.items())


def torchrun(*arguments: object) -> str:
    """What two processes say that torchrun starts, though neither it nor they start from nothing."""
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", 2, "--no-python"]
    python = shlex.split(programs.shell_words(programs.ROOT))
    code, said, errors = programs.run(*launch, *python, "-m", "skelfit", *arguments)
    assert code == 0, errors
    return said


def test_two_processes_learn_in_three_stages(shards: Path, three_stages: Path, tmp_path: Path) -> None:
    command = ["train", three_stages, "--shards", shards, "--out", tmp_path / "out", "--device", "cpu"]
    torchrun(*command)
    lines = losses(tmp_path / "out")
    assert len([line for line in lines if "loss" in line]) == 13
    measured = [line["validation"] for line in lines if "validation" in line]
    assert [found["people"] for found in measured] == [PEOPLE - sum_of_others(shards, three_stages)] * 3


def sum_of_others(shards: Path, config_file: Path) -> int:
    """How many people are not held out."""
    data = short(config_file, shards).data
    return sum(len(batch) for batch in each_once(data, images=False))


def test_two_processes_are_one_with_twice_the_batch(shards: Path, config_file: Path, tmp_path: Path) -> None:
    """Batches of everybody, so that both ways see the same people in each step."""
    text = config_file.read_text().replace(
        "held_out: 0.2", "held_out: 0, augment: {scale: 0, color: 0, extreme_crop: 0}"
    )
    text = text.replace("steps: 10", "steps: 4")
    text = text.replace("shuffle: 4", "shuffle: 1")
    found = {}
    for processes in (1, 2):
        path, out = tmp_path / f"{processes}.yaml", tmp_path / str(processes)
        path.write_text(text.replace("batch_size: 4", f"batch_size: {PEOPLE // processes}"))
        arguments = ["train", path, "--shards", shards, "--val", shards, "--out", out, "--device", "cpu"]
        if processes == 1:
            assert run(*arguments[1:]).exit_code == 0
        else:
            assert torchrun(*arguments).count("next: skelfit predict") == 1
        found[processes] = losses(out)
    one, two = ([line["loss"] for line in found[k] if "loss" in line] for k in (1, 2))
    assert len(one) == 4 and one[0] != pytest.approx(one[3], rel=1e-3)
    assert two == pytest.approx(one, rel=1e-4)
    one, two = ([line["validation"] for line in found[k] if "validation" in line] for k in (1, 2))
    assert one[0]["people"] == two[0]["people"] == PEOPLE
    assert two[0]["pve_mm"] == pytest.approx(one[0]["pve_mm"], rel=1e-3)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("learning_rate: 1e-3", "learning_rate: 2e-3"), "optimizer.learning_rate: 0.001 against 0.002"),
        (("dim: 16", "dim: 32"), "network.dim: 16 against 32"),
        (("batch_size: 4", "batch_size: 5"), "data.batch_size: 4 against 5"),
    ],
)
def test_another_configuration_does_not_go_on(
    change: tuple[str, str], named: str, shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace(*change))
    found = run(other, "--shards", shards, "--out", whole, "--resume")
    assert found.exit_code == 2 and named in found.output and "step-00000010.pt" in found.output


def test_other_body_models_do_not_go_on(
    shards: Path, config_file: Path, whole: Path, models: ModelSet
) -> None:
    others = replace(models, sha256="0123456789abcdef")
    message = rf"trained with \(sha256 {models.sha256[:12]}\), found others \(sha256 0123456789ab\)"
    with pytest.raises(CheckpointError, match=message):
        train(short(config_file, shards), whole, others, HERE, Silent(), resume=True)


def test_a_training_starts_from_the_weights_of_vitpose(
    shards: Path, config_file: Path, models: ModelSet, tmp_path: Path
) -> None:
    weights = Backbone("tiny").vit.state_dict()
    torch.save(weights, tmp_path / "vitpose.pth")
    config = short(config_file, shards)
    config = replace(
        config,
        network=replace(config.network, checkpoint=str(tmp_path / "vitpose.pth"), random=False),
        optimizer=OptimizerConfig(steps=1, learning_rate=1e-9, warm_up=0),
        validation=ValidationConfig(every=1),
    )
    train(config, tmp_path / "out", models, HERE, Silent())
    (tmp_path / "vitpose.pth").unlink()
    trained = load_network(tmp_path / "out").network.backbone.vit.state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6)
    with pytest.raises(ModelError, match="expected a ViTPose checkpoint .* found no such file"):
        train(config, tmp_path / "another", models, HERE, Silent())


def test_how_often_something_is_written_may_change(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace("keep: 2", "keep: 1").replace("short", "renamed"))
    found = run(other, "--shards", f"{shards}/people-*.tar", "--out", whole, "--resume")
    assert found.exit_code == 0 and "finished already: step 10 of 10" in found.output


def test_what_is_there_stays_there(shards: Path, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    arguments = (config_file, "--shards", shards, "--out", tmp_path, "--steps", 1)
    found = run(*arguments)
    assert found.exit_code == 2 and "holds files already; choose another folder" in found.output
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 3}) + "\n")
    assert run(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [line["step"] for line in read_log(tmp_path)][0] == 1 and read_log(tmp_path)[0]["loss"] != 3


def test_what_the_command_cannot_do(shards: Path, config_file: Path, tmp_path: Path) -> None:
    assert "data.subsets': expected shards" in run(config_file, "--out", tmp_path / "a").output
    both = run(config_file, "--config", config_file, "--out", tmp_path / "a")
    assert both.exit_code == 2 and "give the configuration once" in both.output
    found = run(config_file, "--shards", tmp_path / "none", "--out", tmp_path / "b")
    assert found.exit_code == 2 and "no such file" in found.output
    found = run(config_file, "--shards", shards, "--out", tmp_path / "c", "--resume", "--overwrite")
    assert found.exit_code == 2


class Harmful:
    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return (os.mkdir, ("harm",))


def test_files_that_are_no_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "x.pt"
    with pytest.raises(CheckpointError, match="found no such file"):
        load_network(path)
    with pytest.raises(CheckpointError, match="best.pt"):
        load_network(tmp_path)
    path.write_bytes(b"PK not a zip")
    with pytest.raises(CheckpointError, match="expected a checkpoint of skelfit train"):
        load_network(path)
    torch.save({"a": torch.zeros(1)}, path)
    with pytest.raises(CheckpointError, match="'format': expected skelfit-train-4, found none"):
        load_network(path)
    torch.save({"format": Harmful()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="not read"):
        load_network(path)
    assert not Path("harm").exists() and latest(tmp_path) is None


def test_a_vit_on_random_weights_is_never_trained_unasked(
    shards: Path, config_file: Path, models: ModelSet, tmp_path: Path
) -> None:
    neither = tmp_path / "neither.yaml"
    neither.write_text(config_file.read_text().replace("random: true, ", ""))
    message = "'network.checkpoint': expected the weights of"
    for arguments in ((neither,), ()):
        found = run(*arguments, "--shards", shards, "--out", tmp_path / "out")
        assert found.exit_code == 2 and found.output.count("\n") == 1, found.output
        assert (
            message in found.output and "network.random: true" in found.output and "--vitpose" in found.output
        )
    with pytest.raises(ConfigError, match=message):
        train(short(neither, shards), tmp_path / "out", models, HERE, Silent())
    assert not (tmp_path / "out").exists()
    torch.save(Backbone("tiny").vit.state_dict(), tmp_path / "vitpose.pth")
    given = (
        "--vitpose",
        tmp_path / "vitpose.pth",
        "--shards",
        shards,
        "--out",
        tmp_path / "out",
        "--steps",
        1,
    )
    found = run(config_file, *given)
    assert found.exit_code == 2 and "random: True with tiny" in found.output
    found = run(neither, *given)
    assert found.exit_code == 0, found.output
    assert load_network(tmp_path / "out").config.network.checkpoint == str(tmp_path / "vitpose.pth")


def test_no_shipped_training_has_weights_of_its_own(tmp_path: Path) -> None:
    """What the documentation's commands need besides is said by the files' names alone."""
    pipelines = Path(__file__).parents[2] / "pipelines"
    ready(load_train_config(pipelines / "train-tiny.yaml"), "train-tiny.yaml")
    published = load_train_config(pipelines / "train-skel-cf.yaml")
    with pytest.raises(ConfigError, match="expected the weights of vitpose-h"):
        ready(published, "train-skel-cf.yaml")
    ready(replace(published, network=replace(published.network, checkpoint="vitpose-h.pth")), "")


def test_a_training_that_is_finished_ends_at_once(
    shards: Path, config_file: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither a backbone nor a person is looked at, no weight is read, and nothing is written."""

    def never(*_: object, **__: object) -> Any:
        pytest.fail("this takes time")

    for name in ("Network", "Loader", "each_once", "Log", "Skins"):
        monkeypatch.setattr(loop_module, name, never)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    found = run(config_file, "--shards", shards, "--out", whole, "--resume")
    assert found.exit_code == 0
    assert found.output.count("finished already: step 10 of 10; to go on, raise optimizer.steps") == 1
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


@pytest.fixture(scope="module")
def longer(shards: Path, config_file: Path) -> TrainConfig:
    """The training of `whole`, with 16 steps in place of 10."""
    config = short(config_file, shards)
    return replace(config, optimizer=replace(config.optimizer, steps=16))


@pytest.fixture(scope="module")
def extended(
    whole: Path, longer: TrainConfig, models: ModelSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of that training, which went on after it had ended."""
    out = tmp_path_factory.mktemp("extended") / "out"
    shutil.copytree(whole, out)
    torch.set_num_threads(1)
    assert train(longer, out, models, HERE, Silent(), resume=True).finished
    return out


def test_a_training_is_extended_from_where_it_ended(
    whole: Path, extended: Path, longer: TrainConfig, models: ModelSet
) -> None:
    """One log; and the first step of the extension is that of a trainer with the old end's weights."""
    lines = losses(extended)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert lines[: len(losses(whole))] == losses(whole)
    assert [line["step"] for line in lines if "validation" in line] == [5, 10, 15, 16]
    # The learning rate goes back up, to where the longer schedule has it.
    rates = [line["learning_rate"] for line in steps]
    assert rates[9] == pytest.approx(1e-3 * share_of_peak(9, replace(longer.optimizer, steps=10)))
    assert rates[10:] == pytest.approx([1e-3 * share_of_peak(n, longer.optimizer) for n in range(10, 16)])
    assert rates[9] < rates[10] / 5
    assert load(extended / "checkpoints/step-00000016.pt")["config"]["optimizer"]["steps"] == 16

    end = load(latest(whole))  # type: ignore[arg-type]
    network = Network(longer.network)
    stage = Course(longer, network, models, HERE).all()
    stage.trainer.resume(end["training"]["trainer"])
    stage.loader.resume(end["training"]["loader"])
    found = stage.trainer.step([next(stage.batches())])
    assert {name: steps[10][name] for name in found} == found


@pytest.mark.parametrize("until", [11, 13], ids=["before its first checkpoint", "after it"])
def test_an_extension_that_is_killed_goes_on(
    until: int, whole: Path, extended: Path, longer: TrainConfig, models: ModelSet, tmp_path: Path
) -> None:
    class Killed(Silent):
        def step(self, done: int, loss: float) -> None:
            super().step(done, loss)
            if done == until:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    shutil.copytree(whole, out)
    with pytest.raises(KeyboardInterrupt):
        train(longer, out, models, HERE, Killed(), resume=True)
    assert latest(out).name == f"step-{10 if until == 11 else 12:08d}.pt"  # type: ignore[union-attr]
    assert train(longer, out, models, HERE, Silent(), resume=True).finished
    assert losses(out) == losses(extended)
    one, other = (load(latest(folder))["weights"] for folder in (out, extended))  # type: ignore[arg-type]
    assert all(torch.equal(one[name], values) for name, values in other.items())


def test_the_last_stage_is_extended(
    keypoints_first: Path, shards: Path, three_stages: Path, models: ModelSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(keypoints_first, out)
    other = tmp_path / "other.yaml"
    text = three_stages.read_text()
    other.write_text(text.replace("steps: 6,", "steps: 9,"))
    found = run(other, "--shards", shards, "--out", out, "--resume")
    assert found.exit_code == 0, found.output
    assert (
        "optimizer.steps: 6 before, now 9; the learning rate is that of the longer schedule" in found.output
    )
    steps = [line for line in losses(out) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert ["decoder/pose" in line for line in steps] == [False] * 7 + [True] * 9
    for few, many in (("steps: 4,", "steps: 5,"), ("steps: 3,", "steps: 4,")):
        other.write_text(text.replace(few, many))
        found = run(other, "--shards", shards, "--out", keypoints_first, "--resume")
        stage = "keypoints" if few == "steps: 4," else "coarse"
        assert found.exit_code == 2 and f"{stage}.steps: {few[7]} against {many[7]}" in found.output


def test_a_training_is_neither_shortened_nor_changed_while_it_is_extended(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace("steps: 10", "steps: 9"))
    found = run(other, "--shards", shards, "--out", whole, "--resume")
    message = "expected the configuration as it was (optimizer.steps may be raised), found "
    assert found.exit_code == 2 and f"{message}optimizer.steps: 10 against 9\n" in found.output
    other.write_text(
        config_file.read_text().replace("steps: 10", "steps: 16").replace("warm_up: 2", "warm_up: 3")
    )
    found = run(other, "--shards", shards, "--out", whole, "--resume")
    assert found.exit_code == 2 and "found optimizer.warm_up: 2 against 3\n" in found.output
