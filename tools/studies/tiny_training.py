"""What the studies of trainings share: made-up shards, and the detector of the tiny network, which learns once."""

from __future__ import annotations

from pathlib import Path

import torch

from skelfit.api.convert_dataset import convert
from skelfit.errors import SkelfitError
from skelfit.labels.demo_people import write_demo
from skelfit.learning.networks.network import Network
from skelfit.learning.training.checkpoint import load_network
from skelfit.learning.training.training_stages import TrainingStage, TrainingStages
from tools.studies.setup import Setup

BASE = "train-tiny"


def make_shards(setup: Setup, folder: Path) -> str:
    """Shards of the demo's people, fitted here."""
    setup.say(f"making {setup.people} people, and fitting them")
    labels = write_demo(folder / "demo", setup.people, models=setup.models)
    convert(
        folder / "shards", labels=labels, images=folder / "demo" / "images", device=setup.device, workers=0
    )
    return str(folder / "shards")


def learn(stage: TrainingStage, network: Network) -> dict[str, torch.Tensor]:
    """All steps of a stage; returns the weights of the whole network."""
    stream = stage.batches()
    while not stage.finished:
        batches = [
            next(stream).to(stage.trainer.group.device) for _ in range(stage.trainer.settings.accumulate)
        ]
        stage.trainer.step(batches)
    return stage.weights(network)


def detector_of(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of the detector. Raises SkelfitError where there are none."""
    found = {name: values for name, values in weights.items() if name.startswith("backbone.eye.")}
    if not found:
        raise SkelfitError(f"--trained: expected a training of {BASE}, found one without its detector")
    return found


def with_detector(setup: Setup, stages: TrainingStages, network: Network) -> dict[str, torch.Tensor]:
    """The weights of a network whose detector has learnt: here, or in the training of `--trained`."""
    if setup.trained is not None:
        return network.state_dict() | detector_of(load_network(setup.trained).network.state_dict())
    stage = stages.keypoints()
    setup.say(f"the detector learns for {stage.trainer.settings.length} steps")
    return learn(stage, network)
