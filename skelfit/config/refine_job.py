"""The settings of `skelfit refine`: how people are refined, and which refinements are accepted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from skelfit.config.refine_settings import RefineConfig
from skelfit.config.yaml_dataclasses import bounded, build, load_yaml
from skelfit.errors import ConfigError


@dataclass(frozen=True)
class AcceptConfig:
    """When a refinement replaces what a row had."""

    # shoulder-hip lengths of the image; how much nearer the keypoints must be. Less is the noise of keypoints
    least_gain: float = bounded(0, default=0.01)
    # betas up to here are accepted, as in HSMR; larger ones where the largest does not grow
    max_abs_beta: float = bounded(0, default=2.0)
    # degrees; how much further beyond its limit the worst angle may be than before
    limit_slack_deg: float = bounded(0, default=0.0)
    # mm; mean distance of the skin from the label's, with the middles of both in one place
    max_moved_mm: float = bounded(0, default=250.0)
    # how far the person may move, as a share of the distance from the camera
    max_shift: float = bounded(0, default=0.25)


@dataclass(frozen=True)
class RefineJob:
    """How shards are refined: a YAML file for --settings."""

    refine: RefineConfig = RefineConfig()  # how people are refined
    accept: AcceptConfig = AcceptConfig()  # when a refinement is accepted


def load_refine_job(path: str | Path) -> RefineJob:
    """Read a file of settings. Raises ConfigError."""
    job = build(RefineJob, load_yaml(path), path)
    names = [phase.name for phase in job.refine.phases]
    if not names or len(set(names)) != len(names):
        raise ConfigError(path, "refine.phases", "phases of different names", ", ".join(names) or "none")
    return job
