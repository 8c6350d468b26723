"""Moving the root as well: what the fit of a mesh adds to moment space, where a label's fit freezes the root.

The pelvis' three angles become active DoFs of the plan. The translation needs no variable: a vertex' weights sum to 1,
so with e = 1 in the last column of each joint's transform, a translation t turns the objective of `moments` into
E + 2 t.(D0 + dA M) e + |t|^2, whose minimum over t is the objective of the centred moments

    M - (M e)(M e)^T,   D0 - (D0 e)(M e)^T,   E0 - |D0 e|^2,       t = -(D0 + dA M) e.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from skelfit.body.dofs import NUM_DOFS, NUM_JOINTS, ROOT_DOFS
from skelfit.body.skel import SkelModel
from skelfit.fit.moments import Moments
from skelfit.fit.plans import PRODUCTS, Chain, Plan, Rows, make_plan


def free_plan(model: SkelModel, stride: int, tile: tuple[int, int], points: np.ndarray | None = None) -> Plan:
    """As `make_plan` of all body DoFs against every stride-th vertex, the pelvis' angles active too."""
    device, dtype = model.v_template.device, model.v_template.dtype
    body = make_plan(model, "all", "all", stride, tile, points)
    weights = np.asarray(model.asset.skin_weights, dtype=np.float64)
    chosen = np.concatenate([block.vertices.cpu().numpy() for block in body.blocks])
    touching = (weights[chosen] > 0).astype(np.float64)
    first, second = np.nonzero(np.triu(touching.T @ touching))
    pairs = weights[:, first] * weights[:, second] / len(chosen)

    def rows(table: np.ndarray) -> Rows:
        index = np.flatnonzero((table != 0).any(1))
        return Rows(
            torch.tensor(index, device=device), torch.tensor(table[index], device=device, dtype=dtype)
        )

    blocks = []
    for block in body.blocks:
        mine = block.vertices.cpu().numpy()
        blocks.append(replace(block, joint=rows(weights[mine].T / len(chosen)), pair=rows(pairs[mine].T)))
    root = Chain(
        dofs=slice(0, len(ROOT_DOFS)),
        joints=slice(0, NUM_JOINTS),
        subtree=torch.ones(len(ROOT_DOFS), 1, NUM_JOINTS, 1, device=device, dtype=dtype),
    )
    behind = [
        replace(c, dofs=_shifted(c.dofs, len(ROOT_DOFS)), joints=_shifted(c.joints, 1)) for c in body.chains
    ]
    return replace(
        body,
        dofs=torch.arange(NUM_DOFS, device=device),
        joints=list(range(NUM_JOINTS)),
        blocks=tuple(blocks),
        chains=(root, *behind),
        pair_mass=torch.tensor(pairs[chosen].sum(0), device=device, dtype=dtype),
        fill=torch.tensor(_fill_table(first, second), device=device),
    )


def _shifted(run: slice, by: int) -> slice:
    return slice(run.start + by, run.stop + by)


def _fill_table(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Where in [10 sums of each pair, 0] each entry of M stands, as `moments` lays them out."""
    entry = np.empty((4, 4), dtype=np.int64)
    for k, (a, b) in enumerate(PRODUCTS):
        entry[a, b] = entry[b, a] = k
    entry[3] = entry[:, 3] = (6, 7, 8, 9)
    table = np.full((NUM_JOINTS, 4, NUM_JOINTS, 4), 10 * len(first), dtype=np.int64)
    for p, (a, b) in enumerate(zip(first, second, strict=True)):
        table[a, :, b, :] = table[b, :, a, :] = 10 * p + entry
    return table.reshape(-1)


def centred(state: Moments) -> Moments:
    """The moments of the best translation, at whatever transforms; state's must be of a `free_plan`."""
    mean, offset = _means(state)
    return Moments(
        transforms=state.transforms,
        m=state.m - mean[:, :, None] * mean[:, None, :],
        d=state.d - offset[:, :, None] * mean[:, None, :],
        value=state.value - offset.square().sum(1),
    )


def best_translation(state: Moments, transforms: Tensor) -> Tensor:
    """The translation (B, 3) m that, with the transforms (B, 3, 4J), brings the skin nearest to its target.

    state is not centred.
    """
    mean, offset = _means(state)
    change = transforms - state.transforms
    return -(offset + (change @ mean[..., None])[..., 0])


def _means(state: Moments) -> tuple[Tensor, Tensor]:
    """M e (B, 4J) and D0 e (B, 3): the mean of u and the mean residual."""
    return state.m[:, :, 3::4].sum(2), state.d[:, :, 3::4].sum(2)
