"""The result of a fit, a row per person, and the better of two results of one person."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor


@dataclass(frozen=True)
class FitResult:
    """SKEL parameters of N people and how well they fit; CPU tensors, a row per person."""

    poses: Tensor  # (N, 46) rad
    betas: Tensor  # (N, 10)
    trans: Tensor  # (N, 3) m
    converged: Tensor  # (N,) bool
    gain: Tensor  # (N,) the gain that one more step promises, as a share of the objective
    finite: Tensor  # (N,) bool; False: the other fields of the row mean nothing
    pve_mm: Tensor  # (N,) mean vertex error, all vertices
    max_vertex_mm: Tensor  # (N,)
    stage_pve_mm: Tensor  # (N, S) mean vertex error after each stage; before the last on every 32nd vertex
    objective: Tensor  # (N,) m^2, mean squared vertex error, limits and, across genders, betas included
    female: Tensor  # (N,) bool, of the SKEL body that was fitted
    betas_mm: Tensor  # (N, 2) RMS distance of the two skins at rest: of transferred, of fitted betas
    joints: Tensor  # (N, 24, 3) m
    keypoints3d: Tensor | None  # (N, 44, 3) m, regressed from the fitted skin


def map_results(function: Callable[..., Tensor], *results: FitResult) -> FitResult:
    """Apply a function to each field of some results."""

    def apply(name: str) -> Any:
        values = [getattr(r, name) for r in results]
        return None if values[0] is None else function(*values)

    return FitResult(**{f.name: apply(f.name) for f in fields(FitResult)})


def better(one: FitResult, other: FitResult) -> FitResult:
    """Two results of the same people: for each person the better one.

    A finite result beats one that is not, then a converged one, then the lower objective. On a tie the first is taken.
    """
    same = one.finite == other.finite
    tied = same & (one.converged == other.converged)
    second = (
        (other.finite & ~same) | (other.converged & same & ~tied) | ((other.objective < one.objective) & tied)
    )
    return _choose(second, one, other)


def better_sequences(one: FitResult, other: FitResult, sequences: Sequence[NDArray[np.int64]]) -> FitResult:
    """Two results of the same sequences (the rows of each): for each sequence the better one as a whole.

    More finite frames win, then more converged ones, then the lower mean objective. On a tie the first is taken.
    """
    second = torch.zeros(len(one.finite), dtype=torch.bool)
    for rows in sequences:
        first, last = (
            (
                -int(r.finite[rows].sum()),
                -int(r.converged[rows].sum()),
                _mean(r.objective[rows][r.finite[rows]]),
            )
            for r in (one, other)
        )
        second[rows] = last < first
    return _choose(second, one, other)


def _choose(second: Tensor, one: FitResult, other: FitResult) -> FitResult:
    """Row by row the other result where second (N,) says so."""
    return map_results(lambda a, b: torch.where(second.view(-1, *[1] * (a.ndim - 1)), b, a), one, other)


def _mean(x: Tensor) -> float:
    return float(x.double().sum()) / max(len(x), 1)
