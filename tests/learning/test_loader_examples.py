"""The examples of loaders for others: run as they are, on shards with crops."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
from train_shards import PEOPLE, write_people

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def crops(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_people(tmp_path_factory.mktemp("crops"), crops=True)


def run(name: str, folder: Path) -> str:
    """What an example prints; it runs elsewhere, where skelfit is not to be found, and without a network."""
    command = [sys.executable, "-P" if sys.version_info >= (3, 11) else "-s", EXAMPLES / name, folder]
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | {"HF_HUB_OFFLINE": "1"}
    environment["HF_HOME"] = str(folder / "cache")
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=200)
    assert done.returncode == 0, done.stderr
    assert len((EXAMPLES / name).read_text().splitlines()) < 50
    return done.stdout


def test_plain_torch(crops: Path) -> None:
    lines = re.findall(
        r"^images (\d+) 3 384 384 poses \1 46 keypoints \1 44 3$", run("torch_loader.py", crops), re.M
    )
    assert sum(map(int, lines)) == PEOPLE


@pytest.mark.skipif(find_spec("lightning") is None, reason="Lightning is not installed")
def test_lightning(crops: Path) -> None:
    last_line = re.search(r"^8 steps, loss (0\.\d+)$", run("lightning_loader.py", crops), re.M)
    assert last_line is not None and 0.05 < float(last_line[1]) < 2


@pytest.mark.skipif(find_spec("datasets") is None, reason="Hugging Face datasets is not installed")
def test_hugging_face_datasets(crops: Path) -> None:
    lines = re.findall(r"^people-people-0-\d+ \(384, 384\) ok 46$", run("datasets_loader.py", crops), re.M)
    assert len(set(lines)) == PEOPLE
