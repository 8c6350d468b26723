"""One step of a training: batches in, weights changed, what was found out.

A step is a function of the weights, the batches and its number: the learning rate follows from the number, and so does
the seed of whatever is random in the network. So nothing else needs to be kept to go on exactly where a training was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from math import cos, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skelfit.body.models import ModelSet
from skelfit.body.posed_keypoints import SkelKeypoints
from skelfit.errors import SkelfitError
from skelfit.loader.batch import Batch
from skelfit.train.config import OptimizerConfig, TrainConfig
from skelfit.train.losses import training_loss
from skelfit.train.network import Network
from skelfit.train.team import Team

PATIENCE = 50  # steps in a row that may come to nothing


class Trainer:
    """The network, its optimiser and the running mean of its weights."""

    def __init__(self, config: TrainConfig, network: Network, models: ModelSet, team: Team) -> None:
        """Raises ModelError when the models lack the SKEL or its keypoints."""
        self.config, self.team = config, team
        self.network = network.to(team.device)
        self.body = SkelKeypoints(models, config.skel_gender, team.device)
        settings, kind = config.optimizer, team.device.type
        self.parallel: DistributedDataParallel | None = None
        if team.part.of > 1:
            self.parallel = DistributedDataParallel(self.network, forward_sync_buffers=False)
        self.averaged = deepcopy(self.network) if settings.ema else None
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), betas=(0.9, 0.999), weight_decay=settings.weight_decay, fused=True
        )
        self.precision = torch.float32
        if kind == "cuda" and settings.mixed_precision:
            self.precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(kind, enabled=self.precision == torch.float16)
        self.steps = self.skipped = self.in_a_row = 0

    @property
    def best_network(self) -> Network:
        """The one to predict with: of mean weights, where they are kept."""
        return self.averaged or self.network

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Learn from some batches as if they were one; returns means over all processes, by name.

        Where a loss or a gradient is not finite, nothing is learnt, and the step is counted. Raises SkelfitError after
        many of them in a row.
        """
        rate = learning_rate(self.steps, self.config.optimizer)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        number = self.steps * self.team.part.of + self.team.part.number
        torch.manual_seed(self.config.data.seed * 2**40 + number)
        found = [self._backward(batch, len(batches), last=batch is batches[-1]) for batch in batches]
        values = torch.stack([torch.stack(list(terms.values())) for terms in found]).mean(0)
        values = self.team.mean(values)
        self.scaler.unscale_(self.optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.config.optimizer.clip)
        terms = dict(zip(found[0], values.tolist(), strict=True))
        if bool(torch.isfinite(values).all() & torch.isfinite(norm)):
            self.scaler.step(self.optimizer)
            self._average()
            self.in_a_row = 0
        else:
            self._skip(terms)
        self.scaler.update()
        self.optimizer.zero_grad()
        self.steps += 1
        return terms | {"learning_rate": rate, "gradient_norm": float(norm)}

    def _backward(self, batch: Batch, of: int, *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one of several batches; its loss and terms, each ()."""
        model = self.parallel or self.network
        # To share gradients once, after the last batch, is enough.
        with nullcontext() if self.parallel is None or last else self.parallel.no_sync():
            with torch.autocast(self.team.device.type, self.precision, self.precision != torch.float32):
                place = batch.cam_int, batch.center, batch.box_size
                prediction = model(batch.image, *place, batch.keypoints2d)
            loss, terms = training_loss(prediction, batch, self.body, self.config.losses)
            self.scaler.scale(loss / of).backward()
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    @torch.no_grad()
    def _average(self) -> None:
        """Take the new weights into their mean: at first like a plain one, so that the first are soon forgotten."""
        learnt = self.steps - self.skipped  # before this step
        kept = min(self.config.optimizer.ema, (learnt + 1) / (learnt + 10)) if learnt else 0.0
        if self.averaged is None:
            return
        for mean, new in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(new, 1 - kept)
        for old, recent in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            old.copy_(recent)  # statistics of batches are means already

    def _skip(self, terms: Mapping[str, float]) -> None:
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise SkelfitError(
                f"step {self.steps}: expected finite losses and gradients, found none in {PATIENCE} steps in a row "
                f"({values}); try a lower optimizer.learning_rate or optimizer.clip, from the last checkpoint"
            )

    def state(self) -> dict[str, Any]:
        """What going on needs, as plain data and tensors."""
        kept = {name: part.state_dict() for name, part in self._parts().items()}
        return kept | {"counts": [self.steps, self.skipped, self.in_a_row]}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Go on there."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.steps, self.skipped, self.in_a_row = state["counts"]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self.network, "optimizer": self.optimizer, "scaler": self.scaler}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}


def learning_rate(step: int, config: OptimizerConfig) -> float:
    """Of a step, counted from 0: up in a line to the first after the warm-up, then down along a cosine."""
    if step < config.warm_up:
        return config.learning_rate * (step + 1) / (config.warm_up + 1)
    done = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return config.learning_rate * (1 + cos(pi * min(done, 1))) / 2
