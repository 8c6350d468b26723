"""Ten numbers at once, one for each beta: loaded, worked on and stored together, which compilers make vectors of."""

from __future__ import annotations

from typing import Any

from skelfit.fit.compiled import Array, compiled

NUM_BETAS = 10
Ten = tuple[Any, ...]


@compiled
def load(a: Array) -> Ten:
    """The numbers of a (10,)."""
    return a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9]


@compiled
def store(x: Ten, a: Array) -> None:
    """Write them to a (10,)."""
    a[0], a[1], a[2], a[3], a[4], a[5], a[6], a[7], a[8], a[9] = x


@compiled
def times(c: float, a: Array) -> Ten:
    """c a."""
    return c * a[0], c * a[1], c * a[2], c * a[3], c * a[4], c * a[5], c * a[6], c * a[7], c * a[8], c * a[9]


@compiled
def plus(x: Ten, c: float, a: Array) -> Ten:
    """x + c a."""
    return (
        x[0] + c * a[0], x[1] + c * a[1], x[2] + c * a[2], x[3] + c * a[3], x[4] + c * a[4],
        x[5] + c * a[5], x[6] + c * a[6], x[7] + c * a[7], x[8] + c * a[8], x[9] + c * a[9],
    )  # fmt: skip


@compiled
def plus3(x: Ten, c0: float, c1: float, c2: float, a: Array) -> Ten:
    """x + c a for three rows a (3, 10)."""
    return plus(plus(plus(x, c0, a[0]), c1, a[1]), c2, a[2])
