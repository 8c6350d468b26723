"""The base of all studies: a study, its setup, and functions for its figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from skelfit.bodies.model_set import ModelSet
from skelfit.config.fit_settings import FitConfig
from skelfit.config.manifest import Gender
from skelfit.config.pipeline import Pipeline
from skelfit.errors import ConfigError

SEED = 30_000  # no person of the demo or the bench


@dataclass(frozen=True)
class Setup:
    """The models, the pipeline and the options of a study."""

    models: ModelSet
    pipeline: Pipeline
    device: str
    people: int
    genders: tuple[Gender, ...]  # of the labels, or of the body where there are no labels
    picture: Path | None  # where to draw, for a study that draws
    say: Callable[[str], None]  # is told what is being measured
    shards: str | None = None  # finished shards, for a study that trains; None: made-up people
    trained: Path | None = None  # a finished training, for the same; None: it trains all itself

    @property
    def fit(self) -> FitConfig:
        """The configuration of the fit."""
        return self.pipeline.fit


@dataclass(frozen=True)
class Study:
    """A measurement that anyone can repeat: the same people every time, figures as plain data and as text."""

    help: str  # one line
    people: int  # default
    genders: tuple[Gender, ...]  # default
    run: Callable[[Setup], list[dict[str, Any]]]  # the figures: a record per group of people
    text: Callable[[list[dict[str, Any]]], list[str]]  # their lines on the screen
    draws: bool = False
    trains: bool = False


def check_own_targets(setup: Setup) -> None:
    """Raise ConfigError unless the pipeline fits neutral meshes, with betas that are transferred."""
    fit = setup.fit
    for key, usual in (("neutral_target", "neutral"), ("betas", "transfer")):
        if (value := getattr(fit, key)) != usual:
            raise ConfigError(setup.pipeline.name, f"fit.{key}", f"{usual}, for this study", str(value))


def quantiles(values: Tensor, **shares: float) -> dict[str, float]:
    """Quantiles by name of a (N,) tensor."""
    quantile_values = values.double().quantile(torch.tensor(list(shares.values()), dtype=torch.float64))
    return dict(zip(shares, quantile_values.tolist(), strict=True))


def distribution(values: Tensor) -> dict[str, float]:
    """mean, p50, p95, p99 and max of a (N,) tensor."""
    return {"mean": float(values.double().mean())} | quantiles(values, p50=0.5, p95=0.95, p99=0.99, max=1.0)


def share_below(values: Tensor, *bounds: float) -> dict[str, float]:
    """The share of a (N,) tensor below each bound, by the bound as text."""
    return {f"{bound:g}": float((values < bound).double().mean()) for bound in bounds}


def percent(share: float) -> str:
    """A share as text."""
    return f"{100 * share:.2f} %"
