"""Reader of bare meshes, to be fitted where SMPL's parameters are not known.

Meshes have SMPL's topology, or are brought into it by a vertex map.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path

import numpy as np

from skelfit.bodies.vertex_maps import VertexMap, load_vertex_map
from skelfit.errors import LabelError
from skelfit.labels.body_family import explain_mesh_error
from skelfit.labels.files.array_files import NPY_KEY, LabelArrays
from skelfit.labels.impossible_values import check_mesh_position
from skelfit.labels.label_batch import VERTICES, FloatArray, LabelBatch, LabelProperties, empty_fields
from skelfit.labels.read_settings import ReadSettings
from skelfit.labels.readers.base import LabelReader
from skelfit.labels.readers.common_fields import read_genders, read_image_names
from skelfit.labels.row_faults import RowFaults
from skelfit.labels.unit_inference import to_metres

KEYS = ("vertices", "verts", "pred_vertices", NPY_KEY)


class MeshReader(LabelReader):
    """Meshes without parameters."""

    layout = "mesh"
    version = "mesh-4"
    required_keys = (KEYS,)
    # Beside parameters, meshes are their results.
    excluded_keys = ("betas", "pred_shape", "smpl_betas", "shape", "body_pose")

    def read(self, arrays: LabelArrays, settings: ReadSettings) -> LabelBatch:
        """All meshes of a file, checked. Raises LabelError for a fault of the file."""
        notes: list[str] = []
        key = arrays.first_key(*KEYS) or KEYS[0]
        if (meshes := arrays.raw(key, "meshes (N, V, 3)")).ndim == 2 and meshes.shape[1:] == (3,):
            arrays = arrays.replaced(key, meshes[None])  # one mesh alone
        vertex_map = _vertex_map(arrays, key, settings)
        try:
            given = arrays.numbers(key, (vertex_map.source_vertices if vertex_map else VERTICES, 3))
        except LabelError as error:
            if vertex_map:
                raise arrays.error(
                    key, f"{error.expected}, as {vertex_map.name} takes them", error.found
                ) from None
            raise explain_mesh_error(arrays, error, key) from None
        vertices = to_metres(arrays, key, given, settings, notes)
        if vertex_map:
            vertices = vertex_map.apply(vertices)
            notes.append(f"'{key}': brought into SMPL's topology by {vertex_map.name}")
        n = len(vertices)
        faults = RowFaults(n)
        vertices = check_meshes(vertices, key, faults)
        return LabelBatch(
            row=np.arange(n, dtype=np.int64),
            imgname=read_image_names(arrays, n),
            gender=read_genders(arrays, settings.gender, faults),
            bad=faults.texts(),
            vertices=vertices,
            about=LabelProperties("unknown", has_camera=False, has_smpl=False, notes=tuple(notes)),
            **empty_fields(n),
        )


def check_meshes(vertices: FloatArray, key: str, faults: RowFaults) -> FloatArray:
    """Meshes (N,6890,3) m with zeros for those that are not finite; reports these and meshes of impossible size."""
    finite = np.asarray(np.isfinite(vertices).all(axis=(1, 2)))
    faults.report(~finite, f"non_finite:{key}")
    size = np.zeros(len(vertices), np.float32)
    size[finite] = (vertices[finite].max(axis=1) - vertices[finite].min(axis=1)).max(axis=1)
    faults.report(finite & ((size < 0.2) | (size > 4)), "absurd_mesh: {:.2f} m long", size)
    safe: FloatArray = np.where(finite[:, None, None], vertices, np.float32(0))
    check_mesh_position(safe, faults.report)
    return safe


def _vertex_map(arrays: LabelArrays, key: str, settings: ReadSettings) -> VertexMap | None:
    """The map that the user gives, for meshes that are not SMPL's; None for those that are."""
    if settings.options.vertex_map is None or arrays.raw(key, "meshes (N, V, 3)").shape[1:2] == (VERTICES,):
        return None
    return _loaded(arrays.use_option("vertex_map", settings.options.vertex_map))


@lru_cache(maxsize=1)
def _loaded(path: str) -> VertexMap:
    return load_vertex_map(Path(path))
