"""Configurations of trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from skelfit.errors import ConfigError
from skelfit.learning.training.training_config import (
    LossConfig,
    OptimizerConfig,
    TrainConfig,
    load_train_config,
)

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("train-*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_shipped_trainings(path: Path) -> None:
    config = load_train_config(path)
    assert config.name == path.stem
    assert path.stem != "train-skel-cf" or config.losses == LossConfig()


def test_lengths_in_epochs_become_steps() -> None:
    """The batches of an epoch are those of a process; a step may take several."""
    stage = OptimizerConfig(epochs=3, warm_up_epochs=0.5, accumulate=4)
    assert stage.in_steps(103) == OptimizerConfig(steps=75, warm_up=12, accumulate=4)  # 25 steps each
    assert stage.in_steps(2).length == 3  # an epoch is at least a step
    same = OptimizerConfig(steps=7, warm_up=2)
    assert same.in_steps(100) == same
    config = replace(TrainConfig(), keypoints=OptimizerConfig(epochs=2), coarse=same).in_steps(10)
    assert config.steps == 20 + 7 + 300 and list(config.stages) == ["keypoints", "coarse", "optimizer"]


def test_defaults_are_those_of_skel_cf() -> None:
    """Of its scripts: 30 epochs at 1e-5, one of them to warm up, a running mean of 0.9995."""
    stage = TrainConfig().optimizer
    assert (stage.epochs, stage.warm_up_epochs, stage.learning_rate) == (30, 1, 1e-5)
    assert (stage.schedule, stage.ema, stage.ema_ramp, stage.clip) == ("constant", 0.9995, 6000, 1.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {backbone: resnet}", "'network.backbone': expected one of vitpose-h, "),
        ("network: {kind: hmr}", "'network.kind': expected one of skel-cf, hsmr, found hmr"),
        ("losses: {pose: -1}", "'losses.pose': expected at least 0, found -1"),
        (
            "keypoints: {steps: 3}",
            "'keypoints': expected how .*keypoint-tiny learns them, .* found that with vitpose-h",
        ),
        (
            "network: {backbone: keypoint-tiny}",
            "'keypoints': expected how .*, found nothing with keypoint-tiny",
        ),
        (
            "coarse: {steps: 3}",
            "'coarse': expected nothing but with network.backbone: keypoint-tiny, found vitpose-h",
        ),
        (
            "network: {checkpoint: a.pth, random: true}",
            "'network.checkpoint': expected .*checkpoint or random, found checkpoint: a.pth, random: True with vit",
        ),
        (
            "network: {backbone: keypoint-tiny, random: true}\nkeypoints: {steps: 1}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: None, random: True",
        ),
        (
            "network: {backbone: keypoint-tiny, checkpoint: a.pth}\nkeypoints: {steps: 1}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: a.pth, random: False",
        ),
        (
            "optimizer: {learning_rate: 1}",
            "'optimizer.epochs': expected either that or optimizer.steps, found neither",
        ),
        ("optimizer: {steps: 3, epochs: 1}", "'optimizer.epochs': expected either .*steps, found both"),
        (
            "optimizer: {steps: 3, warm_up: 1, warm_up_epochs: 0.5}",
            "'optimizer.warm_up': expected either that or optimizer.warm_up_epochs, found both",
        ),
        (
            "network: {kind: hsmr}",
            "'losses.refinement': expected 0, and no .*, with network.kind: hsmr, which has one .*, found 0.1, False",
        ),
        (
            "network: {kind: hsmr}\nlosses: {refinement: 0, full_supervision: true}",
            "'losses.refinement': expected 0, and .* found 0, True",
        ),
        ("network: {decoder: 6}", "'network.decoder': expected one of .*, found an unknown key"),
    ],
)
def test_invalid_configurations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(f"name: t\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_train_config(tmp_path / "t.yaml")
