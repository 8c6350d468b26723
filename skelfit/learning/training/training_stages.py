"""What is learnt, one after the other: keypoints, by a backbone that begins with nothing; then all the rest."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, repeat
from typing import Any

import torch
from torch import Tensor, nn

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.backbones.heatmaps import heatmap_lesson
from skelfit.learning.backbones.keypoint_cnn import KeypointBackbone
from skelfit.learning.data.backbone_cache import Findings, look
from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.data.process_group import Team
from skelfit.learning.data.training_batch import Batch
from skelfit.learning.networks.skel_cf_network import Network, estimate_of
from skelfit.learning.training.losses import parameter_terms, training_loss
from skelfit.learning.training.trainer import Trainer
from skelfit.learning.training.training_config import TrainConfig


@dataclass(frozen=True)
class Stage:
    """A part of a training: what learns, and from whom."""

    trainer: Trainer[Any]
    loader: Loader
    before: int = 0  # steps of the stages before it
    prefix: str = ""  # of the names of what learns in the whole network, which may be all of it
    findings: Findings | None = None  # in place of images

    @property
    def done(self) -> int:
        """Steps of the training so far."""
        return self.before + self.trainer.steps

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.trainer.steps >= self.trainer.settings.steps

    def batches(self) -> Iterator[Batch]:
        """From where the loader is, without end."""
        batches = chain.from_iterable(repeat(self.loader))
        return batches if self.findings is None else map(self.findings.beside, batches)

    def weights(self, network: Network) -> dict[str, Tensor]:
        """Those of the whole network, with what has been learnt."""
        learnt = self.trainer.best_network.state_dict()
        return network.state_dict() | {self.prefix + name: values for name, values in learnt.items()}


class Course:
    """The stages of a training, each to be made when the network has learnt what those before it teach."""

    def __init__(self, config: TrainConfig, network: Network, models: ModelSet, team: Team) -> None:
        """Raises ModelError when the models lack the SKEL or its keypoints."""
        self.config, self.network, self.team = config, network, team
        self.body = SkelKeypoints(models, config.skel_gender, team.device)
        parts = (config.keypoints, self.keypoints), (config.coarse, self.coarse), (config.optimizer, self.all)
        self.stages = tuple(make for settings, make in parts if settings is not None)

    def keypoints(self) -> Stage:
        """The eye of a backbone learns, from images and the heatmaps of their labels."""
        backbone, config = self.network.backbone, self.config
        assert isinstance(backbone, KeypointBackbone) and config.keypoints is not None
        trainer = Trainer(backbone.eye, heatmap_lesson, config.keypoints, self.team, config.data.seed)
        return Stage(trainer, self._loader(None), prefix="backbone.eye.")

    def coarse(self) -> Stage:
        """The first estimate learns, from what the eye finds and by parameters alone."""
        config, network = self.config, self.network
        assert config.coarse is not None and config.keypoints is not None

        def lesson(encoder: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            assert batch.found is not None
            _, place = network.camera(batch.cam_int, batch.center, batch.box_size)
            coarse = network.coarse(encoder, network.backbone.describe(batch.found), place)
            terms = parameter_terms(estimate_of(coarse), batch, config.skel_gender)
            loss = torch.stack([getattr(config.losses, name) * value for name, value in terms.items()]).sum()
            return loss, {f"encoder/{name}": value for name, value in terms.items()}

        trainer = Trainer(network.encoder, lesson, config.coarse, self.team, config.data.seed)
        return Stage(trainer, self._loader(self.findings), config.keypoints.steps, "encoder.", self.findings)

    def all(self) -> Stage:
        """Everything learns but an eye that has, from images or from what it finds in them."""
        config = self.config

        def lesson(model: nn.Module, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
            place = batch.cam_int, batch.center, batch.box_size
            prediction = model(batch.image, *place, batch.found)
            return training_loss(prediction, batch, self.body, config.losses)

        findings = None if config.keypoints is None else self.findings  # first: the eye learns no more then
        trainer = Trainer(self.network, lesson, config.optimizer, self.team, config.data.seed)
        before = config.steps - config.optimizer.steps
        return Stage(trainer, self._loader(findings), before, findings=findings)

    def _loader(self, findings: Findings | None) -> Loader:
        """Of images or, where they have been looked at, of labels."""
        if findings is None:
            return Loader(self.config.data, self.team.part, crop=self.network.backbone.crop)
        return Loader(self.config.data, self.team.part, images=False, memory=True, only=findings.rows)

    @cached_property
    def findings(self) -> Findings:
        """What an eye that has learnt finds of everyone; it stays as it is from then on."""
        backbone = self.network.backbone
        assert isinstance(backbone, KeypointBackbone)
        backbone.eye.requires_grad_(False)
        everyone = each_once(self.config.data, self.team.part, crop=backbone.crop)
        found = list(look(backbone.eval().find, everyone, self.team.device))
        backbone.train()
        return Findings(self.team.gather(found))
