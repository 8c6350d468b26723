"""The trainer's loader by recipe: samples per second with two workers, and what each step costs of a core."""

from __future__ import annotations

import tempfile
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from skelfit.benchmark.text_table import table
from skelfit.images.decoding import decode
from skelfit.learning.data.augmentation import Variation, draw, recolored
from skelfit.learning.data.data_loader import DataConfig, Loader
from skelfit.learning.data.degradations import degraded
from skelfit.learning.data.person_crops import read_crop, square_around
from skelfit.learning.data.person_stream import ALL, PersonSample, SubsetConfig, in_order, person_source
from skelfit.learning.training.training_config import load_train_config
from skelfit.resources.catalog import TRAININGS
from skelfit.shards.label_vector import unpack
from tools.studies.loader import write_photographs
from tools.studies.setup import Setup, Study

_RECIPES = ("train-skel-cf", "train-hsmr")
_WORKERS, _ROUNDS = 2, 3
_BATCH, _SHUFFLE, _STEPPED = 64, 500, 256  # people of the measurement of steps
_CROP = 256
NEEDED = 208  # samples/s: 30 epochs of 3 million people in 120 hours
STEPS = ("read", "decode", "cut", "degrade", "colours", "batch")


def run(setup: Setup) -> list[dict[str, Any]]:
    """A record for each recipe: medians of samples/s, and the least CPU time of each step, ms."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with tempfile.TemporaryDirectory(prefix="skelfit-loader-") as folder:
            setup.say(f"writing {setup.people} people with photographs of 640 x 480 px")
            subset = SubsetConfig(
                str(Path(write_photographs(Path(folder), setup.people)[0]).parent / "*.tar")
            )
            return [_measured(setup, name, subset) for name in _RECIPES]
    finally:
        torch.set_num_threads(threads)


def _measured(setup: Setup, name: str, subset: SubsetConfig) -> dict[str, Any]:
    config = load_train_config(TRAININGS.find(name)).data
    config = replace(
        config,
        subsets=(subset,),
        keep=None,
        held_out=0.0,
        batch_size=_BATCH,
        shuffle=_SHUFFLE,
        epoch_samples=setup.people,
    )
    setup.say(f"{name}: {_WORKERS} workers")
    rounds = [_speed(replace(config, workers=_WORKERS)) for _ in range(_ROUNDS)]
    setup.say(f"{name}: a core")
    alone = [_speed(replace(config, workers=0)) for _ in range(_ROUNDS)]
    cpu = min(ms for _, ms in alone)
    steps = _steps(config)
    return {
        "recipe": name,
        "workers": _WORKERS,
        "per_second": median(speed for speed, _ in rounds),
        "rounds": [speed for speed, _ in rounds],
        "cpu_ms": cpu,
        "steps_ms": steps | {"batch": cpu - sum(steps.values())},
    }


def _speed(config: DataConfig) -> tuple[float, float]:
    """Samples per second, and CPU time of this process for each, ms; from the first batch on, as workers start once."""
    batches = iter(Loader(config))
    next(batches)
    started, cpu = time.perf_counter(), time.process_time()
    samples = sum(len(batch) for batch in batches)
    return samples / (time.perf_counter() - started), 1000 * (time.process_time() - cpu) / samples


def _steps(config: DataConfig) -> dict[str, float]:
    """CPU time of each step for a person, ms: the least of several passes over the same people."""
    source = person_source(config.subsets, None, images=True)
    people = list(islice(in_order(source, ALL), _STEPPED))
    variations, rate = _variations(people, config), config.augment.degrade
    cuts = [
        (person.image, person.meta["affine"], variation.square, _CROP, variation.turn)
        for person, variation in zip(people, variations, strict=True)
    ]
    crops = [read_crop(*cut) for cut in cuts]
    decoding = _least(decode, [(person.image,) for person in people])
    times = {
        "read": _least(lambda: deque(islice(in_order(source, ALL), _STEPPED), 0), [()]),
        "decode": decoding,
        "cut": _least(read_crop, cuts) - decoding,
    }
    if rate:
        seeds = [variation.degrade or 0 for variation in variations]
        times["degrade"] = _least(degraded, [(*each, rate) for each in zip(crops, seeds, strict=True)])
    colors = [variation.colors for variation in variations]
    times["colours"] = _least(recolored, list(zip(crops, colors, strict=True)))
    return times


def _variations(people: Sequence[PersonSample], config: DataConfig) -> list[Variation]:
    parts = unpack(np.stack([person.label for person in people]))
    boxes = np.concatenate([parts["center"], 200 * parts["scale"]], axis=1).tolist()
    rng = np.random.default_rng(0)
    return [
        draw(square_around(*box, widen=config.widen), keypoints, config.augment, rng)
        for box, keypoints in zip(boxes, parts["gtkps"], strict=True)
    ]


def _least(do: Callable[..., object], calls: Sequence[tuple[Any, ...]]) -> float:
    """The least CPU time of a few passes over calls that drop their results, ms for each of _STEPPED people."""
    shortest = float("inf")
    for _ in range(_ROUNDS):
        started = time.process_time()
        for arguments in calls:
            do(*arguments)
        shortest = min(shortest, time.process_time() - started)
    return 1000 * shortest / _STEPPED


def text(records: list[dict[str, Any]]) -> list[str]:
    """A row per recipe, and the steps."""
    heads = (
        "recipe",
        "workers",
        "samples/s",
        "of those needed",
        "CPU ms each",
        *(f"{step} ms" for step in STEPS),
    )
    rows = [
        (
            r["recipe"],
            r["workers"],
            f"{r['per_second']:.0f}",
            f"{r['per_second'] / NEEDED:.2f}",
            f"{r['cpu_ms']:.2f}",
        )
        + tuple(f"{r['steps_ms'][step]:.2f}" if step in r["steps_ms"] else "-" for step in STEPS)
        for r in records
    ]
    return table(heads, rows)


STUDY = Study(
    "the trainer's loader by recipe, with photographs: samples/s, and each step", 4096, (), run, text
)
