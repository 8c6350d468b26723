"""SMPL labels as tensors, for the arguments of `Fitter.fit`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from torch import Tensor

Labels = tuple[Tensor, Tensor, Tensor]  # pose (N, 24, 3), betas (N, 10), transl (N, 3)


def labels_from(tensors: Iterable[Tensor]) -> Labels:
    """Three tensors as labels."""
    pose, betas, transl = tensors
    return pose, betas, transl


def map_labels(function: Callable[[Tensor], Tensor], labels: Labels) -> Labels:
    """A function of each of the three tensors."""
    return labels_from(function(x) for x in labels)
