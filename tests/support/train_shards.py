"""Finished shards of made-up people for the loader's tests."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from export_fakes import make_fields, make_metas, write_run
from PIL import Image

from skelfit.config.pipeline import ImageConfig
from skelfit.images.image_bytes import check_image
from skelfit.images.square_crop import CropBox, cut_crops
from skelfit.learning.data.augmentation import AugmentConfig
from skelfit.learning.data.data_loader import DataConfig
from skelfit.learning.data.person_stream import SubsetConfig
from skelfit.learning.data.training_batch import TrainingBatch

WIDTH, HEIGHT, PEOPLE = 240, 200, 22


STILL = AugmentConfig(scale=0, color=0, extreme_crop=0)


def ramp(form: str = "PNG") -> bytes:
    """An image whose red and green are the x and y of a pixel; blue is 255."""
    pixels = np.full((HEIGHT, WIDTH, 3), 255, np.uint8)
    pixels[..., 0], pixels[..., 1] = np.arange(WIDTH), np.arange(HEIGHT)[:, None]
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


def write_people(
    folder: Path, people: int = PEOPLE, subset: str = "people", *, crops: bool = False, **meta: Sequence[Any]
) -> Path:
    """Finished shards of 4 people each, with a ramp as everyone's image, or crops of it."""
    rng = np.random.default_rng(1)
    fields = make_fields(people)
    fields["center"] = rng.uniform((80, 80), (150, 120), (people, 2)).astype(np.float32)
    fields["scale"] = rng.uniform(0.2, 0.6, (people, 2)).astype(np.float32)
    fields["gtkps"][..., :2] = rng.uniform(0, 200, (people, 44, 2))
    fields["gtkps"][..., 2] = rng.integers(0, 2, (people, 44))
    pictures = [check_image(ramp(), "png")] * people
    if crops:
        sides = 200 * fields["scale"].max(axis=1)
        boxes = [
            CropBox(x, y, s) for (x, y), s in zip(fields["center"].tolist(), sides.tolist(), strict=True)
        ]
        pictures = cut_crops(pictures[0], boxes, ImageConfig(mode="crop", quality=100))
    given: dict[str, Sequence[Any]] = {
        "image": [True] * people,
        "image_size": [p.size for p in pictures],
        "affine": [p.affine for p in pictures],
    }
    metas = [m | {"key": f"{subset}-{m['key']}"} for m in make_metas(people, **given | meta)]
    images = {i: (p.ending, p.data or b"") for i, p in enumerate(pictures)}
    return write_run(folder, fields, metas, images=images, shard_size=4, subset=subset)


def data_config(folder: Path, **changes: Any) -> DataConfig:
    config = DataConfig((SubsetConfig(f"{folder}/*.tar"),), batch_size=3, workers=0, shuffle=5)
    return replace(config, **changes)


def same(one: TrainingBatch, other: TrainingBatch) -> bool:
    return one.keys == other.keys and all(
        torch.equal(a, b)
        for a, b in zip(vars(one).values(), vars(other).values(), strict=True)
        if isinstance(a, torch.Tensor)
    )
