"""What the pictures of motions have in common: which rows of a motion are drawn, and how a picture is written."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHASES = 6


def phase_rows(rows: int, phases: int) -> list[int]:
    """So many rows, evenly from the first to the last of a motion; all of a shorter one."""
    return np.unique(np.linspace(0, rows - 1, min(phases, rows)).round().astype(int)).tolist()


def joined(
    meshes: Sequence[tuple[NDArray[np.float64], NDArray[np.int32]]],
) -> tuple[NDArray[np.float64], NDArray[np.int32]]:
    """Meshes of vertices (V,3) and faces (F,3) as one mesh: drawing takes a moment for each."""
    before = np.cumsum([0, *(len(vertices) for vertices, _ in meshes[:-1])])
    faces = [faces + start for (_, faces), start in zip(meshes, before, strict=True)]
    return np.concatenate([vertices for vertices, _ in meshes]), np.concatenate(faces).astype(np.int32)


def save_jpeg(path: Path, pixels: NDArray[np.floating]) -> None:
    """Write pixels (H,W,3) of 0..255. Raises OSError."""
    picture = Image.fromarray(np.rint(pixels).clip(0, 255).astype(np.uint8))
    picture.save(path, "JPEG", quality=86, optimize=True)
