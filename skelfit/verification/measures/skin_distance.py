"""Signed distances to a skin, by Warp's mesh queries."""

# No `from __future__ import annotations`: Warp reads annotations when it compiles. Import this module where bones are
# measured: Warp takes a moment to import.
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from skelfit.fitting.backends.backend import start_warp

_POINTS_PER_THREAD = 32
_SLACK_M = 1e-4  # for rounding

Points: Any = wp.array(dtype=wp.vec3)
Floats: Any = wp.array(dtype=float)

wp.set_module_options({"enable_backward": False})


@wp.kernel
def _signed_distances(mesh: wp.uint64, points: Points, out: Floats) -> None:
    """Distances (P,) of points (P,) to a closed mesh, positive outside.

    The normal at the nearest point of the mesh gives the side. Where the skin folds into itself, a point may be outside
    of the nearest sheet and inside the body: then the winding number is not 0.
    """
    thread = wp.tid()
    begin = thread * wp.static(_POINTS_PER_THREAD)
    nearest = points[begin] + wp.vec3(1.0e6, 0.0, 0.0)
    for i in range(begin, wp.min(begin + wp.static(_POINTS_PER_THREAD), points.shape[0])):
        p = points[i]
        # The mesh is no further than the neighbour's nearest point; this bound skips most of the tree.
        query = wp.mesh_query_point_sign_normal(
            mesh, p, 1.0001 * wp.length(p - nearest) + wp.static(_SLACK_M)
        )
        # Warp's stubs do not type the result of a query.
        nearest = wp.mesh_eval_position(mesh, query.face, query.u, query.v)  # type: ignore[attr-defined]
        distance = wp.length(p - nearest)
        side = query.sign  # type: ignore[attr-defined]
        if side > 0.0:
            reach = 1.0001 * distance + wp.static(_SLACK_M)
            winding = wp.mesh_query_point_sign_winding_number(mesh, p, reach)
            side = winding.sign  # type: ignore[attr-defined]
        out[i] = side * distance


class SkinSurface:
    """A skin whose vertices move, with a tree over its triangles."""

    def __init__(self, faces: NDArray[np.integer[Any]], rest: NDArray[np.floating[Any]]) -> None:
        """faces (F,3) of a closed skin; rest (V,3) m: the vertices for which the tree is made."""
        start_warp()
        corners: Any = wp.array(np.ascontiguousarray(faces, np.int32).ravel(), dtype=wp.int32, device="cpu")
        points: Any = wp.array(np.array(rest, np.float32), dtype=wp.vec3, device="cpu")
        self._mesh = wp.Mesh(points, corners, support_winding_number=True, bvh_constructor="sah")

    def signed_distances(
        self, skin: NDArray[np.floating[Any]], points: NDArray[np.floating[Any]]
    ) -> NDArray[np.float32]:
        """Distances (P,) m of points (P,3) m to a skin (V,3) m, positive outside."""
        self._mesh.points.numpy()[:] = skin
        self._mesh.refit()
        distances = np.empty(len(points), np.float32)
        queries: Any = wp.array(np.ascontiguousarray(points, np.float32), dtype=wp.vec3, device="cpu")
        out: Any = wp.array(distances, dtype=float, device="cpu", copy=False)
        threads = -(-len(points) // _POINTS_PER_THREAD)
        wp.launch(_signed_distances, dim=threads, inputs=[self._mesh.id, queries, out], device="cpu")
        return distances
