"""A training in three stages: keypoints, pose and betas, then all."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
import torch
from training_runs import (
    CPU,
    PEOPLE,
    SilentObserver,
    log_lines,
    run_train,
    short_config,
    torchrun,
    train_config,
)

from skelfit.bodies.model_set import ModelSet
from skelfit.cli.train import stage_at
from skelfit.learning.data.data_loader import each_once
from skelfit.learning.training.checkpoint import load, load_network
from skelfit.learning.training.training_config import (
    load_train_config,
)
from skelfit.learning.training.training_loop import train

pytestmark = pytest.mark.usefixtures("one_thread")


def test_keypoints_learn_first_and_are_then_frozen(keypoints_first: Path) -> None:
    lines = [line for line in log_lines(keypoints_first) if "loss" in line]
    assert [line["step"] for line in lines] == list(range(1, 14))
    assert ["heatmaps" in line for line in lines] == [True] * 4 + [False] * 9
    assert ["encoder/pose" in line for line in lines] == [False] * 4 + [True] * 9
    assert ["decoder/keypoints3d" in line for line in lines] == [False] * 7 + [True] * 6
    measured = [line["step"] for line in log_lines(keypoints_first) if "validation" in line]
    assert measured == [5, 10, 13]
    weights = load(keypoints_first / "checkpoints/step-00000013.pt")
    detectors = [
        {name: values for name, values in state.items() if name.startswith("backbone.eye.")}
        for state in (weights["weights"], weights["training"]["trainer"]["network"])
    ]
    assert all(torch.equal(detectors[0][name], values) for name, values in detectors[1].items())


def test_each_stage_has_its_own_progress_bar() -> None:
    config = load_train_config(Path(__file__).parents[2] / "pipelines/train-tiny.yaml")
    assert config.keypoints is not None and config.coarse is not None
    first, coarse = config.keypoints.steps, config.coarse.steps
    assert first is not None and coarse is not None
    second = first + coarse
    assert stage_at(1, config) == stage_at(first, config) == ("keypoints", 0, config.keypoints)
    assert stage_at(first + 1, config) == stage_at(second, config) == ("pose and betas", first, config.coarse)
    assert stage_at(second + 1, config) == ("network", second, config.optimizer)
    assert stage_at(config.steps, config)[0] == "network"
    assert stage_at(1, train_config()) == ("network", 0, train_config().optimizer)


@pytest.mark.parametrize("until", [3, 4, 6, 9], ids=["keypoints", "between", "pose and betas", "all"])
def test_each_stage_resumes_exactly(
    until: int, shards: Path, three_stages: Path, keypoints_first: Path, tmp_path: Path, models: ModelSet
) -> None:
    config = short_config(three_stages, shards)
    end = train(config, tmp_path, models, CPU, SilentObserver(until=until))
    assert (end.step, end.finished) == (until, False)
    half = load(end.checkpoint)["weights"]
    end = train(config, tmp_path, models, CPU, SilentObserver(), resume=True)
    assert end.finished and log_lines(tmp_path) == log_lines(keypoints_first)
    resumed, expected = (load_network(out).network.state_dict() for out in (tmp_path, keypoints_first))
    assert all(torch.equal(resumed[name], values) for name, values in expected.items())
    if until >= 4:  # what was learnt, in the mean, is what the next stage begins with
        detector = {name: values for name, values in half.items() if name.startswith("backbone.eye.")}
        assert len(detector) > 50 and all(
            torch.equal(resumed[name], values) for name, values in detector.items()
        )


def sum_of_others(shards: Path, config_file: Path) -> int:
    """How many people are not held out."""
    data = short_config(config_file, shards).data
    return sum(len(batch) for batch in each_once(data, images=False))


@pytest.mark.soak
def test_two_processes_learn_in_three_stages(shards: Path, three_stages: Path, tmp_path: Path) -> None:
    command = ["train", three_stages, "--shards", shards, "--out", tmp_path / "out", "--device", "cpu"]
    torchrun(*command)
    lines = log_lines(tmp_path / "out")
    assert len([line for line in lines if "loss" in line]) == 13
    measured = [line["validation"] for line in lines if "validation" in line]
    assert [figures["people"] for figures in measured] == [PEOPLE - sum_of_others(shards, three_stages)] * 3


def test_the_last_stage_is_extended(
    keypoints_first: Path, shards: Path, three_stages: Path, models: ModelSet, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    shutil.copytree(keypoints_first, out)
    other = tmp_path / "other.yaml"
    text = three_stages.read_text()
    other.write_text(text.replace("steps: 6,", "steps: 9,"))
    result = run_train(other, "--shards", shards, "--out", out, "--resume")
    assert result.exit_code == 0, result.output
    assert (
        "optimizer.steps: 6 before, now 9; the learning rate is that of the longer schedule" in result.output
    )
    steps = [line for line in log_lines(out) if "loss" in line]
    assert [line["step"] for line in steps] == list(range(1, 17))
    assert ["decoder/keypoints3d" in line for line in steps] == [False] * 7 + [True] * 9
    for few, many in (("steps: 4,", "steps: 5,"), ("steps: 3,", "steps: 4,")):
        other.write_text(text.replace(few, many))
        result = run_train(other, "--shards", shards, "--out", keypoints_first, "--resume")
        stage = "keypoints" if few == "steps: 4," else "coarse"
        assert result.exit_code == 2 and f"{stage}.steps: {few[7]} against {many[7]}" in result.output
