"""How far posed people are from their targets, and where their joints and keypoints are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skelfit.fit.backend import Backend
from skelfit.fit.passes import Batch, chunks, skinned, whole_groups
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
    slots = backend.slots(parts)
    out = k.skin_errors.Errors()
    out.mean, out.mean_square, out.largest = (backend.lanes_of(groups) for _ in range(3))
    out.points, out.joints = backend.lanes_of(groups, skin.num_points, 3), backend.lanes_of(groups, 24, 3)
    posing = k.posing.make_posing(
        slots,
        body,
        backend.array(batch.q),
        backend.array(batch.betas),
        backend.array(batch.trans),
        backend.device,
    )
    room = k.skin.room_for(slots, backend.block, 0, backend.device)
    people = skinned(backend, skin, batch.target, rows)
    backend.launch(k.skin_errors.errors, parts, [skin.skin, people, posing, backend.chunk, room, out])
    names = ("mean", "mean_square", "largest", "points", "joints")
    return Errors(**{name: backend.people_of(getattr(out, name), batch.count) for name in names})
