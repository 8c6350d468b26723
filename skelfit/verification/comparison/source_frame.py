"""What identifies a person without an image: a frame of motion capture, or a row of a label file."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple


class SourceFrame(NamedTuple):
    """A frame of a subject's sequence; or, where subject is None, a row of a label file."""

    subject: str | None
    name: str  # of the sequence, or of the label file
    number: int  # of the frame, or of the row

    def __str__(self) -> str:
        if self.subject is None:
            return f"row {self.number} of the label file {self.name!r}"
        return f"frame {self.number} of the sequence {self.name!r} (subject {self.subject!r})"


def source_frame_of(meta: Mapping[str, Any]) -> SourceFrame:
    """The source of a sample, by its metadata."""
    if meta["sequence"] is None:
        return SourceFrame(None, str(meta["label_file"]), int(meta["row"]))
    return SourceFrame(str(meta["subject"]), str(meta["sequence"]), int(meta["frame"]))
