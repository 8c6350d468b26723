"""Small videos."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

_TICK = Fraction(1, 1000)
_UNIT = 0x00010000  # 1 in a file's matrix
QUARTER_TURN = (0, _UNIT, 0, -_UNIT, 0, 0, 0, 0, 0x40000000)  # of phones that are held upright


def write_video(
    path: Path, frames: Sequence[np.ndarray], times: Sequence[float], pixel_aspect: Fraction | None = None
) -> Path:
    """A video of frames (H,W,3) at times in s; every second frame can be decoded by itself."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", time_base=_TICK, options={"g": "2", "bf": "0", "crf": "10"})
        height, width = frames[0].shape[:2]
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.codec_context.time_base = _TICK
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        for pixels, seconds in zip(frames, times, strict=True):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), "rgb24")
            frame.pts, frame.time_base = round(seconds / _TICK), _TICK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def turn_video(path: Path) -> None:
    """Mark an MP4 file as to be shown turned clockwise by a quarter."""
    data = bytearray(path.read_bytes())
    matrix = data.index(b"tkhd") + 4 + 40
    data[matrix : matrix + 36] = struct.pack(">9i", *QUARTER_TURN)
    path.write_bytes(data)


def damage_frame(path: Path, number: int) -> None:
    """Overwrite the coded bytes of a frame with zeros."""
    with av.open(str(path)) as container:
        packet = [each for each in container.demux(video=0) if each.size][number]
        start, size = packet.pos, packet.size
    data = bytearray(path.read_bytes())
    data[start : start + size] = bytes(size)
    path.write_bytes(data)
