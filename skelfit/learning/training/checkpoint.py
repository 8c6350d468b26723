"""Checkpoints of a training, written atomically and read without running code.

A checkpoint is a dict that torch.save wrote: `format`, `step`, `config` (plain data), `models` (the sha256 of the body
models; '' where they are not known), `measured` (the last validation, or None), `weights` (those to predict with: the
running mean, where there is one) and `training` (what a training needs to continue, and the `steps` that it is to have;
None in best.pt). One that `skelfit train import` made has `imported` as well: the kind and name of the published file,
and the names of weights that it has nothing for.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import torch

from skelfit.bodies.model_set import OPEN_BODY, ModelSet
from skelfit.config.identity import difference
from skelfit.config.yaml_dataclasses import build
from skelfit.errors import InputError
from skelfit.learning.networks.network import Network
from skelfit.learning.networks.network_registry import make_network
from skelfit.learning.training.training_config import TrainConfig
from skelfit.storage.atomic_write import atomic_write, remove_file
from skelfit.storage.tensor_files import read_tensor_file

FORMAT = "skelfit-train-5"
BEST_NAME = "best.pt"
FOLDER_NAME = "checkpoints"
# Options that may change when a training continues: they affect neither what is learnt nor the data.
_FREE = ("name", "network.checkpoint", "network.random", "output.", "validation.")

_KEYS: dict[str, Any] = {"step": int, "config": dict, "models": str, "weights": dict}
_KEYS |= dict.fromkeys(("measured", "training", "imported"), dict | None)


class CheckpointError(InputError):
    """A checkpoint that cannot be used."""


class TrainedNetwork(NamedTuple):
    """A network to predict with, the configuration of its training, and the sha256 of the body models used there."""

    network: Network
    config: TrainConfig
    models: str  # '' where they are not known: an imported network is of SKEL v1.1.1

    def unlike(self, models: ModelSet) -> str | None:
        """A warning where these are other body models; None where they are those of the training, or may be."""
        if self.models == models.sha256 or not (self.models or models.source == OPEN_BODY):
            return None
        trained_with = f"sha256 {self.models[:12]}" if self.models else "SKEL v1.1.1"
        return f"models: not those of the training ({trained_with}): betas and keypoints are of other bodies"


def save(path: Path, content: Mapping[str, Any]) -> None:
    """Write a checkpoint. Raises OutputError."""
    with atomic_write(path) as temporary:
        torch.save({"format": FORMAT, **content}, temporary)


def save_numbered(out: Path, step: int, content: Mapping[str, Any], keep: int) -> None:
    """Write the checkpoint of a step, and remove all but the last ones. Raises OutputError."""
    save(out / FOLDER_NAME / f"step-{step:08d}.pt", content)
    for old in _numbered(out)[:-keep]:
        remove_file(old)


def latest(out: Path) -> Path | None:
    """The last checkpoint of a training's folder."""
    return next(reversed(_numbered(out)), None)


def _numbered(out: Path) -> list[Path]:
    return sorted((out / FOLDER_NAME).glob("step-*.pt"))


def load(path: Path, *, mapped: bool = False) -> dict[str, Any]:
    """The content of a checkpoint, on the CPU; mapped: without reading its tensors. Raises CheckpointError."""
    content = read_tensor_file(path, "a checkpoint of skelfit train", CheckpointError, mapped=mapped)
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        kind = content.get("format", "none") if isinstance(content, dict) else type(content).__name__
        raise CheckpointError(path, "format", FORMAT, str(kind))
    for key, kind in _KEYS.items():
        if not isinstance(value := content.get(key), kind):
            found = type(value).__name__ if key in content else "no such key"
            raise CheckpointError(path, key, getattr(kind, "__name__", str(kind)), found)
    return content


