"""From finished shards to a stream of people: a function of a seed, an epoch and the number of the reader.

Training reads without end. Each reader goes through its share of a subset's shards; every pass has another order and
other shares, and each person once. The reader draws the next subset by the subsets' weights, and shuffles the people
in a buffer. The caller says how many people make an epoch.
"""

from __future__ import annotations

import glob
import io
import json
import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, count
from typing import Any, NamedTuple
from zlib import crc32

import numpy as np
from braceexpand import braceexpand
from numpy.typing import NDArray
from webdataset.tariterators import group_by_keys, tar_file_expander

from skelfit.config.yaml_dataclasses import bounded, location
from skelfit.shards.keep_list import read_keep
from skelfit.shards.label_vector import LABEL_SIZE, LAYOUT_VERSION, FloatArray, label_from_npy
from skelfit.shards.shard_files import ShardError, shard_of
from skelfit.shards.shard_reader import read_marker
from skelfit.storage.locations import (
    LOCATION,
    Location,
    describe_unusable,
    files_matching,
    location_of,
    side_by_side,
    text_of,
)
from skelfit.storage.path_checks import describe_non_file

_log = logging.getLogger(__name__)
_LABEL, _META = "label.npy", "meta.json"
_IN_CAMERA = ("camera", "camera_axes", "crop_camera")  # coordinates that belong to an image


@dataclass(frozen=True)
class SubsetConfig:
    """The shards of a subset, and its weight."""

    shards: str = location()  # tars: a path with *, ? or [0-9], or with {000000..000312}
    # how often its people come, relative to the others; null: its number of people
    weight: float | None = bounded(1e-9, default=None)


class Part(NamedTuple):
    """One of several readers that share the data."""

    number: int
    of: int


ALL = Part(0, 1)


class PersonSample(NamedTuple):
    """A sample before its image is decoded."""

    key: str
    label: FloatArray  # (LABEL_SIZE,)
    meta: dict[str, Any]
    image: bytes


@dataclass(frozen=True)
class PersonSource:
    """The tars of each subset, which of their people to read, and whether with images."""

    tars: tuple[tuple[str, ...], ...]
    keep: NDArray[np.bytes_] | None  # sorted keys; None: everyone
    images: bool
    held_out: float = 0.0  # the share of people that only validation reads
    validation: bool = False  # read that share, in place of the others
    memory: dict[str, list[PersonSample | None]] | None = None  # people by tar, once read; None: not kept

    def wants(self, key: str) -> bool:
        """Whether to read the person of a key; the key alone decides whether it is held out."""
        held = crc32(key.encode()) < self.held_out * 2**32
        return held == self.validation and (self.keep is None or _holds(self.keep, key))


def person_source(subsets: Sequence[SubsetConfig], keep: Location | None, **options: Any) -> PersonSource:
    """The source of some subsets, with a keep-list; options: the other fields. Raises InputError."""
    tars = tuple(find_tars(subset.shards) for subset in subsets)
    return PersonSource(tars, None if keep is None else _keys_of(keep), **options)


def weigh(
    source: PersonSource, subsets: Sequence[SubsetConfig], samples: int | None
) -> tuple[tuple[float, ...], int]:
    """The subsets' weights, and the samples of an epoch; those that are not given are counted in the done markers.

    Raises ShardError when a marker is missing.
    """
    weights = [subset.weight for subset in subsets]
    if samples is None or None in weights:
        counts = [round((1 - source.held_out) * sum(map(_people_in, paths))) for paths in source.tars]
        samples = samples or sum(counts)
        weights = [n if w is None else w for n, w in zip(counts, weights, strict=True)]
    return tuple(float(w or 0) for w in weights), samples


def find_tars(pattern: str) -> tuple[str, ...]:
    """The tars of a pattern, in order. Raises ShardError when one is missing, or none matches."""
    if (problem := describe_unusable(pattern)) is not None:
        raise ShardError("shards", None, LOCATION, problem)
    tars: list[str] = []
    for piece in braceexpand(pattern):
        tars += map(text_of, files_matching(location_of(piece))) if glob.has_magic(piece) else [piece]
    there = side_by_side(lambda path: location_of(path).is_file(), tars, location_of(tars[0] if tars else ""))
    missing = [path for path, exists in zip(tars, there, strict=True) if not exists]
    if missing or not tars:
        name = missing[0] if missing else pattern
        raise ShardError(name, None, "finished shards (tar)", describe_non_file(name) or "no such file")
    return tuple(tars)


def _people_in(tar: str) -> int:
    """How many samples a tar has, by its marker."""
    return read_marker(shard_of(location_of(tar))).rows_out


def _keys_of(path: Location) -> NDArray[np.bytes_]:
    """The sorted keys that a keep-list keeps. Raises InputError."""
    keys = [key for key, kept in read_keep(path).items() if kept]
    if not keys:
        raise ShardError(path, "keep", "at least one kept person", "none")
    return np.sort(np.array(keys, np.bytes_))


