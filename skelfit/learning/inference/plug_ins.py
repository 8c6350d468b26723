"""Functions of the user's own, named 'package.module:callable': a detector, or a predictor of cameras."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Lock
from typing import Any

from skelfit.errors import InputError


def load_plug_in(option: str, name: str, does: str) -> Callable[[Any], Any]:
    """The function of a name; modules of the current folder are found, too. It is called once at a time.

    option and does: the option that names it and what the function does, for messages. Raises InputError.
    """
    expected = f"package.module:callable, which {does}"
    module, colon, attribute = name.partition(":")
    if not colon:
        raise InputError(option, name, expected, "no colon")
    if str(Path.cwd()) not in sys.path:
        sys.path.append(str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module), attribute)
    except (Exception, SystemExit) as error:  # importing runs the user's code
        raise InputError(option, name, expected, repr(error)) from None
    if not callable(function):
        raise InputError(option, name, expected, type(function).__name__)
    lock = Lock()

    def call(argument: Any) -> Any:
        with lock:  # photos are prepared by several threads
            return function(argument)

    return call
