"""Points on a skin that are fixed combinations of its vertices, such as joints."""

import warp as wp

from .lanes import A3, F2, F3, I1, L, V

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.kernel
def locate(vertices: I1, weights: F2, target: A3, points: F3):
    """Points (B, R, 3) m of the people of all blocks of target (., V, 3): sums of vertices (n,) with weights (R, n)."""
    g, t = wp.tid()
    for i in range(t, 3 * weights.shape[0], wp.block_dim()):
        total = V()
        for v in range(vertices.shape[0]):
            total += weights[i // 3, v] * target[g, vertices[v], i % 3]
        for k in range(wp.static(L)):
            person = g * wp.static(L) + k
            if person < points.shape[0]:
                points[person, i // 3, i % 3] = total[k]
