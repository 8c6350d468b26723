"""The stages of a training: a backbone that begins with nothing learns keypoints first, then all the rest learns."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from typing import Any

from torch import Tensor, nn

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.learning.backbones.heatmaps import heatmap_training_loss
from skelfit.learning.data.backbone_cache import BackboneCache, observe_batches
from skelfit.learning.data.better_labels import BetterLabels, RefinePeople
from skelfit.learning.data.data_loader import Loader, each_once
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.network import Network
from skelfit.learning.training.losses import parameter_loss, training_loss
from skelfit.learning.training.trainer import Trainer
from skelfit.learning.training.training_config import TrainConfig


@dataclass(frozen=True)
class TrainingStage:
    """A stage: the part of the network that learns, and its data."""

    trainer: Trainer[Any]
    loader: Loader
    before: int = 0  # steps of the stages before it
    prefix: str = ""  # of the part's names in the state dict of the whole network
    cache: BackboneCache | None = None  # in place of images
    labels: BetterLabels | None = None  # in place of those of the shards

    @property
    def done(self) -> int:
        """Steps of the training so far."""
        return self.before + self.trainer.steps

    @property
    def finished(self) -> bool:
        """Whether no step is left."""
        return self.trainer.steps >= self.trainer.settings.length

    def batches(self) -> Iterator[TrainingBatch]:
        """Batches from the loader's position on, without end."""
        batches: Iterator[TrainingBatch] = chain.from_iterable(repeat(self.loader))
        if self.labels is not None:
            batches = map(self.labels.better, batches)
        return batches if self.cache is None else map(self.cache.add_to, batches)

    def weights(self, network: Network) -> dict[str, Tensor]:
        """The state dict of the whole network, with what the part has learnt."""
        learnt = self.trainer.best_network.state_dict()
        return network.state_dict() | {self.prefix + name: tensor for name, tensor in learnt.items()}


class TrainingStages:
    """The stages of a training; each is made when the network has the weights of those before it."""

    def __init__(
        self,
        config: TrainConfig,
        network: Network,
        models: ModelSet,
        group: ProcessGroup,
        cache: BackboneCache | None = None,
        refine: RefinePeople | None = None,
    ) -> None:
        """cache: what the network's detector observes, which has learnt already; refine: for config.better_labels.

        Raises ModelError when the models lack the SKEL or its keypoints.
        """
        self.config, self.network, self.group, self._cache = config, network, group, cache
        self.labels: BetterLabels | None = None
        if config.better_labels is not None:
            assert refine is not None
            self.labels = BetterLabels(config.better_labels, config.skel_gender, models, group, refine)
        self.body = SkelKeypoints(models, config.skel_gender, group.device)
        makers = (
            (config.keypoints, self.keypoints),
            (config.coarse, self.coarse),
            (config.optimizer, self.all),
        )
        self.makers = tuple(make for settings, make in makers if settings is not None)

    def keypoints(self) -> TrainingStage:
        """The backbone's detector learns, from images and the heatmaps of their labels."""
        config, detector = self.config, self.network.backbone.detector
        assert detector is not None and config.keypoints is not None
        trainer = Trainer(detector, heatmap_training_loss, config.keypoints, self.group, config.data.seed)
        return TrainingStage(trainer, self._loader(None), prefix="backbone.eye.")

    def coarse(self) -> TrainingStage:
        """All but the detector learns, from cached observations, with the losses of pose and betas alone.

        No body is posed, so steps are cheap.
        """
        config, cache = self.config, self.cache
        assert config.coarse is not None and config.keypoints is not None

        def loss_function(network: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
            crop = batch.cam_int, batch.center, batch.box_size
            prediction = network(batch.image, *crop, batch.observations)
            return parameter_loss(prediction, batch, config.skel_gender, config.losses)

        trainer = Trainer(self.network, loss_function, config.coarse, self.group, config.data.seed)
        return TrainingStage(trainer, self._loader(cache), config.keypoints.length, cache=cache)

    def all(self) -> TrainingStage:
        """All weights learn, but for a detector that has; from images, or from the detector's observations."""
        config = self.config

        def loss_function(network: nn.Module, batch: TrainingBatch) -> tuple[Tensor, dict[str, Tensor]]:
            crop = batch.cam_int, batch.center, batch.box_size
            prediction = network(batch.image, *crop, batch.observations)
            if self.labels is not None:
                self.labels.see(prediction, batch, trainer.steps)
            return training_loss(prediction, batch, self.body, config.losses)

        cache = (
            None if config.keypoints is None else self.cache
        )  # before the trainer: this freezes the detector
        trainer = Trainer(self.network, loss_function, config.optimizer, self.group, config.data.seed)
        before = config.steps - config.optimizer.length
        return TrainingStage(trainer, self._loader(cache), before, cache=cache, labels=self.labels)

    def _loader(self, cache: BackboneCache | None) -> Loader:
        """With images or, of people in the cache, without."""
        if cache is None:
            return Loader(self.config.data, self.group.part, crop=self.network.backbone.crop)
        return Loader(self.config.data, self.group.part, images=False, memory=True, only=cache.rows)

    @property
    def cache(self) -> BackboneCache:
        """What the trained detector observes of all people; it is frozen from then on."""
        backbone = self.network.backbone
        assert backbone.detector is not None
        backbone.detector.requires_grad_(False)
        if self._cache is None:
            people = each_once(self.config.data, self.group.part, crop=backbone.crop)
            observations = list(observe_batches(backbone.eval().observe, people, self.group.device))
            backbone.train()
            self._cache = BackboneCache(self.group.gather(observations))
        return self._cache
