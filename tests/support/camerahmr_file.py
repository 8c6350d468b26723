"""Good label files in the layout of the CameraHMR release, and such files with some arrays changed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def camerahmr_arrays(n: int = 5, seed: int = 0) -> dict[str, Any]:
    """A good label file of n people, as named arrays."""
    rng = np.random.default_rng(seed)
    camera = np.array([[500.0, 0, 128], [0, 510.0, 96], [0, 0, 1]])
    return {
        "imgname": np.array([f"train/{i:012d}.jpg" for i in range(n)]),
        "center": rng.uniform(50, 150, (n, 2)),
        "scale": rng.uniform(0.5, 1.5, n),
        "pose_cam": rng.normal(0, 0.3, (n, 72)),
        "shape": rng.normal(0, 1, (n, 10)),
        "trans_cam": rng.normal(0, 1, (n, 3)) + [0, 0, 5],
        "cam_int": np.repeat(camera[None], n, 0),
        "gtkps": rng.uniform(0, 1, (n, 44, 3)) * [200, 200, 1],
    }


def write_camerahmr(folder: Path, **changes: Any) -> Path:
    """Write a good label file with some arrays changed; None removes an array."""
    data = camerahmr_arrays() | changes
    path = folder / "x-release.npz"
    np.savez(path, **{k: v for k, v in data.items() if v is not None})
    return path


def with_value(key: str, row: int, value: Any) -> dict[str, Any]:
    """The array of a key with the value of one row changed."""
    array = camerahmr_arrays()[key].copy()
    array[row] = value
    return {key: array}
