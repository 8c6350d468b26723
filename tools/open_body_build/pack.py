"""Writes the compact file that `skelfit.bodies.open_body` decodes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np


def table(name: str, matrix: np.ndarray) -> dict[str, np.ndarray]:
    """A non-negative table by rows: counts, columns and 16-bit values relative to each row's largest."""
    largest = matrix.max(1, keepdims=True)
    value = np.round(matrix / largest * 65535).astype(np.uint16)
    row, column = np.nonzero(value)
    count = np.bincount(row, minlength=len(matrix))
    return {
        f"{name}_count": count.astype(np.uint8 if count.max() < 256 else np.uint16),
        f"{name}_column": column.astype(np.uint8 if matrix.shape[1] < 256 else np.uint16),
        f"{name}_value": value[row, column],
    }


def halves(partner: np.ndarray, left: np.ndarray, order: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Vertex sequence midline, left, right (old ids), the order of final vertices in it, and the midline's
    length."""
    count = len(partner)
    middle = np.flatnonzero(partner == np.arange(count))
    left_ids = np.flatnonzero(left & (partner != np.arange(count)))
    sequence = np.concatenate([middle, left_ids, partner[left_ids]])
    position = np.empty(count, np.int64)
    position[sequence] = np.arange(count)
    return sequence, position[order], len(middle)


def shape_arrays(gender: str, template: np.ndarray, shapedirs: np.ndarray) -> dict[str, np.ndarray]:
    """Template (H,3) and shapedirs (H,3,10) of the half body, the latter in 16 bits."""
    scale = np.abs(shapedirs).max((0, 1)) / 32767
    return {
        f"template_{gender}": template.astype(np.float32),
        f"shapedirs_{gender}": np.round(shapedirs / scale).astype(np.int16),
        f"shapedirs_scale_{gender}": scale.astype(np.float32),
    }


def posedir_arrays(posedirs: np.ndarray) -> dict[str, np.ndarray]:
    """Posedirs (H,3,207) of the half body as 8-bit blocks of 27 (3 x 9), only where a joint moves a
    vertex."""
    blocks = posedirs.reshape(len(posedirs), 3, 23, 9).transpose(0, 2, 1, 3).reshape(len(posedirs), 23, 27)
    scale = np.abs(blocks).max((0, 2)) / 127
    value = np.round(blocks / np.where(scale > 0, scale, 1.0)[:, None]).astype(np.int8)
    vertex, joint = np.nonzero(np.abs(blocks).max(2) > 2e-4)
    return {
        "posedirs_vertex": vertex.astype(np.uint16),
        "posedirs_joint": joint.astype(np.uint8),
        "posedirs_value": value[vertex, joint],
        "posedirs_scale": scale.astype(np.float32),
    }


def bone_arrays(local: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Bone vertices (Vs,3) m of each gender, in the frames of their bones, in 16 bits."""
    scale = max(np.abs(v).max() for v in local.values()) / 32767
    rounded = {f"bone_vertices_{g}": np.round(v / scale).astype(np.int16) for g, v in local.items()}
    return {"bone_scale": np.array(scale), **rounded}


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    """A compressed npz with sorted keys."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries: dict[str, Any] = dict(sorted(arrays.items()))
    np.savez_compressed(path, **entries)
