"""Runs of `skelfit predict`, and what they write."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from click.testing import CliRunner, Result

from skelfit.cli import main
from skelfit.learning.inference.given_images import find_images
from skelfit.learning.inference.photos import PhotoSettings, prepare_photo
from skelfit.learning.inference.predictor import CropInput
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.networks.network import NetworkConfig

TINY_VIT = NetworkConfig(backbone="tiny", heads=2, head_dim=16, feed_forward=32, layers=2)


def run_predict(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["predict", *map(str, arguments)])


def parameters_of(out: Path) -> dict[str, np.ndarray]:
    with np.load(out / "people.npz") as content:
        return dict(content)


def rows_of(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "rows.jsonl").read_text().splitlines()]


def crops_of(photos: Path, settings: PhotoSettings) -> list[CropInput]:
    return [prepare_photo(given, settings).inputs[0] for given in find_images([photos]).images(StepTimes())]
