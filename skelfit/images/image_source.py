"""Sources of images: a folder, or tars that stand for one. A shard's images are read in order and ahead of use."""

from __future__ import annotations

import glob
import os
import stat
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Protocol

from braceexpand import braceexpand

from skelfit.config.pipeline import ImageConfig
from skelfit.images.decoding import ENDINGS
from skelfit.images.image_bytes import (
    MAX_BYTES,
    MISSING,
    TOO_LARGE,
    UNREADABLE,
    ShardImage,
    check_image,
    ending_of,
)
from skelfit.images.square_crop import CropBox, cut_crops
from skelfit.images.tar_index import INDEX_ENDING, ImageError, TarImages, TarMember, tar_state
from skelfit.storage.local_cache import local_copy
from skelfit.storage.locations import (
    Location,
    Place,
    below,
    files_matching,
    location_of,
    side_by_side,
)
from skelfit.storage.path_checks import describe_non_file

# Images read at the same time: a network drive answers late, but many at once. This also bounds the memory.
THREADS, TOGETHER = 4, 4
AHEAD = 4  # times as many as one thread reads together, which costs less than one by one


@dataclass(frozen=True)
class ImageLocation:
    """The images that a manifest or a command line names: a folder, or tars in their order."""

    folder: Location | None
    tars: tuple[Location, ...] = ()
    missing: tuple[Location, ...] = ()  # tars that a pattern names one by one but that do not exist


def locate_images(text: str, root: Location | None = None) -> ImageLocation | None:
    """The folder or tars of a text such as `coco/train2014`, `h36m/*.tar` or `s3://b/h36m/{000000..000312}.tar`.

    Relative paths are below `root`. None when nothing is there. Raises ImageError for a malformed pattern.
    """
    base = Path() if root is None else root
    if (whole := below(base, text)).is_dir():
        return ImageLocation(whole.absolute())
    try:
        pieces = list(braceexpand(text))
    except ValueError:
        raise ImageError(whole, None, "a pattern with as many { as }", text) from None
    tars: dict[Location, None] = {}
    missing: list[Location] = []
    paths = [below(base, piece).absolute() for piece in pieces]
    there = side_by_side(lambda path: path.exists(), paths, paths[0])
    for piece, path, exists in zip(pieces, paths, there, strict=True):
        if exists:
            matches = [path]
        elif glob.has_magic(piece):
            matches = files_matching(path)
        else:
            matches = []
            missing.append(path)
        tars.update(dict.fromkeys(matches))
    return ImageLocation(None, tuple(tars), tuple(missing)) if tars else None


class ImageSource(Protocol):
    """Images by name."""

    def find(self, name: str) -> Location | TarMember | None:
        """Where an image is, as far as that is known without opening it."""

    def similar(self, name: str) -> str | None:
        """An image of the same base name in another folder, where it is quick to search."""

    def close(self) -> None:
        """Release open files."""


class FolderImages:
    """The images below a folder."""

    def __init__(self, folder: Location) -> None:
        self._folder = folder

    def find(self, name: str) -> Location:
        """The file of an image, whether or not it exists."""
        return self._folder / name

    def similar(self, name: str) -> None:
        """Nothing: a search through folders takes too long."""

    def close(self) -> None:
        """Nothing is open."""


def open_images(place: Place) -> ImageSource:
    """The images of a folder, or of the index of tars. Raises ImageError when an index cannot be used."""
    location = location_of(place)
    is_index = location.is_file() if isinstance(location, Path) else location.suffix == INDEX_ENDING
    return TarImages(local_copy(location)) if is_index else FolderImages(location)


def read_images(
    source: ImageSource, requests: Iterable[tuple[str, CropBox]], config: ImageConfig
) -> Generator[ShardImage, None, None]:
    """The images of people, in order, a few read ahead.

    requests: of each person the name of the image ('' where there is none) and the box. An image that consecutive
    people share is read once. Raises ImageError when a tar is not the one that was indexed.
    """
    ahead: deque[Future[list[ShardImage]]] = deque()
    with ThreadPoolExecutor(THREADS, "images") as pool:
        try:
            wanted = _wanted(source, requests)
            while few := list(islice(wanted, TOGETHER)):
                ahead.append(pool.submit(_pictures, few, config))
                if len(ahead) > AHEAD:
                    yield from ahead.popleft().result()
            while ahead:
                yield from ahead.popleft().result()
        finally:
            for future in ahead:
                future.cancel()


