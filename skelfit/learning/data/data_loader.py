"""From the people of finished shards to batches, deterministic and resumable.

A position is an epoch and a number of batches. Worker w of W makes the batches w, w + W, ... of its process, always
from the same samples. To resume at a position, the worker of the next batch starts, and each worker skips the samples
of the batches before, without decoding them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, IterableDataset, default_collate, get_worker_info

from skelfit.config.yaml_dataclasses import bounded, location
from skelfit.errors import ConfigError
from skelfit.learning.data.augmentation import AugmentConfig, Variation, draw, recolored
from skelfit.learning.data.crop_labels import batch_of
from skelfit.learning.data.degradations import degraded
from skelfit.learning.data.person_crops import Square, read_crop, square_around
from skelfit.learning.data.person_stream import (
    ALL,
    Part,
    PersonSample,
    PersonSource,
    SubsetConfig,
    in_order,
    person_source,
    shuffled,
    weigh,
)
from skelfit.learning.data.supervision import SupervisionConfig, supervised
from skelfit.learning.data.training_batch import CROP, TrainingBatch
from skelfit.shards.label_vector import FloatArray, unpack
from skelfit.shards.shard_files import ShardError
from skelfit.storage.locations import location_of

_log = logging.getLogger(__name__)
Pixels = NDArray[np.uint8]  # (3,crop,crop), or (3,0,0) where images are not wanted


@dataclass(frozen=True)
class DataConfig:
    """The data, and how it is read."""

    subsets: tuple[SubsetConfig, ...] = bounded(1, default=())  # the shards; also by --shards
    # a keep-list of `skelfit verify --keep`; people that it drops are left out
    keep: str | None = location(default=None)
    held_out: float = bounded(0, 0.9, default=0.0)  # share of the people that training never sees
    batch_size: int = bounded(1, default=64)  # people per batch, of each process
    workers: int = bounded(0, default=4)  # reading processes of each process; 0: it reads by itself
    # samples that a worker holds in memory and picks the next one from
    shuffle: int = bounded(1, default=1000)
    seed: int = bounded(0, default=0)  # seed of order and augmentation
    # samples of an epoch, of all processes together; null: all people of the shards
    epoch_samples: int | None = bounded(1, default=None)
    # false: a crop's side is the longer side of the person's box, as in SKEL-CF; true: the middle 192 of 256 columns
    # contain the box, as in HSMR
    widen: bool = False
    supervision: SupervisionConfig = SupervisionConfig()  # labels that do not count
    augment: AugmentConfig = field(default_factory=AugmentConfig)  # how much samples vary


class Loader:
    """The training batches of one process, one epoch per iteration; after `resume` the rest of an epoch comes first."""

    def __init__(
        self,
        config: DataConfig,
        part: Part = ALL,
        *,
        images: bool = True,
        crop: int = CROP,
        memory: bool = False,
        only: Collection[str] | None = None,
    ) -> None:
        """part: this process of all; crop: side of the crops, px; memory: keep shards in memory after the first read
        (in each worker, for an epoch); only: keys of the only people to read.

        Raises ConfigError, ShardError.
        """
        self.config, self.part, self.crop = config, part, crop
        self.source = replace(_source(config, images=images), memory={} if memory else None)
        if only is not None:
            self.source = replace(self.source, keep=np.sort(np.array(list(only), np.bytes_)))
        self.weights, self.samples = weigh(self.source, config.subsets, config.epoch_samples)
        self.batches = self.samples // (config.batch_size * part.of)  # of an epoch, in each process
        if not self.batches:
            each = f"{part.of} x {config.batch_size}"
            raise ConfigError("data", "epoch_samples", f"at least a batch, {each}", f"{self.samples}")
        self.epoch = self.done = 0
        if config.augment.degrade:
            degraded(np.zeros((32, 32, 3), np.uint8), 0, 1.0)  # raises now if it is missing

    def __iter__(self) -> Iterator[TrainingBatch]:
        """The batches that are left of the epoch; the last one moves the position to the next epoch."""
        span = _Span(self.weights, self.epoch, self.done, self.batches)
        batches = _Batches(self.source, self.config, self.part, self.crop, span)
        for batch in _loader(batches, self.config.workers):
            self.done += 1
            if self.done == self.batches:
                self.epoch, self.done = self.epoch + 1, 0
            yield batch

    def state(self) -> dict[str, Any]:
        """The position, the same in all processes, as plain data."""
        samples = self.done * self.config.batch_size * self.part.of
        return {"epoch": self.epoch, "samples": samples, "order": self._order()}

    def resume(self, state: dict[str, Any]) -> None:
        """Continue at a state. Raises ConfigError when something that determines the order of the samples changed."""
        for key, value in self._order().items():
            if state["order"].get(key) != value:
                raise ConfigError("data", key, f"{state['order'].get(key)}, to go on in order", f"{value}")
        self.epoch = state["epoch"]
        self.done = state["samples"] // (self.config.batch_size * self.part.of)

    def _order(self) -> dict[str, Any]:
        """What determines the order of the samples, beside the content of the shards."""
        return {
            "seed": self.config.seed,
            "held_out": self.config.held_out,
            "batch_size": self.config.batch_size,
            "workers": self.config.workers,
            "shuffle": self.config.shuffle,
            "processes": self.part.of,
            "samples": self.samples,
            "weights": list(self.weights),
            "shards": [len(tars) for tars in self.source.tars],
            "kept": None if self.source.keep is None else len(self.source.keep),
        }


def each_once(
    config: DataConfig,
    part: Part = ALL,
    *,
    images: bool = True,
    crop: int = CROP,
    held_out: bool = False,
) -> DataLoader[TrainingBatch]:
    """Batches of all people once, without augmentation; a reader's last batch may be smaller.

    held_out: the people that training never sees, in place of the others.
    """
    source = _source(config, images=images, validation=held_out)
    return _loader(_Batches(source, config, part, crop, None), config.workers)


def _source(config: DataConfig, **options: bool) -> PersonSource:
    keep = None if config.keep is None else location_of(config.keep)
    return person_source(config.subsets, keep, held_out=config.held_out, **options)


def _loader(batches: _Batches, workers: int) -> DataLoader[TrainingBatch]:
    return DataLoader(
        batches,
        batch_size=None,
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
        # Workers need no seeds; the default would draw some from the generator of the network's dropout.
        generator=torch.Generator(),
    )


class _Span(NamedTuple):
    """A range of an epoch's batches."""

    weights: tuple[float, ...]
    epoch: int
    first: int
    stop: int


