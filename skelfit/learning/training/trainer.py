"""One step of a training: from batches to new weights and the losses.

A step is a function of the weights, the optimisers' state, the batches and its number. The number gives the learning
rate and the seed of what is random in the network, so a training can continue exactly where it stopped.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from math import cos, exp, inf, pi
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skelfit.errors import SkelfitError
from skelfit.learning.backbones.muon import Muon
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.data.training_batch import TrainingBatch
from skelfit.learning.training.training_config import OptimizerConfig

PATIENCE = 50  # steps in a row without a finite loss and gradient
# From a module and a batch to the loss, and its unweighted terms by name.
LossFunction = Callable[[nn.Module, TrainingBatch], tuple[Tensor, dict[str, Tensor]]]
M = TypeVar("M", bound=nn.Module)


class Trainer(Generic[M]):
    """A network, or a part of one, its optimisers and the running mean of its weights."""

    def __init__(
        self, network: M, loss: LossFunction, settings: OptimizerConfig, group: ProcessGroup, seed: int
    ) -> None:
        """Weights without requires_grad do not change."""
        self.network, self.loss, self.settings = network.to(group.device), loss, settings
        self.group, self.seed, kind = group, seed, group.device.type
        self.parallel: DistributedDataParallel | None = None
        if group.part.of > 1:
            self.parallel = DistributedDataParallel(self.network, forward_sync_buffers=False)
        self.averaged = deepcopy(self.network) if settings.ema else None
        self.optimizers = optimizers_of(self.network, settings)
        self.precision = torch.float32
        if kind == "cuda" and settings.mixed_precision:
            self.precision = torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
        self.scaler = torch.amp.GradScaler(kind, enabled=self.precision == torch.float16)
        self.steps = self.skipped = self.in_a_row = 0

    @property
    def best_network(self) -> M:
        """The network to predict with: of the mean weights, where they are kept."""
        return self.averaged or self.network

    def step(self, batches: Sequence[TrainingBatch]) -> dict[str, float]:
        """Learn from some batches as if they were one; returns the losses' means over all processes, by name.

        Where a loss or a gradient is not finite, the weights stay, and the step counts as skipped. Raises SkelfitError
        after PATIENCE of them in a row.
        """
        share = share_of_peak(self.steps, self.settings)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
        number = self.steps * self.group.part.of + self.group.part.number
        torch.manual_seed(self.seed * 2**40 + number)
        of_batches = [self._backward(batch, len(batches), last=batch is batches[-1]) for batch in batches]
        values = torch.stack([torch.stack(list(terms.values())) for terms in of_batches]).mean(0)
        values = self.group.mean(values)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip or inf)
        terms = dict(zip(of_batches[0], values.tolist(), strict=True))
        if bool(torch.isfinite(values).all() & torch.isfinite(norm)):
            for optimizer in self.optimizers:
                self.scaler.step(optimizer)
            self._average()
            self.in_a_row = 0
        else:
            self._skip(terms)
        self.scaler.update()
        self.network.zero_grad()
        self.steps += 1
        return terms | {"learning_rate": share * self.settings.learning_rate, "gradient_norm": float(norm)}

    def _backward(self, batch: TrainingBatch, of: int, *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one of several batches; returns its loss and terms, each ()."""
        model = self.parallel or self.network
        # Gradients are shared once, after the last batch.
        with nullcontext() if self.parallel is None or last else self.parallel.no_sync():
            with torch.autocast(self.group.device.type, self.precision, self.precision != torch.float32):
                loss, terms = self.loss(model, batch)
            self.scaler.scale(loss / of).backward()
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    @torch.no_grad()
    def _average(self) -> None:
        """Update the running mean of the weights; at first it forgets faster, so the initial weights soon fade."""
        if self.averaged is None:
            return
        learnt, ramp = self.steps - self.skipped + 1, self.settings.ema_ramp
        kept = self.settings.ema * ((1 - exp(-learnt / ramp)) if ramp else 1.0)
        for mean, new in zip(self.averaged.parameters(), self.network.parameters(), strict=True):
            mean.lerp_(new, 1 - kept)
        for old, recent in zip(self.averaged.buffers(), self.network.buffers(), strict=True):
            old.copy_(recent)  # batch statistics are running means already

    def _skip(self, terms: Mapping[str, float]) -> None:
        self.skipped += 1
        self.in_a_row += 1
        if self.in_a_row >= PATIENCE:
            values = ", ".join(f"{name} {value:g}" for name, value in terms.items())
            raise SkelfitError(
                f"step {self.steps}: expected finite losses and gradients, found none in {PATIENCE} steps in a row "
                f"({values}); try a lower optimizer.learning_rate or optimizer.clip, from the last checkpoint"
            )

    @torch.no_grad()
    def even_out(self) -> None:
        """Replace batch statistics by their mean over all processes."""
        for network in (self.network, self.best_network):
            for values in filter(torch.is_floating_point, network.buffers()):
                values.copy_(self.group.mean(values))

    def state(self) -> dict[str, Any]:
        """What `resume` needs, as plain data and tensors."""
        kept = {name: part.state_dict() for name, part in self._parts().items()}
        return kept | {"counts": [self.steps, self.skipped, self.in_a_row]}

    def resume(self, state: Mapping[str, Any]) -> None:
        """Continue from a state."""
        for name, part in self._parts().items():
            part.load_state_dict(state[name])
        self.steps, self.skipped, self.in_a_row = state["counts"]

    def _parts(self) -> dict[str, Any]:
        parts = {"network": self.network, "scaler": self.scaler}
        parts |= {f"optimizer{i}": optimizer for i, optimizer in enumerate(self.optimizers)}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}


def optimizers_of(network: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """The optimisers of the weights that require gradients; each group has its `peak` learning rate."""
    learning = [p for p in network.parameters() if p.requires_grad]
    convolutions = [p for p in learning if config.muon and p.ndim == 4 and p.shape[-1] > 1]
    by_muon = set(map(id, convolutions))
    others = {"params": [p for p in learning if id(p) not in by_muon], "peak": config.learning_rate}
    decay: dict[str, Any] = {"betas": (0.9, 0.999), "weight_decay": config.weight_decay, "fused": True}
    optimizers: list[torch.optim.Optimizer] = [torch.optim.AdamW([others], **decay)]
    if convolutions:
        optimizers.append(Muon([{"params": convolutions, "peak": config.muon}], config.muon))
    return optimizers


def share_of_peak(step: int, config: OptimizerConfig) -> float:
    """The share of the peak learning rate at a step, from 0 on: a line up to 1 in the warm-up's last step."""
    if step < config.warm_up:
        return (step + 1) / config.warm_up
    if config.schedule == "constant":
        return 1.0
    done = (step - config.warm_up) / max(1, config.length - config.warm_up)
    return (1 + cos(pi * min(done, 1))) / 2
