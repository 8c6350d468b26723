"""Kernels of the fit, compiled once: several processes that test would each compile the same, for half a minute."""

from __future__ import annotations

import fcntl
import os
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

from warp._src.context import Module

# Compiles what the fit, refinements and SMPL need, for `python -c`; what a conversion needs comes first.
WARM_UP = """
from skelfit.fitting.backends.backend import FIT, FREE_BETAS, MESHES, REFINEMENT, SEQUENCES, TO_SMPL, make_backend
for files in (FIT, SEQUENCES, tuple({*MESHES, *REFINEMENT, *TO_SMPL})):
    make_backend().compile(files)
"""


def compile_once() -> None:
    """From now on a process waits while another compiles the same file of kernels, and then finds it on disk."""
    root = sha256(str(Path(__file__).parents[2]).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"skelfit-tests-locks-{os.getuid()}-{root}"
    folder.mkdir(exist_ok=True)
    compile_ = Module._compile  # looks for what is on disk first

    def locked(module: Module, *args: Any, **options: Any) -> Any:
        with open(folder / module.name, "w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            return compile_(module, *args, **options)

    Module._compile = locked  # type: ignore[assignment, method-assign]
