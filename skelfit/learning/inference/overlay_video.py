"""Pictures as a video, each shown until the next one's time."""

from __future__ import annotations

from contextlib import ExitStack
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from PIL import Image

from skelfit.storage.atomic_write import atomic_write

_TICK = Fraction(1, 90_000)  # s
_ENCODERS = ("libx264", "mpeg4")  # the first one that there is
_BITS_PER_PIXEL = 0.2  # of the second, which has no measure of quality


class OverlayVideo:
    """An MP4 file that is whole or absent: it is there when the block ends without an error."""

    def __init__(self, path: Path) -> None:
        self._path, self._files = path, ExitStack()
        self._container: Any = None
        self._stream: Any = None
        self._last = -1  # ticks

    def __enter__(self) -> OverlayVideo:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if kind is None and self._container is not None:
            self._container.mux(self._stream.encode())
            self._container.close()
        self._files.__exit__(kind, error, traceback)

    def add(self, picture: Image.Image, seconds: float) -> None:
        """Show a picture from a time on. All are shown at the size of the first. Raises OutputError."""
        import av

        if self._container is None:
            self._open(picture.size)
        size = self._stream.width, self._stream.height
        pixels = np.asarray(picture if picture.size == size else picture.resize(size))
        frame = av.VideoFrame.from_ndarray(pixels, "rgb24")
        self._last = max(self._last + 1, round(seconds / _TICK))
        frame.pts, frame.time_base = self._last, _TICK
        self._container.mux(self._stream.encode(frame))

    def _open(self, size: tuple[int, int]) -> None:
        import av

        temporary = self._files.enter_context(atomic_write(self._path))
        self._container = av.open(str(temporary), "w", format="mp4")
        encoder = next(name for name in _ENCODERS if name in av.codecs_available)
        self._stream = self._container.add_stream(encoder, time_base=_TICK)
        # Half the colours' resolution, so sides are even.
        self._stream.width, self._stream.height = (side - side % 2 or 2 for side in size)
        self._stream.pix_fmt = "yuv420p"
        self._stream.codec_context.time_base = _TICK
        if encoder == "libx264":
            self._stream.options = {"crf": "20", "preset": "veryfast"}
        else:
            self._stream.bit_rate = round(_BITS_PER_PIXEL * size[0] * size[1] * 30)
