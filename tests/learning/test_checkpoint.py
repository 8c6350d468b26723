"""Checkpoints: which training may continue from one, and files that are none."""

from __future__ import annotations

import pickle
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from checkpoint_files import Harmful
from training_runs import (
    CPU,
    SilentObserver,
    log_lines,
    run_train,
    short_config,
)

from skelfit.bodies.model_set import ModelSet
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training.checkpoint import CheckpointError, latest, load, load_network
from skelfit.learning.training.trainer import share_of_peak
from skelfit.learning.training.training_config import (
    TrainConfig,
)
from skelfit.learning.training.training_loop import train
from skelfit.learning.training.training_stages import TrainingStages

pytestmark = pytest.mark.usefixtures("one_thread")


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
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
    with pytest.raises(CheckpointError, match="'format': expected skelfit-train-5, found none"):
        load_network(path)
    torch.save({"format": Harmful()}, path, pickle_module=pickle)
    with pytest.raises(CheckpointError, match="not read"):
        load_network(path)
    assert not Path("harm").exists() and latest(tmp_path) is None


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("config", None, "'config': expected dict, found NoneType"),
        ("weights", [1], "'weights': expected dict, found list"),
        ("models", 7, "'models': expected str, found int"),
        ("weights", {"x": 1}, "'weights': expected those of its network, found Error"),
        ("imported", "yes", r"'imported': expected dict \| None, found str"),
    ],
)
def test_what_only_looks_like_a_checkpoint_is_refused(
    key: str, value: object, message: str, whole: Path, tmp_path: Path
) -> None:
    content = load(whole / "best.pt")
    torch.save(content | {key: value}, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"x.pt: {message}"):
        load_network(tmp_path / "x.pt")
    if content.pop(key, None) is None:
        return
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match=f"'{key}': expected .*, found no such key"):
        load_network(tmp_path / "x.pt")


def test_weights_to_predict_with_are_no_training_to_continue(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    (tmp_path / "checkpoints").mkdir()
    shutil.copy(whole / "best.pt", tmp_path / "checkpoints" / "step-00000010.pt")
    result = run_train(config_file, "--shards", shards, "--out", tmp_path, "--resume")
    assert result.exit_code == 2 and "'training': expected what a training needs" in result.output


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (("learning_rate: 1e-3", "learning_rate: 2e-3"), "optimizer.learning_rate: 0.001 against 0.002"),
        (("head_dim: 8", "head_dim: 4"), "network.head_dim: 8 against 4"),
        (("batch_size: 4", "batch_size: 5"), "data.batch_size: 4 against 5"),
    ],
)
def test_a_changed_configuration_cannot_resume(
    change: tuple[str, str], named: str, shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace(*change))
    result = run_train(other, "--shards", shards, "--out", whole, "--resume")
    assert result.exit_code == 2 and named in result.output and "step-00000010.pt" in result.output


def test_other_body_models_cannot_resume(
    shards: Path, config_file: Path, whole: Path, models: ModelSet
) -> None:
    others = replace(models, sha256="0123456789abcdef")
    message = rf"trained with \(sha256 {models.sha256[:12]}\), found others \(sha256 0123456789ab\)"
    with pytest.raises(CheckpointError, match=message):
        train(short_config(config_file, shards), whole, others, CPU, SilentObserver(), resume=True)


def test_output_options_may_change(shards: Path, config_file: Path, whole: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace("keep: 2", "keep: 1").replace("short", "renamed"))
    result = run_train(other, "--shards", f"{shards}/people-*.tar", "--out", whole, "--resume")
    assert result.exit_code == 0 and "finished already: step 10 of 10" in result.output


def last_checkpoint(out: Path) -> Path:
    path = latest(out)
    assert path is not None
    return path


@pytest.fixture(scope="module")
def longer(shards: Path, config_file: Path) -> TrainConfig:
    """The training of `whole`, with 16 steps in place of 10."""
    config = short_config(config_file, shards)
    return replace(config, optimizer=replace(config.optimizer, steps=16))


@pytest.fixture(scope="module")
def extended(
    whole: Path, longer: TrainConfig, models: ModelSet, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The folder of that training, which went on after it had ended."""
    out = tmp_path_factory.mktemp("extended") / "out"
    shutil.copytree(whole, out)
    torch.set_num_threads(1)
    assert train(longer, out, models, CPU, SilentObserver(), resume=True).finished
    return out


def test_a_training_is_extended_from_where_it_ended(
    whole: Path, extended: Path, longer: TrainConfig, models: ModelSet
) -> None:
    """One log; and the first step of the extension is that of a trainer with the old end's weights."""
    lines = log_lines(extended)
    steps = [line for line in lines if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert lines[: len(log_lines(whole))] == log_lines(whole)
    assert [line["step"] for line in lines if "validation" in line] == [5, 10, 15, 16]
    # The learning rate goes back up, to where the longer schedule has it.
    rates = [line["learning_rate"] for line in steps]
    assert rates[9] == pytest.approx(1e-3 * share_of_peak(9, replace(longer.optimizer, steps=10)))
    assert rates[10:] == pytest.approx([1e-3 * share_of_peak(n, longer.optimizer) for n in range(10, 16)])
    assert rates[9] < rates[10] / 5
    assert load(extended / "checkpoints/step-00000016.pt")["config"]["optimizer"]["steps"] == 16

    end = load(last_checkpoint(whole))
    network = SkelCfNetwork(longer.network)
    stage = TrainingStages(longer, network, models, CPU).all()
    stage.trainer.resume(end["training"]["trainer"])
    stage.loader.resume(end["training"]["loader"])
    terms = stage.trainer.step([next(stage.batches())])
    assert {name: steps[10][name] for name in terms} == terms


@pytest.mark.parametrize("until", [11, 13], ids=["before its first checkpoint", "after it"])
def test_a_killed_extension_resumes(
    until: int, whole: Path, extended: Path, longer: TrainConfig, models: ModelSet, tmp_path: Path
) -> None:
    class Killed(SilentObserver):
        def step(self, done: int, loss: float) -> None:
            super().step(done, loss)
            if done == until:
                raise KeyboardInterrupt

    out = tmp_path / "out"
    shutil.copytree(whole, out)
    with pytest.raises(KeyboardInterrupt):
        train(longer, out, models, CPU, Killed(), resume=True)
    assert last_checkpoint(out).name == f"step-{10 if until == 11 else 12:08d}.pt"
    assert train(longer, out, models, CPU, SilentObserver(), resume=True).finished
    assert log_lines(out) == log_lines(extended)
    one, other = (load(last_checkpoint(folder))["weights"] for folder in (out, extended))
    assert all(torch.equal(one[name], values) for name, values in other.items())


def test_an_extension_changes_nothing_but_the_steps(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.yaml"
    other.write_text(config_file.read_text().replace("steps: 10", "steps: 9"))
    result = run_train(other, "--shards", shards, "--out", whole, "--resume")
    message = "expected the configuration as it was (optimizer.epochs or .steps may be raised), found "
    assert result.exit_code == 2 and f"{message}optimizer.steps: 10 against 9\n" in result.output
    other.write_text(
        config_file.read_text().replace("steps: 10", "steps: 16").replace("warm_up: 2", "warm_up: 3")
    )
    result = run_train(other, "--shards", shards, "--out", whole, "--resume")
    assert result.exit_code == 2 and "found optimizer.warm_up: 2 against 3\n" in result.output
