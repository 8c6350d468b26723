"""The training loop and its command: files, resuming, several processes, refusals."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import programs
import pytest
import torch
from PIL import Image
from training_runs import (
    CPU,
    PEOPLE,
    STEPS,
    TINY_VIT,
    SilentObserver,
    flat_weights,
    log_lines,
    run_train,
    short_config,
    torchrun,
    train_config,
)

from skelfit.bodies.continuous_pose import angles_to_pose
from skelfit.bodies.model_set import ModelSet
from skelfit.errors import ConfigError, SkelfitError
from skelfit.learning.backbones.vitpose import VitPose
from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.networks.network import first_start
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training import training_loop as loop_module
from skelfit.learning.training.checkpoint import CheckpointError, load, load_network
from skelfit.learning.training.training_config import (
    OptimizerConfig,
    ValidationConfig,
    load_train_config,
    ready,
)
from skelfit.learning.training.training_log import read_log
from skelfit.learning.training.training_loop import set_mean, train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_held_out_people_are_never_trained_on(shards: Path) -> None:
    data = replace(train_config(shards).data, held_out=0.3)
    held = [key for batch in each_once(data, held_out=True, images=False) for key in batch.keys]
    others = [key for batch in each_once(data, images=False) for key in batch.keys]
    assert len(held) >= 3 and not set(held) & set(others) and len(held + others) == PEOPLE
    loader = Loader(data)
    assert loader.samples == round(0.7 * PEOPLE)
    keys = {key for _ in range(3) for batch in loader for key in batch.keys}
    assert keys <= set(others)
    other = replace(data, held_out=0.2, epoch_samples=loader.samples)
    with pytest.raises(SkelfitError, match="'held_out': expected 0.3"):
        Loader(other).resume(loader.state())


def test_the_network_starts_from_the_mean_of_the_labels(shards: Path) -> None:
    config = train_config(shards)
    network = SkelCfNetwork(TINY_VIT)
    first = first_start()
    set_mean(network, config)
    batch = next(iter(each_once(replace(config.data, batch_size=PEOPLE), images=False)))
    pose, start = angles_to_pose(batch.poses).mean(0), network.start
    assert torch.equal(start.pose[0, 0], first[0][0, :6]) and torch.equal(start.camera, first[2])
    # 2000 are 83 passes over 24 people, and some of them once more.
    torch.testing.assert_close(start.pose[0, 1:], pose[1:], rtol=0, atol=0.02)
    torch.testing.assert_close(start.betas[0], batch.betas[~batch.female].mean(0), rtol=0, atol=0.05)


def test_the_files_of_a_training(whole: Path, models: ModelSet) -> None:
    lines = log_lines(whole)
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
        flat_weights(network),
        torch.cat([v.flatten() for v in last["training"]["trainer"]["network"].values()])[
            : len(flat_weights(network))
        ],
    )
    assert list((whole / "tensorboard").glob("events*"))
    with Image.open(whole / "curve.png") as curve:
        assert curve.width > 500


def test_a_killed_training_resumes_exactly(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path
) -> None:
    child = programs.start("-m", "skelfit", "train", config_file, "--shards", shards, "--out", tmp_path)
    limit = time.monotonic() + 200
    while len(log_lines(tmp_path)) < 6 and child.poll() is None and time.monotonic() < limit:
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    _, errors = child.communicate()
    assert child.returncode == -signal.SIGKILL, errors
    result = run_train(config_file, "--shards", shards, "--out", tmp_path, "--resume")
    assert result.exit_code == 0 and "going on after step" in result.output
    assert log_lines(tmp_path) == log_lines(whole)


def test_a_stopped_training_resumes_exactly(
    shards: Path, config_file: Path, whole: Path, tmp_path: Path, models: ModelSet
) -> None:
    config = short_config(config_file, shards)
    end = train(config, tmp_path, models, CPU, SilentObserver(until=3))
    assert (end.step, end.finished, end.checkpoint.name) == (3, False, "step-00000003.pt")
    end = train(config, tmp_path, models, CPU, SilentObserver(), resume=True)
    assert end.finished and log_lines(tmp_path) == log_lines(whole)


def test_two_processes_equal_one_with_twice_the_batch(
    shards: Path, config_file: Path, tmp_path: Path
) -> None:
    """Batches of all people, so both runs see the same people in each step."""
    text = config_file.read_text().replace(
        "held_out: 0.2", "held_out: 0, augment: {scale: 0, color: 0, extreme_crop: 0}"
    )
    text = text.replace("steps: 10", "steps: 4")
    text = text.replace("shuffle: 4", "shuffle: 1")
    lines = {}
    for processes in (1, 2):
        path, out = tmp_path / f"{processes}.yaml", tmp_path / str(processes)
        path.write_text(text.replace("batch_size: 4", f"batch_size: {PEOPLE // processes}"))
        arguments = ["train", path, "--shards", shards, "--val", shards, "--out", out, "--device", "cpu"]
        if processes == 1:
            assert run_train(*arguments[1:]).exit_code == 0
        else:
            assert torchrun(*arguments).count("next: skelfit predict") == 1
        lines[processes] = log_lines(out)
    one, two = ([line["loss"] for line in lines[k] if "loss" in line] for k in (1, 2))
    assert len(one) == 4 and one[0] != pytest.approx(one[3], rel=1e-3)
    assert two == pytest.approx(one, rel=1e-4)
    one, two = ([line["validation"] for line in lines[k] if "validation" in line] for k in (1, 2))
    assert one[0]["people"] == two[0]["people"] == PEOPLE
    assert two[0]["pve_mm"] == pytest.approx(one[0]["pve_mm"], rel=1e-3)


def test_a_training_starts_from_the_weights_of_vitpose(
    shards: Path, config_file: Path, models: ModelSet, tmp_path: Path
) -> None:
    weights = VitPose("tiny").state_dict()
    torch.save(weights, tmp_path / "vitpose.pth")
    config = short_config(config_file, shards)
    config = replace(
        config,
        network=replace(config.network, checkpoint=str(tmp_path / "vitpose.pth"), random=False),
        optimizer=OptimizerConfig(steps=1, learning_rate=1e-9, warm_up=0),
        validation=ValidationConfig(every=1),
    )
    train(config, tmp_path / "out", models, CPU, SilentObserver())
    (tmp_path / "vitpose.pth").unlink()
    backbone = load_network(tmp_path / "out").network.backbone
    assert isinstance(backbone, VitPose)
    trained = backbone.state_dict()
    for name, tensor in weights.items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=1e-6)
    with pytest.raises(CheckpointError, match="expected weights to start with, found no such file"):
        train(config, tmp_path / "another", models, CPU, SilentObserver())


def test_a_folder_with_files_is_refused(shards: Path, config_file: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    arguments = (config_file, "--shards", shards, "--out", tmp_path, "--steps", 1)
    result = run_train(*arguments)
    assert result.exit_code == 2 and "holds files already; choose another folder" in result.output
    (tmp_path / "log.jsonl").write_text(json.dumps({"step": 1, "loss": 3}) + "\n")
    assert run_train(*arguments, "--overwrite").exit_code == 0
    assert (tmp_path / "thesis.txt").read_text() == "mine"
    assert [line["step"] for line in read_log(tmp_path)][0] == 1 and read_log(tmp_path)[0]["loss"] != 3


@pytest.mark.parametrize("lacking", ["shards", "weights"])
def test_a_training_is_removed_only_for_one_that_begins(
    lacking: str, whole: Path, shards: Path, config_file: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(whole, out)
    before = sorted(out.rglob("*"))
    options = {"shards": ("--shards", tmp_path / "typo"), "weights": ("--shards", shards)}[lacking]
    if lacking == "weights":
        text = config_file.read_text().replace("random: true", f"checkpoint: {tmp_path}/typo.pth")
        config_file = tmp_path / "start.yaml"
        config_file.write_text(text)
    result = run_train(config_file, *options, "--out", out, "--overwrite")
    assert result.exit_code == 2 and "typo" in result.output and sorted(out.rglob("*")) == before
    assert run_train(config_file, *options, "--out", tmp_path / "new").exit_code == 2
    assert not (tmp_path / "new").exists()


def test_invalid_commands_are_refused(shards: Path, config_file: Path, tmp_path: Path) -> None:
    assert "data.subsets': expected shards" in run_train(config_file, "--out", tmp_path / "a").output
    both = run_train(config_file, "--config", config_file, "--out", tmp_path / "a")
    assert both.exit_code == 2 and "give the configuration once" in both.output
    result = run_train(config_file, "--shards", tmp_path / "none", "--out", tmp_path / "b")
    assert result.exit_code == 2 and "no such file" in result.output
    result = run_train(config_file, "--shards", shards, "--out", tmp_path / "c", "--resume", "--overwrite")
    assert result.exit_code == 2


def test_random_weights_have_to_be_asked_for(
    shards: Path, config_file: Path, models: ModelSet, tmp_path: Path
) -> None:
    neither = tmp_path / "neither.yaml"
    neither.write_text(config_file.read_text().replace("random: true, ", ""))
    message = "'network.checkpoint': expected the weights of"
    for arguments in ((neither,), ()):
        result = run_train(*arguments, "--shards", shards, "--out", tmp_path / "out")
        assert result.exit_code == 2 and result.output.count("\n") == 1, result.output
        assert (
            message in result.output
            and "network.random: true" in result.output
            and "--checkpoint" in result.output
        )
    with pytest.raises(ConfigError, match=message):
        train(short_config(neither, shards), tmp_path / "out", models, CPU, SilentObserver())
    assert not (tmp_path / "out").exists()
    torch.save(VitPose("tiny").state_dict(), tmp_path / "vitpose.pth")
    given = (
        "--checkpoint",
        tmp_path / "vitpose.pth",
        "--shards",
        shards,
        "--out",
        tmp_path / "out",
        "--steps",
        1,
    )
    result = run_train(config_file, *given)
    assert result.exit_code == 2 and "random: True with tiny" in result.output
    result = run_train(neither, *given)
    assert result.exit_code == 0, result.output
    assert load_network(tmp_path / "out").config.network.checkpoint == str(tmp_path / "vitpose.pth")


def test_shipped_trainings_name_no_weights(tmp_path: Path) -> None:
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

    for name in ("make_network", "Loader", "each_once", "TrainingLog", "SkelSkins"):
        monkeypatch.setattr(loop_module, name, never)
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    result = run_train(config_file, "--shards", shards, "--out", whole, "--resume")
    assert result.exit_code == 0
    assert result.output.count("finished already: step 10 of 10; to go on, raise optimizer.steps") == 1
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_a_training_in_epochs_is_extended(shards: Path, models: ModelSet, tmp_path: Path) -> None:
    """Two epochs, which end at once when they are asked for again, then a third; labels left out are counted."""
    path, out = tmp_path / "epochs.yaml", tmp_path / "out"
    path.write_text(
        f"""
