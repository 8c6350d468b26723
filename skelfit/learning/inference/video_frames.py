"""The frames of a video file, one at a time: upright, with square pixels, and with their time stamps.

PyAV decodes, which contains FFmpeg. Frames that cannot be decoded are given, too, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from skelfit.errors import InputError
from skelfit.images.decoding import MAX_PIXELS, Pixels
from skelfit.storage.path_checks import describe_non_file

ENDINGS = frozenset("avi m4v mkv mov mp4 mpeg mpg mts ts webm wmv".split())
UNREADABLE, DAMAGED, TOO_LARGE = "video_unreadable", "frame_damaged", "image_too_large"
_PROBED_RATE = 30.0  # Hz, of files that do not say theirs and have no time stamps


@dataclass(frozen=True)
class VideoFrame:
    """A frame, or why there is none."""

    number: int  # among all frames of the video, from 0
    seconds: float  # since the first frame
    pixels: Pixels | None
    status: str = ""
    reason: str = ""


class VideoError(Exception):
    """A video that cannot be opened; says why."""


def require_pyav() -> None:
    """Raise InputError, which says what to install, where PyAV is missing."""
    try:
        import av  # noqa: F401
    except ImportError:
        raise InputError(
            "PyAV", None, "pip install 'skelfit[video]', to read videos", "no such package"
        ) from None


def count_frames(path: Path) -> int | None:
    """How many frames a video has by its header, roughly; None where it does not say."""
    try:
        with _opened(path) as container:
            return container.streams.video[0].frames or None
    except VideoError:
        return None


def read_frames(path: Path, every: int = 1) -> Iterator[VideoFrame]:
    """Every n-th frame of a video, from the first. Raises VideoError for a file that is no video.

    The time of a frame is that of its stamp, whatever the rate. A frame without a stamp, or with one that is not later
    than that of the frame before, follows it by the mean distance.
    """
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        step = 1 / float(stream.average_rate or stream.guessed_rate or _PROBED_RATE)
        start, before = None, -step
        for number, frame in enumerate(_decoded(container, stream)):
            stamp = None if isinstance(frame, str) else frame.time
            if start is None and stamp is not None:
                start = stamp - (before + step)
            seconds = before + step if stamp is None or stamp - start <= before else stamp - start
            before = seconds
            if number % every == 0:
                yield _as_frame(frame, number, seconds, _stretch(stream))


def _opened(path: Path) -> Any:
    """The container of a video file. Raises VideoError."""
    import av

    if other := describe_non_file(path):
        raise VideoError(f"{other}, not a regular file")
    try:
        container = av.open(str(path))
    except FileNotFoundError:
        raise VideoError("no such file") from None
    except (av.FFmpegError, OSError, ValueError) as error:
        raise VideoError(f"expected a video, found {_text(error)}") from None
    if not container.streams.video:
        container.close()
        raise VideoError("expected a video, found a file without pictures that move")
    return container


def _decoded(container: Any, stream: Any) -> Iterator[Any]:
    """Frames in the order of time; in place of a frame that cannot be decoded, the reason."""
    import av

    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            return
        except (av.FFmpegError, OSError) as error:  # the rest of the file cannot be reached
            yield f"the file is damaged here, or ends: {_text(error)}"
            return
        try:
            yield from packet.decode()
        except (av.FFmpegError, ValueError) as error:
            yield f"cannot be decoded: {_text(error)}"


def _text(error: Exception) -> str:
    """What FFmpeg says, without the numbers and names around it."""
    return str(getattr(error, "strerror", None) or error)


def _stretch(stream: Any) -> float:
    """How much wider than high a pixel is."""
    ratio = stream.sample_aspect_ratio
    return float(ratio) if ratio else 1.0


def _as_frame(frame: Any, number: int, seconds: float, stretch: float) -> VideoFrame:
    if isinstance(frame, str):
        return VideoFrame(number, seconds, None, DAMAGED, frame)
    if frame.is_corrupt:
        return VideoFrame(number, seconds, None, DAMAGED, "the decoder found damage in it")
    width = max(1, round(frame.width * stretch))
    if width * frame.height > MAX_PIXELS:
        return VideoFrame(
            number,
            seconds,
            None,
            TOO_LARGE,
            f"{width} x {frame.height} px, at most {MAX_PIXELS:,} pixels are read",
        )
    try:
        pixels = frame.to_ndarray(format="rgba", width=width, height=frame.height)
    except Exception as error:  # such as a pixel format that swscale does not know
        return VideoFrame(number, seconds, None, DAMAGED, f"its pixels cannot be converted: {error}")
    turns = round((frame.rotation or 0) / 90) % 4  # counter-clockwise
    upright = np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels
    return VideoFrame(number, seconds, upright)
