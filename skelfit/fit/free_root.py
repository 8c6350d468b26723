"""Moving the root as well: what the fit of a mesh adds to moment space, where a label's fit freezes the root.

The pelvis' three angles become active DoFs of the plan. The translation needs no variable: a vertex' weights sum to 1,
so with e = 1 in the last column of each joint's transform, a translation t turns the objective of `moments` into
E + 2 t.(D0 + dA M) e + |t|^2, whose minimum over t is the objective of the centred moments

    M - (M e)(M e)^T,   D0 - (D0 e)(M e)^T,   E0 - |D0 e|^2,       t = -(D0 + dA M) e.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from skelfit.body.skel import SkelModel
from skelfit.fit.objective import Quadratic
from skelfit.fit.plans import Plan, make_plan


def free_plan(model: SkelModel, stride: int, tile: tuple[int, int], points: np.ndarray | None = None) -> Plan:
    """As `make_plan` of all body DoFs against every stride-th vertex, the pelvis' angles active too."""
    return make_plan(model, "with_root", "all", stride, tile, points)


def centred(state: Quadratic) -> Quadratic:
    """The moments of the best translation, at whatever transforms; state's must be of a `free_plan`."""
    mean, offset = _means(state)
    return Quadratic(
        transforms=state.transforms,
        m=state.m - mean[:, :, None] * mean[:, None, :],
        d=state.d - offset[:, :, None] * mean[:, None, :],
        value=state.value - offset.square().sum(1),
    )


def best_translation(state: Quadratic, transforms: Tensor) -> Tensor:
    """The translation (B, 3) m that, with the transforms (B, 3, 4J), brings the skin nearest to its target.

    state is not centred.
    """
    mean, offset = _means(state)
    change = transforms - state.transforms
    return -(offset + (change @ mean[..., None])[..., 0])


def _means(state: Quadratic) -> tuple[Tensor, Tensor]:
    """M e (B, 4J) and D0 e (B, 3): the mean of u and the mean residual."""
    return state.m[:, :, 3::4].sum(2), state.d[:, :, 3::4].sum(2)
