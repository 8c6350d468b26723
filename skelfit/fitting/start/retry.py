"""A second chance for the problems of a batch that failed, each by itself: retry only those, keep the better answer.

It knows no body and no solver: an answer is a vector with a score, the lower the better. A retry can only improve an
answer, so the rule can be added to any fit; and since a problem is retried for its own score only, and from starts
that depend on nothing but itself, a batch gives what its members give alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

# Where to try again: from the rows (K,) int64 of the failed problems and their best answers so far (K, n).
Restart = Callable[[Tensor, Tensor], Tensor]
# Solve the problems of these rows (K,) int64 from starts (K, n): answers (K, n) and scores (K,).
Attempt = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


@dataclass(frozen=True)
class RetryResult:
    """The best answers found."""

    x: Tensor  # (B, n)
    score: Tensor  # (B,)
    retries: Tensor  # (B,) int64, attempts after the first


def retry_failed(
    attempt: Attempt, x: Tensor, score: Tensor, good_enough: float | Tensor, starts: Sequence[Restart]
) -> RetryResult:
    """Try the starts in turn on the problems whose score is above good_enough, or is not a number.

    x (B, n) and score (B,) are the answers so far; good_enough is one score or one per problem (B,). Each start is
    tried on what is still failing by then. A score never rises, and a problem that has not failed is not touched.
    """
    x, score = x.clone(), score.clone()
    retries = torch.zeros(len(x), dtype=torch.int64, device=x.device)
    goal = torch.as_tensor(good_enough, dtype=score.dtype, device=score.device).expand(score.shape)
    for start in starts:
        rows = (~(score <= goal)).nonzero()[:, 0]
        if len(rows) == 0:
            break
        found, value = attempt(rows, start(rows, x[rows]))
        better = (value < score[rows]) | (score[rows].isnan() & ~value.isnan())
        x[rows] = torch.where(better[:, None], found, x[rows])
        score[rows] = torch.where(better, value, score[rows])
        retries[rows] += 1
    return RetryResult(x, score, retries)