@dataclass(frozen=True)
class _WantedImage:
    """An image, and the boxes of its people."""

    location: Location | TarMember | None
    fault: ShardImage | None  # what is known of it by its name
    boxes: list[CropBox]


def _wanted(source: ImageSource, requests: Iterable[tuple[str, CropBox]]) -> Iterator[_WantedImage]:
    for name, people in groupby(requests, key=lambda person: person[0]):
        boxes = [box for _, box in people]
        # A bad name gives the same reason for a folder and for tars.
        fault = _name_fault(name) if name else None
        yield _WantedImage(source.find(name) if name else None, fault, boxes)


def _pictures(images: list[_WantedImage], config: ImageConfig) -> list[ShardImage]:
    """The pictures of the people of some images, in order."""
    pictures = []
    for image in images:
        picture = image.fault or read_image(image.location)
        if picture.data is None or config.mode != "crop":
            pictures += [picture] * len(image.boxes)
        else:
            pictures += cut_crops(picture, image.boxes, config)
    return pictures


def read_image(location: Location | TarMember | None) -> ShardImage:
    """Read and check an image; None is one that there is not. Raises ImageError when a tar is not as indexed."""
    if location is None:
        return ShardImage(None, reason=MISSING)
    if fault := _name_fault(location.name):
        return fault
    try:
        data = _member_bytes(location) if isinstance(location, TarMember) else _file_bytes(location)
    except _UnreadableImageError as error:
        return error.result
    return check_image(data, ending_of(location.name))


def _name_fault(name: str) -> ShardImage | None:
    """The fault of a name without the ending of an image, which could pass for a label; None for a good name."""
    ending = ending_of(name)
    if ending in ENDINGS:
        return None
    detail = f"its name ends with .{ending}, which is not read" if ending else "its name has no ending"
    return ShardImage(None, reason=MISSING, detail=detail)


class _UnreadableImageError(Exception):
    """An image that cannot be read; holds the result with the reason."""

    def __init__(self, reason: str, detail: str = "") -> None:
        self.result = ShardImage(None, reason=reason, detail=detail)


def _file_bytes(path: Location) -> bytes:
    try:
        if not isinstance(path, Path):  # in one request
            data = path.read_bytes()
            _check_size(len(data))
            return data
        # Python's own files take three times as long, and let other threads in between. To open a named pipe waits for
        # its writer unless it is told not to.
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if stat.S_ISREG(status.st_mode):
                _check_size(status.st_size)
                return _read(file, 0, status.st_size)
        finally:
            os.close(file)
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a name with a zero byte
        raise _UnreadableImageError(MISSING) from None
    except OSError as error:
        other = describe_non_file(path)
        detail = f"{other}, not a regular file" if other else error.strerror or ""
        raise _UnreadableImageError(UNREADABLE, detail) from None
    raise _UnreadableImageError(UNREADABLE, f"{describe_non_file(path)}, not a regular file")


def _read(file: int, start: int, size: int) -> bytes:
    """So many bytes of an open file; fewer where it ends before."""
    data = os.pread(file, size, start)
    while len(data) < size and (more := os.pread(file, size - len(data), start + len(data))):
        data += more
    return data


def _check_size(size: int) -> None:
    if size > MAX_BYTES:
        raise _UnreadableImageError(TOO_LARGE, f"{size:,} bytes, at most {MAX_BYTES:,} are read")


def _member_bytes(member: TarMember) -> bytes:
    _check_size(member.bytes)
    if other := describe_non_file(member.tar):
        raise ImageError(member.tar, None, "the tar that was indexed", other)
    expected = "the tar that was indexed (give the same command again: it is indexed again)"
    tar = location_of(member.tar)
    try:
        if not isinstance(tar, Path):
            if tar_state(tar)[1:] != (member.tar_bytes, member.tar_mtime_ns):
                raise ImageError(tar, None, expected, "one of another size or time")
            return tar.read_range(member.start, member.start + member.bytes)
        file = os.open(member.tar, os.O_RDONLY | os.O_CLOEXEC)
        try:
            status = os.fstat(file)
            if (status.st_size, status.st_mtime_ns) != (member.tar_bytes, member.tar_mtime_ns):
                raise ImageError(member.tar, None, expected, "one of another size or time")
            return _read(file, member.start, member.bytes)  # less where the tar is cut short: a damaged image
        finally:
            os.close(file)
    except FileNotFoundError:
        raise ImageError(member.tar, None, expected, "no such file") from None
    except OSError as error:
        raise _UnreadableImageError(UNREADABLE, error.strerror or "") from None
