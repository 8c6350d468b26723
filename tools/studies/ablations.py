"""The ablations of SKEL-CF's paper (tables 4 and 5), as far as they are options, on the tiny network.

The people are made up, and the network is small: what comes out says that each option does something, and how much it
matters here. It says nothing about photographs. The detector learns once, and each variant learns from the same
keypoints, in a fortieth of the time that a training with a ViT takes.
"""

from __future__ import annotations

import copy
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from skelfit.benchmark.text_table import table
from skelfit.bodies.skins import SkelSkins
from skelfit.config.yaml_dataclasses import build
from skelfit.errors import SkelfitError
from skelfit.learning.data.backbone_cache import BackboneCache
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.process_group import ProcessGroup
from skelfit.learning.evaluation.validation import validate
from skelfit.learning.networks.network_registry import make_network
from skelfit.learning.training.training_config import TrainConfig, checked, load_train_config
from skelfit.learning.training.training_loop import set_mean, validation_people
from skelfit.learning.training.training_stages import TrainingStages
from skelfit.resources.catalog import TRAININGS
from tools.studies import tiny_training
from tools.studies.setup import Setup, Study

_LENGTHS = {"keypoints": 400, "coarse": 400, "optimizer": 100}  # steps of each stage
_HELD_OUT = 0.02  # of the people, to measure with
_LAYERS = 3  # so that there are layers between
# What changes in the configuration, by the name of the variant.
VARIANTS: dict[str, dict[str, Any]] = {
    "as configured": {},
    "another seed": {"data": {"seed": 1}},
    "no camera": {"network": {"camera": False}},
    "no coarse-to-fine": {"network": {"coarse_to_fine": False}},
    "one layer": {"network": {"layers": 1}},
    "six layers": {"network": {"layers": 6}},
    "looped decoder": {"network": {"looped_decoder": True}},
    "no refinement": {"losses": {"refinement": 0.0}},
    "refinement of the layers between": {"losses": {"refinement_layers": "between"}},
    "full supervision": {"losses": {"full_supervision": True}},
    "HSMR's network and losses": {
        "network": {"kind": "hsmr", "dim": 256},
        "losses": {"refinement": 0.0, "parameters": "squared"},
    },
}


def run(setup: Setup) -> list[dict[str, Any]]:
    """A record per variant, with errors of people held out. Raises SkelfitError where there are none."""
    torch.manual_seed(0)
    with tempfile.TemporaryDirectory(prefix="skelfit-ablations-") as folder:
        shards = setup.shards or tiny_training.make_shards(setup, Path(folder))
        base = _base(shards)
        group = ProcessGroup(torch.device(setup.device))
        skins = SkelSkins(setup.models, base.skel_gender, group.device)
        network = make_network(base.network)
        stages = TrainingStages(base, network, setup.models, group)
        learnt = tiny_training.with_detector(setup, stages, network)
        network.load_state_dict(learnt)
        cache = stages.cache
        records = []
        for name, changes in VARIANTS.items():
            setup.say(f"{name}: {base.coarse.length + base.optimizer.length if base.coarse else 0} steps")
            config = varied(base, changes)
            found = _measured(config, learnt, cache, skins, setup, group)
            setup.say(f"{name}: PA-MPJPE {found['pa_mpjpe_mm']:.1f} mm")
            records.append({"variant": name} | found)
        return records


def varied(base: TrainConfig, changes: dict[str, Any]) -> TrainConfig:
    """A configuration with some changes. Raises ConfigError where they do not fit."""
    content = copy.deepcopy(asdict(base))
    for section, values in changes.items():
        content[section] |= values
    return checked(build(TrainConfig, content, tiny_training.BASE), tiny_training.BASE)


def _base(shards: str) -> TrainConfig:
    """train-tiny, shorter."""
    config = load_train_config(TRAININGS.find(tiny_training.BASE))
    data = replace(config.data, subsets=(SubsetConfig(f"{shards}/*.tar"),), held_out=_HELD_OUT)
    stages: Any = {name: replace(config.stages[name], steps=steps) for name, steps in _LENGTHS.items()}
    network = replace(config.network, layers=_LAYERS)
    return replace(config, data=data, network=network, **stages)


def _measured(
    config: TrainConfig,
    learnt: dict[str, torch.Tensor],
    cache: BackboneCache,
    skins: SkelSkins,
    setup: Setup,
    group: ProcessGroup,
) -> dict[str, Any]:
    """The errors of a variant that learns from a detector which has learnt."""
    started = time.perf_counter()
    torch.manual_seed(config.data.seed)
    network = make_network(config.network).to(group.device)
    set_mean(network, config)
    network.load_state_dict(network.state_dict() | tiny_training.detector_of(learnt))
    stages = TrainingStages(config, network, setup.models, group, cache=cache)
    for make in stages.makers[1:]:
        network.load_state_dict(tiny_training.learn(make(), network))
    seconds = time.perf_counter() - started
    people = validation_people(config, group, network.backbone.crop)
    found = validate(network, people, skins, group)
    if found is None:
        raise SkelfitError(f"expected people to measure with, found none of {_HELD_OUT:.0%}")
    weights = sum(p.numel() for name, p in network.named_parameters() if not name.startswith("backbone."))
    names = ("people", "pa_mpjpe_mm", "mpjpe_mm", "pve_mm", "pck_0.05", "mean_pose")
    return {"weights": weights, "seconds": seconds} | {name: found[name] for name in names}


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per variant."""
    heads = ("variant", "PA-MPJPE", "MPJPE", "PVE", "PCK@0.05", "weights", "s")
    rows = [
        (r["variant"], *(f"{r[name]:.1f}" for name in ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm")))
        + (f"{100 * r['pck_0.05']:.1f} %", f"{r['weights'] / 1e6:.2f} M", f"{r['seconds']:.0f}")
        for r in records
    ]
    mean = records[0]["mean_pose"]
    errors = (f"{mean[name]:.1f}" for name in ("pa_mpjpe_mm", "mpjpe_mm", "pve_mm"))
    rows.append(("mean pose", *errors, "", "", ""))
    return [*table(heads, rows), f"mm; {records[0]['people']} made-up people held out"]


STUDY = Study(
    "the ablations of SKEL-CF's paper, on the tiny network and made-up people",
    20_000,
    (),
    run,
    text,
    trains=True,
)
