"""What was given to be predicted: photos, videos, and folders of them; and the images in them, in order."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from skelfit.errors import InputError
from skelfit.images.decoding import ENDINGS
from skelfit.images.image_bytes import ending_of
from skelfit.learning.inference.photo_results import Moment, PhotoFile
from skelfit.learning.inference.step_times import StepTimes
from skelfit.learning.inference.video_frames import ENDINGS as VIDEO_ENDINGS
from skelfit.learning.inference.video_frames import (
    UNREADABLE,
    VideoError,
    VideoFrame,
    count_frames,
    read_frames,
)
from skelfit.storage.path_checks import count_endings, describe_skipped


@dataclass(frozen=True)
class GivenImage:
    """A photo or frame to be predicted, or why there is none."""

    file: PhotoFile
    frame: VideoFrame | None = None  # of a video; None: a file, which is not read yet


@dataclass(frozen=True)
class GivenImages:
    """Image and video files, in order, and which of them are frames."""

    photos: tuple[PhotoFile, ...]
    videos: tuple[PhotoFile, ...]
    every: int = 1

    def images(self, times: StepTimes) -> Iterator[GivenImage]:
        """All images: photos, then the frames of each video, decoded one at a time."""
        yield from map(GivenImage, self.photos)
        for video in self.videos:
            frames = self._frames(video)
            while True:
                with times.of("decode"):
                    given = next(frames, None)
                if given is None:
                    break
                yield given

    def count(self) -> int | None:
        """How many images there are; None where a video does not say."""
        frames = [count_frames(video.path) for video in self.videos]
        known = [-(-number // self.every) for number in frames if number is not None]
        return len(self.photos) + sum(known) if len(known) == len(frames) else None

    def _frames(self, video: PhotoFile) -> Iterator[GivenImage]:
        try:
            for frame in read_frames(video.path, self.every):
                name = f"{video.name}-{frame.number:06d}"
                path = video.path / f"{frame.number:06d}"
                yield GivenImage(
                    PhotoFile(path, name, Moment(video.name, frame.number, frame.seconds)), frame
                )
        except VideoError as error:
            yield GivenImage(video, VideoFrame(0, 0.0, None, UNREADABLE, str(error)))


def find_images(
    paths: Sequence[Path],
    say: Callable[[str], None] | None = None,
    *,
    frame_rate: float | None = None,
    every: int = 1,
) -> GivenImages:
    """The images and videos of files and folders, each once, in order; say: is told what is skipped in a folder.

    frame_rate: Hz; the photos of each folder are then the frames of a sequence. every: takes every n-th frame of
    sequences. Something with the name of an image or video that is no file is included, and gets a status. Raises
    InputError for a folder without them.
    """
    files = _files_of(paths, say)
    photos = [path for path in files if not _is_video(path)]
    used = set[str]()
    if frame_rate is None:
        named = [PhotoFile(path, _unused(path.stem, used)) for path in photos]
    else:
        named = _as_frames(photos, frame_rate, every, used)
    videos = [PhotoFile(path, _unused(path.stem, used)) for path in files if _is_video(path)]
    return GivenImages(tuple(named), tuple(videos), every)


def _files_of(paths: Sequence[Path], say: Callable[[str], None] | None) -> list[Path]:
    endings = ENDINGS | VIDEO_ENDINGS
    files: dict[Path, None] = {}
    for path in paths:
        if not path.is_dir():
            files[path] = None
            continue
        inside = [p for p in sorted(path.rglob("*"), key=_in_natural_order) if not p.is_dir()]
        found = [p for p in inside if ending_of(p.name) in endings]
        skipped = describe_skipped(count_endings(set(inside).difference(found)), "images")
        if not found:
            raise InputError(path, None, f"images ({', '.join(sorted(endings))})", skipped or "none")
        files |= dict.fromkeys(found)
        if skipped and say is not None:
            say(f"{path}: {skipped}")
    return list(files)


def _as_frames(photos: Sequence[Path], rate: float, every: int, used: set[str]) -> list[PhotoFile]:
    """The photos of each folder as frames of a sequence, which is called as the folder."""
    frames, folders = list[PhotoFile](), dict[Path, list[Path]]()
    for path in photos:
        folders.setdefault(path.parent, []).append(path)
    for folder, inside in folders.items():
        sequence = _unused(folder.absolute().name or "photos", used)
        for number, path in enumerate(inside):
            if number % every == 0:
                moment = Moment(sequence, number, number / rate)
                frames.append(PhotoFile(path, f"{sequence}-{number:06d}", moment))
    return frames


def _is_video(path: Path) -> bool:
    return ending_of(path.name) in VIDEO_ENDINGS


def _in_natural_order(path: Path) -> tuple[tuple[tuple[bool, int, str], ...], ...]:
    """A key by which frame2 comes before frame10."""

    def key(piece: str) -> tuple[bool, int, str]:
        return (False, int(piece), piece) if piece.isdecimal() else (True, 0, piece)

    return tuple(tuple(map(key, re.split(r"(\d+)", part))) for part in path.parts)


def _unused(wanted: str, used: set[str]) -> str:
    """A name that is not among those that are used; adds it to them."""
    name, number = wanted, 1
    while name in used:
        number += 1
        name = f"{wanted}-{number}"
    used.add(name)
    return name
