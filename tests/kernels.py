"""Kernels of the fit, compiled once: several processes that test would each compile the same, for a minute or more."""

from __future__ import annotations

import fcntl
import os
import tempfile
import threading
from hashlib import sha256
from pathlib import Path
from typing import Any

from numba.core.dispatcher import Dispatcher

# Compiles what a conversion needs, for `python -c`.
WARM_UP = """
from skelfit.body.models import open_models
from skelfit.config import load_pipeline
from skelfit.job import make_fitter
from skelfit.shipped import PIPELINES
make_fitter(open_models(), load_pipeline(PIPELINES.find("hmr-skel")), "cpu").compile()
"""


def compile_once() -> None:
    """From now on a process waits while another compiles the same function, and then finds it on disk."""
    root = sha256(str(Path(__file__).parents[1]).encode()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"skelfit-tests-locks-{os.getuid()}-{root}"
    folder.mkdir(exist_ok=True)
    compile_, own = Dispatcher.compile, threading.RLock()
    held: set[str] = set()

    def locked(dispatcher: Dispatcher, signature: Any) -> Any:
        name = f"{dispatcher.py_func.__module__}.{dispatcher.py_func.__name__}"
        # The thread's own lock first: a function compiles those that it calls, and holds a lock of numba meanwhile.
        with own:
            if name in held or not name.startswith("skelfit."):
                return compile_(dispatcher, signature)
            with open(folder / name, "w") as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                held.add(name)
                try:
                    return compile_(dispatcher, signature)
                finally:
                    held.remove(name)

    Dispatcher.compile = locked
