"""What the tests of the fit share."""

from __future__ import annotations

import pytest
import torch

from skelfit.bodies.model_set import ModelSet
from skelfit.bodies.skel import SkelModel
from skelfit.config.fit_settings import FitConfig
from skelfit.config.pipeline import load_pipeline
from skelfit.resources.catalog import PIPELINES


@pytest.fixture(scope="module")
def config() -> FitConfig:
    return load_pipeline(PIPELINES.find("hmr-skel")).fit


@pytest.fixture(scope="module")
def model(models: ModelSet) -> SkelModel:
    """In float64, as the naive reference computes."""
    return SkelModel(models.skel_of("male"), dtype=torch.float64)
