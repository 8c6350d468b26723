"""Retries: of failed problems only, never worse, each by itself."""

from __future__ import annotations

import torch
from torch import Tensor

from skelfit.fitting.start.restarts import retry_failed


def test_only_the_failed_are_retried_and_no_score_rises() -> None:
    x = torch.tensor([[0.0], [5.0], [6.0], [7.0]])
    score = torch.tensor([0.05, 5.0, 6.0, torch.nan])
    seen = []

    def attempt(rows: Tensor, start: Tensor) -> tuple[Tensor, Tensor]:
        seen.append(rows.tolist())
        return start, start[:, 0]

    def worse(rows: Tensor, best: Tensor) -> Tensor:
        return best + 10

    def near(rows: Tensor, best: Tensor) -> Tensor:
        return torch.where(rows[:, None] == 1, torch.zeros_like(best), best - 1)

    def no_number(rows: Tensor, best: Tensor) -> Tensor:
        return torch.full_like(best, torch.nan)

    best = retry_failed(attempt, x, score, 0.1, [worse, near, no_number])
    assert seen == [[1, 2, 3], [1, 2, 3], [2, 3]]
    # Row 3 had no score: any score is better. The second answer then improves on it.
    assert best.x[:, 0].tolist() == [0.0, 0.0, 5.0, 16.0]
    assert torch.equal(best.score, torch.tensor([0.05, 0.0, 5.0, 16.0]))
    assert best.retries.tolist() == [0, 2, 3, 3]
    assert x[1, 0] == 5 and score[1] == 5  # the caller's tensors are its own


def test_a_local_minimum_is_left() -> None:
    """(x^2 - 1)^2 + 0.3 x by gradient descent: from the right one lands in the higher of two valleys."""

    def descend(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        for _ in range(200):
            x = x - 0.05 * (4 * x * (x * x - 1) + 0.3)
        return x, ((x * x - 1) ** 2 + 0.3 * x)[:, 0]

    rows = torch.arange(50)
    x, score = descend(rows, torch.linspace(-1.5, 1.5, 50)[:, None])
    assert 10 < int((x > 0).sum()) < 40
    best = retry_failed(descend, x, score, 0.0, [lambda rows, best: -best])
    assert (best.x + 1.035).abs().max() < 1e-2
    assert torch.equal(best.retries, (x[:, 0] > 0).long())


def test_each_problem_may_have_its_own_goal() -> None:
    score = torch.tensor([1.0, 1.0])
    best = retry_failed(
        lambda rows, x: (x, torch.zeros(len(rows))),
        torch.zeros(2, 1),
        score,
        torch.tensor([2.0, 0.5]),
        [lambda rows, x: x],
    )
    assert best.retries.tolist() == [0, 1] and best.score.tolist() == [1.0, 0.0]


def test_no_problem_failed() -> None:
    def never(rows: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("nothing to retry")

    best = retry_failed(never, torch.zeros(3, 2), torch.zeros(3), 0.1, [lambda rows, x: x])
    assert not best.retries.any()
