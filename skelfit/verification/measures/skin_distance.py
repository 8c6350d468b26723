"""Signed distances to a skin, by Warp's queries of a tree over its triangles."""

# Warp reads annotations when it compiles, so that they cannot be postponed here. It takes a moment to import, so that
# this module is imported where bones are measured.
from typing import Any

import numpy as np
import warp as wp
from numpy.typing import NDArray

from skelfit.fitting.backends.backend import start_warp

_RUN = 32  # neighbouring points that one thread looks up one after the other
_SLACK_M = 1e-4  # for rounding

Points: Any = wp.array(dtype=wp.vec3)
Floats: Any = wp.array(dtype=float)

wp.set_module_options({"enable_backward": False})


@wp.kernel
def _signed_distances(mesh: wp.uint64, points: Points, out: Floats) -> None:
    """Distances (P,) of points (P,) to a closed mesh, positive outside.

    The normal at the nearest point of the mesh tells on which side of that sheet a point is. Where the skin folds into
    itself, a point may lie before one sheet and yet inside: then the winding number is not 0.
    """
    run = wp.tid()
    begin = run * wp.static(_RUN)
    foot = points[begin] + wp.vec3(1.0e6, 0.0, 0.0)
    for i in range(begin, wp.min(begin + wp.static(_RUN), points.shape[0])):
        p = points[i]
        # The mesh is no further than the foot of the neighbour, which spares most of the tree.
        near = wp.mesh_query_point_sign_normal(mesh, p, 1.0001 * wp.length(p - foot) + wp.static(_SLACK_M))
        # Warp's stubs do not say what a query answers.
        foot = wp.mesh_eval_position(mesh, near.face, near.u, near.v)  # type: ignore[attr-defined]
        distance = wp.length(p - foot)
        side = near.sign  # type: ignore[attr-defined]
        if side > 0.0:
            reach = 1.0001 * distance + wp.static(_SLACK_M)
            around = wp.mesh_query_point_sign_winding_number(mesh, p, reach)
            side = around.sign  # type: ignore[attr-defined]
        out[i] = side * distance


class Surface:
    """A skin whose vertices move, and the tree over its triangles."""

    def __init__(self, faces: NDArray[np.integer[Any]], rest: NDArray[np.floating[Any]]) -> None:
        """faces (F,3) of a closed skin; rest (V,3) m, where the tree is made: that of others has the same branches."""
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
        found = np.empty(len(points), np.float32)
        there: Any = wp.array(np.ascontiguousarray(points, np.float32), dtype=wp.vec3, device="cpu")
        out: Any = wp.array(found, dtype=float, device="cpu", copy=False)
        runs = -(-len(points) // _RUN)
        wp.launch(_signed_distances, dim=runs, inputs=[self._mesh.id, there, out], device="cpu")
        return found
