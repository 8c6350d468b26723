"""How far posed people are from their targets, and where their joints and keypoints are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skelfit.fit.backend import Backend
from skelfit.fit.passes import Batch, chunks, posing_of, skinned, whole_groups
from skelfit.fit.skin_tables import SkinPlan


@dataclass(frozen=True)
class Errors:
    """Distances of the posed skin to its target, and points of the body; on the host."""

    mean: Tensor  # (B,) m, over the plan's vertices
    mean_square: Tensor  # (B,) m^2, over the same
    largest: Tensor  # (B,) m
    points: Tensor  # (B, K, 3) m, regressed from the skin
    joints: Tensor  # (B, 24, 3) m


def measure(backend: Backend, skin: SkinPlan, body: Any, batch: Batch) -> Errors:
    """Distances at where people are, pose correctives included: what a user would measure on the two meshes."""
    k = backend.kernels
    rows = whole_groups(np.arange(batch.count), backend.lanes)
    groups, parts = len(rows), chunks(backend, len(rows))
    shapes = {
        "mean": (groups,),
        "mean_square": (groups,),
        "largest": (groups,),
        "points": (groups, skin.num_points, 3),
        "joints": (groups, 24, 3),
    }
    # All in one array: the host waits for the device at each read.
    ends = np.cumsum([0, *(np.prod(shape) for shape in shapes.values())]).tolist()
    found, out = backend.lanes_of(ends[-1]), k.skin_errors.Errors()
    spans = {name: slice(*ends[i : i + 2]) for i, name in enumerate(shapes)}
    for name, shape in shapes.items():
        setattr(out, name, found[spans[name]].reshape(shape) if np.prod(shape) else backend.lanes_of(*shape))
    posing = posing_of(backend, parts, body, batch)
    room = backend.room(k.skin.room_for, parts, backend.block, 0)
    people = skinned(backend, skin, batch.target, rows)
    backend.launch(k.skin_errors.errors, parts, [skin.skin, people, posing, backend.chunk, room, out])
    host = backend.read(found)  # (numbers, L)

    def people_of(name: str, shape: tuple[int, ...]) -> Tensor:
        lanes_last = host[spans[name]].view(*shape, backend.lanes)
        # Of a single group that is a view, and sums over it would be rounded in another order.
        return lanes_last.movedim(-1, 1).flatten(0, 1)[: batch.count].contiguous()

    return Errors(**{name: people_of(name, shape) for name, shape in shapes.items()})