name: epochs
data: {{batch_size: 5, workers: 0, shuffle: 4, supervision: {{min_confidence: 1, max_abs_beta: 0.01}}}}
network: {{backbone: tiny, random: true, heads: 2, head_dim: 8, layers: 2}}
optimizer: {{epochs: 2, warm_up_epochs: 0.5, accumulate: 2, learning_rate: 1e-3}}
validation: {{subsets: [{{shards: "{shards}/*.tar"}}], every: 100}}
output: {{log: 1}}
"""
    )
    arguments = (path, "--shards", shards, "--out", out, "--resume")
    result = run_train(*arguments)
    assert f"an epoch: {PEOPLE} people, 4 batches" in result.output, result.output
    assert "epochs: 4 steps on cpu" in result.output
    steps = [line for line in read_log(out) if "loss" in line]
    assert [line["learning_rate"] for line in steps] == [1e-3] * 4  # half an epoch of two steps is one
    for line in steps:
        assert line["left_out"]["of_people"] == 10 and line["left_out"]["poses"] == 10
        assert line["left_out"]["betas"] == 10 and line["decoder/pose"] == 0 < line["decoder/keypoints3d"]
    again = run_train(*arguments)
    assert "finished already: step 4 of 4; to go on, raise optimizer.epochs" in again.output
    longer = run_train(*arguments, "--epochs", 3)
    assert longer.exit_code == 0 and "optimizer.epochs: 2 before, now 3" in longer.output, longer.output
    assert [line["step"] for line in read_log(out) if "loss" in line] == [1, 2, 3, 4, 5, 6]
    for fewer in (("--epochs", 2), ("--steps", 9)):
        assert run_train(*arguments, *fewer).exit_code == 2, "neither shorter nor in another unit"
    assert "give one length" in run_train(*arguments, "--epochs", 4, "--steps", 9).output
