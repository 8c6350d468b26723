"""Configurations of trainings."""

from __future__ import annotations

from pathlib import Path

import pytest

from skelfit.errors import ConfigError
from skelfit.learning.training.training_config import (
    LossConfig,
    load_train_config,
)

PIPELINES = sorted((Path(__file__).parents[2] / "pipelines").glob("train-*.yaml"))


@pytest.mark.parametrize("path", PIPELINES, ids=lambda p: p.stem)
def test_shipped_trainings(path: Path) -> None:
    config = load_train_config(path)
    assert config.name == path.stem
    assert path.stem != "train-skel-cf" or config.losses == LossConfig()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("network: {backbone: resnet}", "'network.backbone': expected one of vitpose-h, "),
        ("network: {kind: hmr}", "'network.kind': expected one of skel-cf, found hmr"),
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
            "network: {backbone: keypoint-tiny, random: true}\nkeypoints: {}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: None, random: True",
        ),
        (
            "network: {backbone: keypoint-tiny, checkpoint: a.pth}\nkeypoints: {}",
            "'network.checkpoint': expected nothing with keypoint-tiny, .*, found checkpoint: a.pth, random: False",
        ),
        ("network: {decoder: 6}", "'network.decoder': expected one of .*, found an unknown key"),
    ],
)
def test_invalid_configurations_are_refused(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "t.yaml").write_text(f"name: t\n{text}\n")
    with pytest.raises(ConfigError, match=message):
        load_train_config(tmp_path / "t.yaml")
