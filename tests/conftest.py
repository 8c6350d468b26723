"""What the tests share: the open body, as our assets and as files in the official schemas."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from skelfit.body.models import ModelSet, open_models
from skelfit.body.open_body import open_body_models, write_official


@pytest.fixture(scope="session")
def models() -> ModelSet:
    return open_models()


@pytest.fixture(scope="session")
def official(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the open body in the official file schemas."""
    folder = tmp_path_factory.mktemp("official")
    write_official(open_body_models(), folder)
    return folder


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)
