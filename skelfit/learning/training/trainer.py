"""One step of a training: batches in, weights changed, what was found out.

A step is a function of the weights, the batches and its number: the learning rate follows from the number, and so does
the seed of whatever is random in the network. So nothing else needs to be kept to go on exactly where a training was.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from copy import deepcopy
from math import cos, pi
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from skelfit.errors import SkelfitError
from skelfit.learning.backbones.muon import Muon
from skelfit.learning.data.process_group import Team
from skelfit.learning.data.training_batch import Batch
from skelfit.learning.training.training_config import OptimizerConfig

PATIENCE = 50  # steps in a row that may come to nothing
# What a module learns from a batch: the loss, and its terms before they are weighted, by name.
Lesson = Callable[[nn.Module, Batch], tuple[Tensor, dict[str, Tensor]]]
M = TypeVar("M", bound=nn.Module)


class Trainer(Generic[M]):
    """A network, or a part of one, its optimisers and the running mean of its weights."""

    def __init__(self, network: M, lesson: Lesson, settings: OptimizerConfig, team: Team, seed: int) -> None:
        """What needs no gradient stays as it is."""
        self.network, self.lesson, self.settings = network.to(team.device), lesson, settings
        self.team, self.seed, kind = team, seed, team.device.type
        self.parallel: DistributedDataParallel | None = None
        if team.part.of > 1:
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
        """The one to predict with: of mean weights, where they are kept."""
        return self.averaged or self.network

    def step(self, batches: Sequence[Batch]) -> dict[str, float]:
        """Learn from some batches as if they were one; returns means over all processes, by name.

        Where a loss or a gradient is not finite, nothing is learnt, and the step is counted. Raises SkelfitError after
        many of them in a row.
        """
        share = share_of_peak(self.steps, self.settings)
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = share * group["peak"]
        number = self.steps * self.team.part.of + self.team.part.number
        torch.manual_seed(self.seed * 2**40 + number)
        found = [self._backward(batch, len(batches), last=batch is batches[-1]) for batch in batches]
        values = torch.stack([torch.stack(list(terms.values())) for terms in found]).mean(0)
        values = self.team.mean(values)
        for optimizer in self.optimizers:
            self.scaler.unscale_(optimizer)
        norm = nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.clip)
        terms = dict(zip(found[0], values.tolist(), strict=True))
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

    def _backward(self, batch: Batch, of: int, *, last: bool) -> dict[str, Tensor]:
        """Add the gradient of one of several batches; its loss and terms, each ()."""
        model = self.parallel or self.network
        # To share gradients once, after the last batch, is enough.
        with nullcontext() if self.parallel is None or last else self.parallel.no_sync():
            with torch.autocast(self.team.device.type, self.precision, self.precision != torch.float32):
                loss, terms = self.lesson(model, batch)
            self.scaler.scale(loss / of).backward()
        return {name: value.detach() for name, value in {"loss": loss, **terms}.items()}

    @torch.no_grad()
    def _average(self) -> None:
        """Take the new weights into their mean: at first like a plain one, so that the first are soon forgotten."""
        learnt = self.steps - self.skipped  # before this step
        kept = min(self.settings.ema, (learnt + 1) / (learnt + 10)) if learnt else 0.0
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

    @torch.no_grad()
    def even_out(self) -> None:
        """Let all processes have the mean of what each has seen of batches' statistics."""
        for network in (self.network, self.best_network):
            for values in filter(torch.is_floating_point, network.buffers()):
                values.copy_(self.team.mean(values))

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
        parts = {"network": self.network, "scaler": self.scaler}
        parts |= {f"optimizer{i}": optimizer for i, optimizer in enumerate(self.optimizers)}
        return parts if self.averaged is None else parts | {"averaged": self.averaged}


def optimizers_of(network: nn.Module, config: OptimizerConfig) -> list[torch.optim.Optimizer]:
    """Those of a network's weights, of which some may stay as they are; each group has its `peak` learning rate."""
    learning = [p for p in network.parameters() if p.requires_grad]
    convolutions = [p for p in learning if config.muon and p.ndim == 4 and p.shape[-1] > 1]
    taken = set(map(id, convolutions))
    others = {"params": [p for p in learning if id(p) not in taken], "peak": config.learning_rate}
    decay: dict[str, Any] = {"betas": (0.9, 0.999), "weight_decay": config.weight_decay, "fused": True}
    found: list[torch.optim.Optimizer] = [torch.optim.AdamW([others], **decay)]
    if convolutions:
        found.append(Muon([{"params": convolutions, "peak": config.muon}], config.muon))
    return found


def share_of_peak(step: int, config: OptimizerConfig) -> float:
    """Of the learning rates, at a step counted from 0: up in a line to 1 first after the warm-up, then a cosine."""
    if step < config.warm_up:
        return (step + 1) / (config.warm_up + 1)
    done = (step - config.warm_up) / max(1, config.steps - config.warm_up)
    return (1 + cos(pi * min(done, 1))) / 2