def share(names: Sequence[str], part: Part) -> tuple[Sequence[str], Part]:
    """A reader's tars; where there are more readers than tars, one tar, and the reader's part of its samples.

    All shares together have each sample once.
    """
    if part.of <= len(names):
        return names[part.number :: part.of], ALL
    tar = part.number % len(names)
    return names[tar : tar + 1], Part(part.number // len(names), len(range(tar, part.of, len(names))))


def in_order(source: PersonSource, part: Part) -> Iterator[PersonSample]:
    """Each person once, in the order of the shards."""
    for tars in source.tars:
        mine, of_each = share(tars, part)
        yield from read_people(mine, of_each, source)


def shuffled(
    source: PersonSource, weights: Sequence[float], part: Part, size: int, seed: str
) -> Iterator[PersonSample]:
    """People without end, by the subsets' weights, shuffled in a buffer of `size`. Raises ShardError without people."""
    rng = random.Random(f"{seed} {part.number}")
    streams = [_endless(tars, source, part, f"{seed} {i}") for i, tars in enumerate(source.tars)]
    buffer: list[PersonSample] = []
    while True:
        person = next(rng.choices(streams, weights)[0])
        if len(buffer) < size:
            buffer.append(person)
        else:
            i = rng.randrange(size)
            buffer[i], person = person, buffer[i]
            yield person


def _endless(tars: tuple[str, ...], source: PersonSource, part: Part, seed: str) -> Iterator[PersonSample]:
    """Pass after pass over a subset; every pass gives each reader another share."""
    empty_passes = 0
    for number in count():
        order = random.Random(f"{seed} {number}").sample(tars, len(tars))
        mine, of_each = share(order, Part((part.number + number) % part.of, part.of))
        people = read_people(mine, of_each, source)
        for person in people:
            empty_passes = -1
            yield person
        empty_passes += 1
        if empty_passes == part.of:  # this reader has had every share
            what = "an image" if source.images else "coordinates of a camera"
            kept = " that the keep-list keeps" if source.keep is not None else ""
            raise ShardError(
                tars[0], None, f"people{kept} with {what}, here or in {len(tars) - 1} more", "none"
            )


def read_people(tars: Iterable[str], part: Part, source: PersonSource) -> Iterator[PersonSample]:
    """Every n-th person of some tars, if it can be trained on: in camera coordinates, and with an image.

    Damaged samples are left out and logged. Raises ShardError for labels of another layout.
    """
    for i, person in enumerate(chain.from_iterable(_people_of(tar, source) for tar in tars)):
        if i % part.of == part.number and person is not None and source.wants(person.key):
            yield person


def _people_of(tar: str, source: PersonSource) -> Iterable[PersonSample | None]:
    """A tar's samples, from memory if the source has one; None for a sample that cannot be trained on."""
    if source.memory is None:
        return _read(tar, source)
    if tar not in source.memory:
        source.memory[tar] = list(_read(tar, source))
    return source.memory[tar]


def _read(tar: str, source: PersonSource) -> Iterator[PersonSample | None]:
    for sample in _samples(tar, images=source.images):
        key = sample["__key__"]
        if not source.wants(key):
            yield None
            continue
        try:
            meta, label = json.loads(sample[_META]), _read_label(sample[_LABEL])
            layout, coordinates = meta["layout"], meta["coordinates"]
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("%s: %s: left out, its label cannot be read: %r", sample["__url__"], key, error)
            yield None
            continue
        if layout != LAYOUT_VERSION or label.shape != (LABEL_SIZE,):
            raise ShardError(sample["__url__"], f"{key}: layout", LAYOUT_VERSION, f"{layout} {label.shape}")
        images = [v for k, v in sample.items() if not k.startswith("__") and k not in (_LABEL, _META)]
        good = coordinates in _IN_CAMERA and (images or not source.images)
        yield PersonSample(key, label, meta, images[0] if images else b"") if good else None


def _samples(tar: str, *, images: bool) -> Iterator[dict[str, Any]]:
    """The members of each sample by their endings, its key, and its tar."""
    selected = None if images else lambda name: name.endswith((_LABEL, _META))
    try:
        # Not webdataset's gopen, which runs a file named "pipe:..." as a command.
        with location_of(tar).open("rb") as stream:
            members = tar_file_expander([{"url": tar, "stream": stream}], _log_damage, select_files=selected)
            yield from group_by_keys(members, handler=_log_damage)
    except OSError as error:
        _log_damage(error)


def _log_damage(error: Exception) -> bool:
    # Webdataset adds the stream and the path of the tar to the arguments of an error.
    texts = [part for part in reversed(error.args) if isinstance(part, str)]
    if isinstance(error, OSError) and error.filename is not None:
        texts.insert(0, str(error.filename))
    _log.warning("a damaged shard, or a part of one, is left out: %s", ": ".join(texts))
    return True


def _holds(keep: NDArray[np.bytes_], key: str) -> bool:
    i = int(np.searchsorted(keep, key.encode()))
    return i < len(keep) and bool(keep[i] == key.encode())


def _read_label(data: bytes) -> FloatArray:
    label = label_from_npy(data)
    return np.load(io.BytesIO(data), allow_pickle=False) if label is None else label
