"""Vertex errors of posed people, and the positions of their joints and keypoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from skelfit.fitting.backends.backend import Backend, by_person
from skelfit.fitting.backends.skin_tables import SkinPlan
from skelfit.fitting.passes import FitBatch, chunks, posing_of, skinned, whole_groups


@dataclass(frozen=True)
class FitErrors:
    """Distances from the posed skin to its target, and points of the body; on the host."""

    mean: Tensor  # (B,) m, over the plan's vertices
    mean_square: Tensor  # (B,) m^2, over the same
    largest: Tensor  # (B,) m
    points: Tensor  # (B, K, 3) m, regressed from the skin
    joints: Tensor  # (B, 24, 3) m


@dataclass(frozen=True)
class PendingErrors:
    """Errors on the device: the host can wait once for those of several batches."""

    array: Any  # (numbers,) lane vectors, all fields of `FitErrors` one after the other
    shapes: dict[str, tuple[int, ...]]  # of each field, group by group
    count: int  # people

    def errors(self, host: Tensor) -> FitErrors:
        """The errors, from the array read to the host, (numbers, L)."""
        parts = host.split([int(np.prod(shape)) for shape in self.shapes.values()])
        fields = zip(self.shapes.items(), parts, strict=True)
        return FitErrors(
            **{name: by_person(x.view(*shape, host.shape[-1]), self.count) for (name, shape), x in fields}
        )


def measure(backend: Backend, skin: SkinPlan, body: Any, batch: FitBatch) -> PendingErrors:
    """Errors of a batch where it is, pose correctives included: what a user would measure on the two meshes."""
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
    array, out = backend.lanes_of(ends[-1]), k.skin_errors.SkinErrors()
    for (name, shape), first, stop in zip(shapes.items(), ends, ends[1:], strict=False):
        setattr(out, name, array[first:stop].reshape(shape) if stop > first else backend.lanes_of(*shape))
    posing = posing_of(backend, parts, body, batch)
    room = backend.scratch(k.skinning.make_skin_scratch, parts, backend.block, 0)
    people = skinned(backend, skin, batch.target, rows)
    backend.launch(k.skin_errors.errors, parts, [skin.skin, people, posing, backend.chunk, room, out])
    return PendingErrors(array, shapes, batch.count)
