"""What the pictures of motions have in common: their command, which rows are drawn, and how a picture is written."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

PHASES = 6
SIZE = 1440, 720  # px


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


def draw_file(
    name: str, about: str, help_text: str, draw: Callable[[Path, int, float], NDArray[np.floating]],
    words: Sequence[str] | None,
) -> None:  # fmt: skip
    """The command of a module of this package, which draws the phases of a file's motion.

    draw: the picture (H,W,3) of a file, for so many phases and degrees about the vertical. words: None for those of
    the process.
    """
    parser = argparse.ArgumentParser(prog=f"python -m tools.gallery.{name}", description=about)
    parser.add_argument("file", type=Path, help=help_text)
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="a JPEG")
    parser.add_argument("--phases", type=int, default=PHASES, help="of the motion (default: %(default)s)")
    parser.add_argument(
        "--turn", type=float, default=0.0, help="degrees about the vertical (default: %(default)s)"
    )
    given = parser.parse_args(words)
    save_jpeg(given.out, draw(given.file, given.phases, given.turn))
