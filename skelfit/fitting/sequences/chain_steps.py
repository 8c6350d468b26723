"""Levenberg-Marquardt steps over whole chains of tied frames.

A step is accepted if it does not raise the sum over its chain of frames. Each frame has its own damping, which rises
when the frame and its ties get worse. So a bad frame does not slow down the others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from skelfit.fitting.sequences.tied_frames import FrameChains, Indices, TiedFrames

if TYPE_CHECKING:
    from skelfit.config.fit_settings import SolverConfig


def step_chains(
    frames: TiedFrames, evaluate: Callable[[FrameChains], Tensor], variables: Sequence[Tensor], damping: Tensor,
    chains: Sequence[Indices], steps: int, solver: SolverConfig, noise: float,
) -> tuple[FrameChains, Tensor]:  # fmt: skip
    """Take some steps of chains; returns them and all values (N, 3) where they end, as `TiedFrames.tie`.

    evaluate: makes the equations of chains; variables: what it and a step change; damping (N,): changed in place;
    noise: share of a sum that is rounding.
    """
    active = frames.chains(chains)
    index = torch.from_numpy(active.frames)
    value = evaluate(active)
    for _ in range(steps):
        before = [x.clone() for x in variables]
        frames.step(active, damping)
        tried = evaluate(active)
        rose = shares(tried) > shares(value)
        factor = torch.where(rose, solver.damping_up, solver.damping_down)
        damping[index] = (damping * factor).clamp(solver.damping_min, solver.damping_max)[index]
        refused = [c for c in chains if not no_worse(c, value, tried, noise)]
        if refused:
            rows = torch.from_numpy(np.concatenate(refused)).to(variables[0].device)
            for x, previous in zip(variables, before, strict=True):
                x[rows] = previous[rows]
            tried = evaluate(frames.chains(refused))  # of the refused chains alone
        value = tried
    return active, value


def shares(value: Tensor) -> Tensor:
    """Each frame's objective and half of its ties, (N,); value (N, 3)."""
    return value[:, 0] + 0.5 * (value[:, 1] + value[:, 2])


def chain_sum(chain: Indices, value: Tensor) -> float:
    """The objective of a chain, with the tie to the fixed frame before it; value (N, 3)."""
    return float(value[chain][:, [0, 2]].double().sum()) + float(value[chain[0], 1])


def no_worse(chain: Indices, value: Tensor, tried: Tensor, noise: float) -> bool:
    """Whether the sum of a chain is no higher than before."""
    one, two = (chain_sum(chain, v) for v in (value, tried))
    return two <= one + noise * one