def load_network(path: str | Path) -> TrainedNetwork:
    """The network to predict with, in evaluation mode, and its training.

    path: a checkpoint, or a training's folder: its best checkpoint or, without validation, its last. Raises InputError.
    """
    path = Path(path)
    if path.is_dir():
        best = path / BEST_NAME
        path = best if best.is_file() else latest(path) or best
    content = load(path, mapped=True)  # the network has its weights anyway: no second copy of them
    config = build(TrainConfig, content["config"], path, "config")
    if missing := _missing(content):
        found = f"the start of a training: no {missing[0]} and {len(missing) - 1} more"
        raise CheckpointError(path, "weights", "those of a whole network", found)
    network = make_network(config.network)
    _set_weights(network, content["weights"], path)
    return TrainedNetwork(network.eval(), config, content["models"])


def load_start(network: Network, path: str | Path) -> bool:
    """Let a training begin with the weights of a file; returns whether where estimates start is among them.

    path: a checkpoint of this network, or what its backbone takes. Raises InputError.
    """
    content = read_tensor_file(path, "weights to start with", CheckpointError, mapped=True, objects=True)
    if not (isinstance(content, dict) and "format" in content):
        network.backbone.load(path)
        return False
    content = load(Path(path), mapped=True)
    earlier = build(TrainConfig, content["config"], path, "config").network
    pairs = difference(asdict(earlier), asdict(network.config))
    if differs := [line for line in pairs if not line.startswith(("checkpoint:", "random:"))]:
        raise CheckpointError(path, "config", "the network that is trained", ", ".join(differs[:5]))
    missing = _missing(content)
    own = network.state_dict()
    _set_weights(network, {name: own[name] for name in missing if name in own} | content["weights"], path)
    return not missing


def _set_weights(network: Network, weights: Mapping[str, Any], path: str | Path) -> None:
    """Give a network its weights. Raises CheckpointError where they are not those of it."""
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        raise CheckpointError(path, "weights", "those of its network", str(error)[:200]) from None


def _missing(content: Mapping[str, Any]) -> list[str]:
    """The weights that an imported checkpoint has nothing for."""
    return list(map(str, (content.get("imported") or {}).get("missing") or ()))


class CheckpointProgress(NamedTuple):
    """The progress of a training."""

    done: int  # steps
    steps: int  # that it was to have in all
    longer: str  # how its last stage is longer than before, in words; empty where it is as long


def progress(path: Path, config: TrainConfig, models: str) -> CheckpointProgress:
    """The progress of a checkpoint's training, to continue it with a configuration and body models of this sha256.

    The last stage may have more epochs or steps than before. Reads no weights. Raises CheckpointError where that would
    be a different training, and names the differences.
    """
    content = load(path, mapped=True)
    earlier = build(TrainConfig, content["config"], path, "config")
    differs = [line for line in difference(asdict(earlier), asdict(config)) if not _is_free(line)]
    longer = ""
    for unit in ("epochs", "steps"):
        before, now = getattr(earlier.optimizer, unit), getattr(config.optimizer, unit)
        if before is not None and now is not None and now > before:
            longer = f"optimizer.{unit}: {before} before, now {now}"
            differs = [line for line in differs if not line.startswith(f"optimizer.{unit}:")]
    if differs:
        expected = "the configuration as it was (optimizer.epochs or .steps may be raised)"
        raise CheckpointError(path, "config", expected, ", ".join(differs[:5]))
    if models != content["models"]:
        expected = f"the body models that it was trained with (sha256 {content['models'][:12]})"
        raise CheckpointError(path, "models", expected, f"others (sha256 {models[:12]})")
    if (training := content["training"]) is None:
        raise CheckpointError(path, "training", "what a training needs to continue", "none, as in best.pt")
    return CheckpointProgress(content["step"], training["steps"], longer)


def _is_free(line: str) -> bool:
    where_shards_lie = line.startswith("data.subsets[") and "].shards:" in line
    return line.startswith(_FREE) or where_shards_lie
