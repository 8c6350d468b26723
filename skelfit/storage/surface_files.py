"""Meshes in files: OBJ, PLY, GLB, and npz with the arrays of a mesh or a body model. The order of vertices is kept."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import InputError
from skelfit.storage.path_checks import require_regular_file

ENDINGS = (".obj", ".ply", ".glb")
_VERTICES, _FACES = ("vertices", "v_template", "verts"), ("faces", "f")


def read_surface(path: Path, error: type[InputError]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Vertices (V,3), in the unit and order of the file, and triangles (F,3), of which a scan may have none.

    Raises the error.
    """
    expected = "a mesh (.obj, .ply, .glb), or an .npz with vertices and faces"
    require_regular_file(path, expected, error)
    try:
        if path.suffix.lower() == ".obj":
            vertices, faces = _read_obj(path)
        elif path.suffix.lower() in ENDINGS:
            vertices, faces = _read_other(path)
        else:
            with np.load(path, allow_pickle=False) as archive:
                vertices, faces = _first(archive, _VERTICES), _first(archive, _FACES)
    except FileNotFoundError:
        raise error(path, None, expected, "no such file") from None
    except Exception as problem:  # a damaged file can raise anything
        raise error(path, None, expected, " ".join(str(problem).split())[:200] or "another file") from None
    if vertices.ndim != 2 or vertices.shape[1] != 3 or not len(vertices):
        raise error(path, "vertices", "points (V, 3)", f"shape {vertices.shape}")
    if (
        faces.ndim != 2
        or faces.shape[1] != 3
        or (faces.size and not 0 <= faces.min() <= faces.max() < len(vertices))
    ):
        raise error(path, "faces", f"triangles (F, 3) of {len(vertices)} vertices", f"shape {faces.shape}")
    return vertices.astype(np.float64), faces.astype(np.int64)


def _first(arrays: Mapping[str, Any], keys: tuple[str, ...]) -> NDArray[Any]:
    for key in keys:
        if key in arrays:
            return np.asarray(arrays[key])
    raise ValueError(f"neither {' nor '.join(keys)}")


def _read_obj(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    """Vertices as they are listed: readers for drawing split and sort them by texture."""
    vertices, faces = [], []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            word, *values = line.split() or [""]
            if word == "v":
                vertices.append([float(value) for value in values[:3]])
            elif word == "f":
                corners = [int(value.split("/")[0]) for value in values]
                corners = [k - 1 if k > 0 else len(vertices) + k for k in corners]
                faces += [[corners[0], *pair] for pair in zip(corners[1:], corners[2:], strict=False)]
    return np.array(vertices).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3)


def _read_other(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    import trimesh  # takes a moment to import

    mesh = trimesh.load_scene(path, process=False).to_mesh()
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)
