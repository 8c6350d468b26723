"""roma, imported at its first use: it imports torch's compiler, which takes a second at the start of every process."""

from __future__ import annotations

from importlib import import_module
from typing import Any


class _LazyModule:
    """A module that is imported when one of its attributes is first used."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __getattr__(self, name: str) -> Any:
        return getattr(import_module(self._name), name)


roma = _LazyModule("roma")
