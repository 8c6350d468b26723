"""One step of a training: learning rates, accumulation, running means, clipping, losses that are not finite."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from train_fakes import labelled_people
from training_runs import (
    CPU,
    TINY_VIT,
    flat_weights,
    train_config,
)

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.posed_keypoints import SkelKeypoints
from skelfit.errors import SkelfitError
from skelfit.learning.data.person_stream import ALL
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.networks.skel_cf_network import SkelCfNetwork
from skelfit.learning.training import trainer as trainer_module
from skelfit.learning.training.losses import training_loss
from skelfit.learning.training.trainer import Trainer, share_of_peak
from skelfit.learning.training.training_config import (
    OptimizerConfig,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def people(models: ModelSet) -> TrainingBatch:
    made, _ = labelled_people(models, 4)
    return made._with(lambda t: t.float() if t.is_floating_point() else t)


def make(models: ModelSet, **optimizer: Any) -> Trainer[SkelCfNetwork]:
    torch.manual_seed(1)
    config, body = train_config(**optimizer), SkelKeypoints(models, "male")

    def loss_function(
        network: nn.Module, batch: TrainingBatch
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        prediction = network(batch.image, batch.cam_int, batch.center, batch.box_size)
        return training_loss(prediction, batch, body, config.losses)

    return Trainer(SkelCfNetwork(TINY_VIT), loss_function, config.optimizer, CPU, seed=0)


def rows(batch: TrainingBatch, which: slice) -> TrainingBatch:
    return replace(batch._with(lambda t: t[which]), keys=batch.keys[which])


def test_the_learning_rate_rises_and_stays_or_falls() -> None:
    config = OptimizerConfig(steps=110, warm_up=10, schedule="cosine")
    rates = [share_of_peak(step, config) for step in range(111)]
    assert rates[:3] == pytest.approx([0.1, 0.2, 0.3]) and rates[9:11] == [1, 1]
    assert rates[60] == pytest.approx(0.5) and rates[110] == pytest.approx(0)
    assert rates[11:] == sorted(rates[11:], reverse=True)
    constant = [share_of_peak(step, replace(config, schedule="constant")) for step in range(111)]
    assert constant[:10] == rates[:10] and set(constant[9:]) == {1.0}


def test_each_optimizer_follows_its_own_peak(models: ModelSet, people: TrainingBatch) -> None:
    trainer = make(models, warm_up=2, muon=0.1)
    assert len(trainer.optimizers) == 2  # the ViT's patches are convolutions
    for step in range(3):
        terms = trainer.step([people])
        share = min(1.0, (step + 1) / 2)
        rates = [group["lr"] for optimizer in trainer.optimizers for group in optimizer.param_groups]
        assert rates == pytest.approx([share * 1e-3, share * 0.1])
        assert terms["learning_rate"] == pytest.approx(share * 1e-3)


def test_accumulated_batches_equal_one_batch(models: ModelSet, people: TrainingBatch) -> None:
    one, two = make(models), make(models)
    for _ in range(3):
        whole = one.step([people])
        parts = two.step([rows(people, slice(0, 2)), rows(people, slice(2, 4))])
        assert parts == pytest.approx(whole, rel=1e-4)
    # Adam divides by the size of the gradient: where that is all but 0, rounding shows.
    torch.testing.assert_close(flat_weights(two.network), flat_weights(one.network), rtol=0, atol=1e-4)


def test_the_mean_of_the_weights(models: ModelSet, people: TrainingBatch) -> None:
    trainer = make(models, ema=0.4, ema_ramp=2)
    expected = flat_weights(trainer.network)
    for step in range(3):
        trainer.step([people])
        kept = 0.4 * (1 - np.exp(-(step + 1) / 2))
        expected = kept * expected + (1 - kept) * flat_weights(trainer.network)
    torch.testing.assert_close(flat_weights(trainer.best_network), expected)
    trainer.network.start.camera[:] += 1  # as statistics of batches change
    trainer.step([people])
    assert torch.equal(trainer.best_network.start.camera, trainer.network.start.camera)
    assert make(models, ema=0.0).best_network is not None
    at_once = make(models, ema=0.75, ema_ramp=0)
    before = flat_weights(at_once.network)
    at_once.step([people])
    after = flat_weights(at_once.network)
    torch.testing.assert_close(flat_weights(at_once.best_network), 0.75 * before + 0.25 * after)


def test_batch_statistics_are_averaged_over_processes() -> None:
    group: Any = SimpleNamespace(mean=lambda values: values + 3, part=ALL, device=torch.device("cpu"))
    network = nn.BatchNorm1d(2)
    settings = OptimizerConfig(steps=1)
    trainer = Trainer(network, lambda model, batch: (model(batch), {}), settings, group, seed=0)
    trainer.even_out()
    for module in (trainer.network, trainer.best_network):
        assert module.running_mean is not None and module.running_var is not None
        assert module.running_mean.tolist() == [3, 3] and module.running_var.tolist() == [4, 4]
        assert module.num_batches_tracked == 0 and module.weight.tolist() == [1, 1]


def test_the_gradient_is_clipped(models: ModelSet, people: TrainingBatch) -> None:
    trainer = make(models, clip=1e-3)
    norms: list[float] = []
    step = trainer.optimizers[0].step

    def spy(*args: Any, **kwargs: Any) -> Any:
        gradients = [p.grad for p in trainer.network.parameters()]
        norms.append(float(torch.cat([g.flatten() for g in gradients if g is not None]).norm()))
        return step(*args, **kwargs)

    trainer.optimizers[0].step = spy  # type: ignore[method-assign]
    terms = trainer.step([people])
    assert terms["gradient_norm"] > 0.01 and norms == [pytest.approx(1e-3, rel=1e-2)]
    trainer.settings = replace(trainer.settings, clip=None)
    terms = trainer.step([people])
    assert norms[1] == pytest.approx(terms["gradient_norm"], rel=1e-5)


def test_steps_that_are_not_finite_are_skipped(
    models: ModelSet, people: TrainingBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make(models)
    trainer.step([people])
    before, mean = flat_weights(trainer.network), flat_weights(trainer.best_network)
    bad = replace(people, betas=people.betas * torch.nan)
    terms = trainer.step([people, bad])
    assert terms["loss"] != terms["loss"] and (trainer.skipped, trainer.steps) == (1, 2)
    assert torch.equal(flat_weights(trainer.network), before)
    assert torch.equal(flat_weights(trainer.best_network), mean)
    trainer.step([people])
    assert not torch.equal(flat_weights(trainer.network), before)
    monkeypatch.setattr(trainer_module, "PATIENCE", 3)
    trainer.step([bad])
    trainer.step([bad])
    with pytest.raises(SkelfitError, match=r"step 5: expected finite losses.*3 steps in a row \(loss nan"):
        trainer.step([bad])
