"""A kernel with known operations and bytes: ten scaled products and their sum, a root, a choice, a difference."""

import warp as wp

from skelfit.fitting.backends.kernels import kernels_for

_lanes = kernels_for(1).lanes
V, A2, F2 = _lanes.V, _lanes.A2, _lanes.F2
m, square_root, choose = _lanes.m, _lanes.square_root, _lanes.choose

wp.set_module_options({"enable_backward": False, "max_unroll": 1})


@wp.kernel
def known(x: A2, y: A2, w: F2):
    g, t = wp.tid()
    total = V()
    for i in range(t, 10, wp.block_dim()):
        total += m(x[g, i], x[g, 0]) * w[g, i]
    y[g, 0] = square_root(total)
    y[g, 1] = choose(y[g, 0], total, V(1.0)) - total
    y[g, 0] = -total