class _Batches(IterableDataset[TrainingBatch]):
    """The batches that a worker makes: of a range of an epoch, or of all people once (span None)."""

    def __init__(
        self, source: PersonSource, config: DataConfig, part: Part, crop: int, span: _Span | None
    ) -> None:
        self.source, self.config, self.part, self.crop, self.span = source, config, part, crop, span

    def __iter__(self) -> Iterator[TrainingBatch]:
        info = get_worker_info()
        worker, workers = (0, 1) if info is None else (info.id, info.num_workers)
        if self.span is not None:
            return self._epoch(self.span, worker, workers)
        return self._once(in_order(self.source, self._reader(worker, workers)))

    def _reader(self, worker: int, workers: int) -> Part:
        return Part(self.part.number * workers + worker, self.part.of * workers)

    def _epoch(self, span: _Span, worker: int, workers: int) -> Iterator[TrainingBatch]:
        size = self.config.batch_size
        role = (span.first + worker) % workers  # number of the worker with these batches in a whole epoch
        reader = self._reader(role, workers)
        seed = f"{self.config.seed} {span.epoch}"
        people = shuffled(self.source, span.weights, reader, self.config.shuffle, seed)
        skipped = len(range(role, span.first, workers))
        people = islice(people, skipped * size, None)
        for number in range(skipped, len(range(role, span.stop, workers))):
            rng = np.random.default_rng([self.config.seed, span.epoch, reader.number, number])
            yield self._augmented(list(islice(people, size)), rng)

    def _once(self, people: Iterator[PersonSample]) -> Iterator[TrainingBatch]:
        while chunk := list(islice(people, self.config.batch_size)):
            variations = [Variation(square) for square in self._squares(_labels_of(chunk))]
            pixels = self._pixels(chunk, variations)
            good = [i for i, image in enumerate(pixels) if image is not None]
            if good:
                yield self._batch(chunk, variations, pixels, good, SupervisionConfig())

    def _augmented(self, people: list[PersonSample], rng: np.random.Generator) -> TrainingBatch:
        """A batch of augmented people; a person whose image cannot be decoded is replaced by another of the batch."""
        labels, config = _labels_of(people), self.config
        keypoints = supervised(labels, config.supervision).keypoints2d
        squares = self._squares(labels)
        variations = [draw(*pair, config.augment, rng) for pair in zip(squares, keypoints, strict=True)]
        pixels = self._pixels(people, variations)
        good = [i for i, image in enumerate(pixels) if image is not None]
        if not good:
            raise ShardError(
                people[0].key, None, "an image that can be decoded, here or in its batch", "none"
            )
        chosen = [i if pixels[i] is not None else good[i % len(good)] for i in range(len(people))]
        return self._batch(people, variations, pixels, chosen, config.supervision)

    def _batch(
        self,
        people: Sequence[PersonSample],
        variations: Sequence[Variation],
        pixels: Sequence[Pixels | None],
        chosen: list[int],
        supervision: SupervisionConfig,
    ) -> TrainingBatch:
        """The batch of some of the people."""
        # In a worker this stacks them in memory that the trainer shares.
        stacked = default_collate(
            [torch.from_numpy(image) for i in chosen if (image := pixels[i]) is not None]
        )
        few, varied = [people[i] for i in chosen], [variations[i] for i in chosen]
        return batch_of(few, varied, stacked, supervision)

    def _pixels(self, people: list[PersonSample], variations: list[Variation]) -> list[Pixels | None]:
        if not self.source.images:
            return [np.zeros((3, 0, 0), np.uint8)] * len(people)
        rate = self.config.augment.degrade
        return [_crop_pixels(*pair, self.crop, rate) for pair in zip(people, variations, strict=True)]

    def _squares(self, labels: dict[str, FloatArray]) -> list[Square]:
        """The squares around people's boxes."""
        boxes = np.concatenate([labels["center"], 200 * labels["scale"]], axis=1).tolist()
        return [square_around(*box, widen=self.config.widen) for box in boxes]


def _labels_of(people: Sequence[PersonSample]) -> dict[str, FloatArray]:
    """The fields of people's labels."""
    return unpack(np.stack([person.label for person in people]))


def _crop_pixels(person: PersonSample, variation: Variation, size: int, rate: float) -> Pixels | None:
    """The pixels of a person's crop; None, and a line in the log, where the image cannot be decoded."""
    turn = -variation.turn if variation.flip else variation.turn  # the mirror turns it back
    try:
        pixels = read_crop(person.image, person.meta["affine"], variation.square, size, turn)
    except Exception as error:  # a decoder may raise anything on damaged bytes
        _log.warning("%s: left out, its image cannot be decoded: %r", person.key, error)
        return None
    pixels = pixels[:, ::-1] if variation.flip else pixels
    if variation.degrade is not None:
        pixels = degraded(pixels, variation.degrade, rate)
    return recolored(pixels, variation.colors)
