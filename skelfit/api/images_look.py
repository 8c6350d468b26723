"""A look at some images of a run: whether they are there, how large they are, and what one costs."""

from __future__ import annotations

import math
import time
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from skelfit.conversion.run_plan import LabelFile, Run
from skelfit.conversion.shard_samples import images_of_people
from skelfit.images.image_source import ImageSource, open_images, read_images
from skelfit.images.square_crop import CropBox
from skelfit.images.tar_index import TarMember
from skelfit.labels.label_store import read_selected_rows

IMAGES_LOOKED_AT = 32  # of each label file, evenly from all its rows
_TAR_BLOCK = 512


@dataclass(frozen=True)
class ImagesLook:
    """What was seen; bytes and time are means over all people that were looked at."""

    looked_at: int = 0
    there: int = 0
    source_bytes: float = 0.0  # of the file that is read
    tar_bytes: float = 0.0  # in a shard
    core_ms: float = 0.0  # to read, check and cut one, of a core of this machine


def in_tar(size: int) -> int:
    """Bytes that a file takes in a tar: a header and whole blocks."""
    return _TAR_BLOCK * (1 + math.ceil(size / _TAR_BLOCK))


def look_at_images(run: Run) -> ImagesLook:
    """Read the images of some people of each label file, as a run would."""
    if run.images is None:
        return ImagesLook()
    with closing(open_images(run.images)) as source:
        people = [person for file in run.labels for person in _some_people(file)]
        if not people:
            return ImagesLook()
        _read(run, source, people[:1])  # decoders are set up with the first
        before = time.process_time()
        written = _read(run, source, people)
        seconds = time.process_time() - before
        read = written
        if run.pipeline.images.mode == "crop":
            names = (name for name, _ in people)
            read = [
                _file_bytes(source, name) if size else 0 for name, size in zip(names, written, strict=True)
            ]
    count, there = len(people), [size for size in written if size]
    return ImagesLook(
        count,
        len(there),
        source_bytes=sum(read) / count,
        tar_bytes=sum(map(in_tar, there)) / count,
        core_ms=1000 * seconds / count,
    )


def _some_people(file: LabelFile) -> list[tuple[str, CropBox]]:
    """Image and box of some people of a label file."""
    count = min(file.rows, IMAGES_LOOKED_AT)
    if not count:
        return []
    rows = np.unique(np.linspace(0, file.rows - 1, count).astype(np.int64))
    return images_of_people(read_selected_rows(file.store, rows), file)


def _read(run: Run, source: ImageSource, people: list[tuple[str, CropBox]]) -> list[int]:
    """The bytes of each person's image in a shard, 0 where there is none."""
    with closing(read_images(source, people, run.pipeline.images)) as pictures:
        return [len(picture.data or b"") for picture in pictures]


def _file_bytes(source: ImageSource, name: str) -> int:
    location = source.find(name)
    if isinstance(location, TarMember):
        return location.bytes
    return 0 if location is None else location.stat().st_size
