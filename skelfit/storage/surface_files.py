"""Meshes in files: OBJ, PLY, GLB, and npz with the arrays of a mesh or a body model. The order of vertices is kept."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from skelfit.errors import InputError
from skelfit.storage.path_checks import require_regular_file

ENDINGS = (".obj", ".ply", ".glb")
_PACKED = ("KHR_draco_mesh_compression", "EXT_meshopt_compression")
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
    triangles = f"triangles (F, 3) of {len(vertices)} vertices"
    if faces.ndim != 2 or faces.shape[1] != 3:
        raise error(path, "faces", triangles, f"shape {faces.shape}")
    if faces.size and not 0 <= faces.min() <= faces.max() < len(vertices):
        raise error(
            path, "faces", triangles, f"vertices of numbers {faces.min()} to {faces.max()}, from 0 on"
        )
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
        for number, line in enumerate(lines, 1):
            word, *values = line.split() or [""]
            try:
                if word == "v":
                    x, y, z = (float(value) for value in values[:3])
                    vertices.append([x, y, z])
                elif word == "f":
                    corners = [int(value.split("/")[0]) for value in values]
                    # From 1 on; negative numbers count back from the last vertex; there is no vertex 0.
                    corners = [k - 1 if k >= 0 else len(vertices) + k for k in corners]
                    faces += [[corners[0], *pair] for pair in zip(corners[1:], corners[2:], strict=False)]
            except ValueError:
                raise ValueError(f"line {number}: {line.strip()[:60]!r}") from None
    return np.array(vertices).reshape(-1, 3), np.array(faces, np.int64).reshape(-1, 3)


def _read_other(path: Path) -> tuple[NDArray[Any], NDArray[Any]]:
    import trimesh  # takes a moment to import

    if packed := _packed_by(path):
        raise ValueError(f"a mesh that is compressed by {packed}; export it without compression")
    scene = trimesh.load_scene(path, process=False)
    clouds = [part for part in scene.dump() if isinstance(part, trimesh.PointCloud)]
    if len(clouds) == len(scene.geometry) == 1:  # without triangles
        return np.asarray(clouds[0].vertices), np.zeros((0, 3), np.int64)
    mesh = scene.to_mesh()
    return np.asarray(mesh.vertices), np.asarray(mesh.faces)


def _packed_by(path: Path) -> str:
    """The extension that compresses the meshes of a .glb; '' for none."""
    with open(path, "rb") as stream:
        head = stream.read(20)
        if head[:4] != b"glTF" or len(head) < 20:
            return ""
        document = json.loads(stream.read(int.from_bytes(head[12:16], "little")))
    return next((name for name in document.get("extensionsRequired", []) if name in _PACKED), "")


def count_meshes(path: Path) -> str:
    """The meshes in a file that holds several, and how many vertices each has; '' for one that holds one."""
    if path.suffix.lower() != ".glb":
        return ""
    import trimesh

    parts = trimesh.load_scene(path, process=False).geometry
    if len(parts) < 2:
        return ""
    listed = [f"'{name}' of {len(part.vertices)} vertices" for name, part in parts.items()]
    return f"{len(parts)} meshes: {', '.join(listed[:5])}" + ", ..." * (len(listed) > 5)
