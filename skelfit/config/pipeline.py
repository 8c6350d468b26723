"""Pipelines: how a job runs. One YAML file each, in `pipelines/`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from skelfit.config.fit_settings import (
    FirstOrderConfig,
    FitConfig,
    TemporalConfig,
    check_neutral_target,
    check_root_prior,
)
from skelfit.config.yaml_dataclasses import bounded, build, load_yaml
from skelfit.errors import ConfigError

ImageMode = Literal["bytes", "crop", "none"]


@dataclass(frozen=True)
class GateConfig:
    """Conditions that a fitted person must meet to enter the shards; None switches one off."""

    # mm; a larger mean vertex error keeps a person out of the shards
    max_pve_mm: float | None = bounded(0, default=None)
    # mm; a larger error of one vertex keeps a person out of the shards
    max_vertex_mm: float | None = bounded(0, default=None)
    # degrees; an angle further beyond its limit is reported as limit_violation
    limit_deg: float | None = bounded(0, default=None)
    max_abs_beta: float = bounded(0, default=10.0)  # a label with a larger beta is a bad row


@dataclass(frozen=True)
class ImageConfig:
    """The image of a sample: its own bytes, a square crop of the person, or none."""

    mode: ImageMode = "bytes"  # the image file itself, a square crop of the person, or no image
    size: int = bounded(64, 4096, default=384)  # px, side of a crop
    # side of the square that is cut out, in longer sides of the box
    margin: float = bounded(0.1, 10, default=1.5)
    quality: int = bounded(1, 100, default=90)  # JPEG quality of a crop


@dataclass(frozen=True)
class Pipeline:
    """How a job runs: `pipelines/*.yaml`."""

    name: str  # free text
    fit: FitConfig  # how people are fitted
    first_order: FirstOrderConfig | None = None  # fit with the first-order baseline in place of the solver
    gates: GateConfig = GateConfig()  # limits of the errors of people in the shards
    images: ImageConfig = ImageConfig()  # what of an image enters the shards
    shard_size: int = bounded(1, default=1000)  # label rows per shard

    @property
    def temporal(self) -> TemporalConfig | None:
        """How a sequence is fitted as one problem; None: each frame by itself, as always with the baseline."""
        return None if self.first_order is not None else self.fit.temporal


def load_pipeline(path: str | Path) -> Pipeline:
    """Read a pipeline file. Raises ConfigError."""
    pipeline = build(Pipeline, load_yaml(path), path)
    names = [stage.name for stage in pipeline.fit.stages]
    if len(set(names)) != len(names):
        raise ConfigError(path, "fit.stages", "stages of different names", ", ".join(names))
    check_neutral_target(pipeline.fit, path)
    check_root_prior(pipeline.fit, path)
    if pipeline.first_order is not None and pipeline.fit.temporal not in (None, TemporalConfig()):
        expected = "null or no such key, with first_order: it fits each frame by itself"
        raise ConfigError(path, "fit.temporal", expected, str(pipeline.fit.temporal))
    last = pipeline.fit.stages[-1].dofs
    if pipeline.fit.root != "frozen" and last != "all":
        raise ConfigError(
            path, "fit.root", f"frozen, as the last stage moves the {last} alone", pipeline.fit.root
        )
    return pipeline
