"""What tests of learning share: made-up people, shards, trained networks."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from prediction_runs import TINY_VIT as PREDICTED_VIT
from train_fakes import labelled_people
from train_shards import write_people
from training_runs import PEOPLE, SHORT_TRAINING, run_train

from skelfit.bodies.model_set import ModelSet
from skelfit.labels.demo_people import write_demo
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.inference.predictor import Predictor
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training import checkpoint
from skelfit.learning.training.training_config import (
    TrainConfig,
)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Sums of floats depend on the number of threads, and a child of these tests has one."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("shards"), PEOPLE, camera=[False] * PEOPLE)


@pytest.fixture(scope="session")
def config_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "short.yaml"
    path.write_text(SHORT_TRAINING)
    return path


@pytest.fixture(scope="session")
def whole(shards: Path, config_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a training that nothing interrupted."""
    out = tmp_path_factory.mktemp("whole")
    torch.set_num_threads(1)
    result = run_train(config_file, "--shards", shards, "--out", out)
    assert result.exit_code == 0, result.output
    return out


@pytest.fixture(scope="session")
def three_stages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A training that learns keypoints for four steps, a first estimate for three, and then all for six."""
    path = tmp_path_factory.mktemp("config") / "three.yaml"
    text = SHORT_TRAINING.replace("backbone: tiny, random: true", "backbone: keypoint-tiny").replace(
        "steps: 10", "steps: 6"
    )
    text += "keypoints: {steps: 4, learning_rate: 1e-3, muon: 0.01, warm_up: 1}\n"
    path.write_text(text + "coarse: {steps: 3, learning_rate: 1e-3, warm_up: 1, accumulate: 2}\n")
    return path


@pytest.fixture(scope="session")
def keypoints_first(shards: Path, three_stages: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("keypoints")
    torch.set_num_threads(1)
    result = run_train(three_stages, "--shards", shards, "--out", out)
    assert result.exit_code == 0 and "short: 13 steps" in result.output, result.output
    return out


@pytest.fixture(scope="session")
def network() -> SkelCfNetwork:
    """A random network whose poses do not depend on the camera; only the translation does."""
    torch.manual_seed(0)
    made = SkelCfNetwork(PREDICTED_VIT)
    weights = made.state_dict()
    for part in ("pose", "betas", "cam"):
        weights[f"decoder.to_{part}_embedding.weight"][:, -3:] = 0
    weights["decoder.poses_decoder.2.weight"].mul_(2)  # as if it had learnt something
    return made.eval()


@pytest.fixture(scope="session")
def trained(network: SkelCfNetwork, models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = TrainConfig(
        "fake", data=DataConfig((SubsetConfig("none.tar"),), held_out=0.5), network=PREDICTED_VIT
    )
    path = tmp_path_factory.mktemp("run") / checkpoint.BEST_NAME
    content = {"step": 1, "config": asdict(config), "measured": None, "training": None}
    checkpoint.save(path, {**content, "models": models.sha256, "weights": network.state_dict()})
    return path


@pytest.fixture(scope="session")
def photos(models: ModelSet, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two photos, of 256 px."""
    folder = tmp_path_factory.mktemp("demo")
    write_demo(folder, 2, models=models)
    return folder / "images"


@pytest.fixture(scope="session")
def predictor(network: SkelCfNetwork, models: ModelSet) -> Predictor:
    return Predictor(network, models, "male")


@pytest.fixture(scope="session")
def batch(models: ModelSet) -> TrainingBatch:
    made, _ = labelled_people(models, 3)
    return made._with(lambda t: t.float() if t.is_floating_point() else t)
