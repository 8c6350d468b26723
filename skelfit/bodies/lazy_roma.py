"""roma, imported at its first use: it brings torch's compiler along, more than a second of every process's start."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _LazyModule:
    """A module that is not there yet."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


roma = _LazyModule("roma")
