"""How long the steps of a prediction take."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock

STEPS = ("decode", "camera", "detect", "network", "draw", "write")


class StepTimes:
    """Seconds of each step, added up over threads. Steps overlap, so their sum may be more than what a clock shows."""

    def __init__(self) -> None:
        self.seconds = dict.fromkeys(STEPS, 0.0)
        self._lock = Lock()
        self._started = time.perf_counter()

    @contextmanager
    def of(self, step: str) -> Iterator[None]:
        """What runs within it is a step."""
        started = time.perf_counter()
        try:
            yield
        finally:
            spent = time.perf_counter() - started
            with self._lock:
                self.seconds[step] += spent

    def per_image(self, images: int) -> dict[str, float]:
        """Seconds of each step per image, and of all by the clock, `total`; empty without images."""
        if not images:
            return {}
        total = time.perf_counter() - self._started
        return {name: spent / images for name, spent in (*self.seconds.items(), ("total", total))}
