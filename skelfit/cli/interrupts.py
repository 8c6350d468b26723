"""What a command does when it is told to stop."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from skelfit.cli.console import current_console

INTERRUPTED = 130  # what a shell reports after Ctrl-C
TERMINATED = 143  # and after SIGTERM, which is how clusters take a machine back


@contextmanager
def interruptible(message: str) -> Iterator[None]:
    """Say a line after Ctrl-C or SIGTERM, and exit with the code of a shell: 130 or 143."""
    code = INTERRUPTED

    def terminate(*_: object) -> None:
        nonlocal code
        code = TERMINATED
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    except KeyboardInterrupt:
        current_console().warn(message)
        sys.exit(code)
    finally:
        signal.signal(signal.SIGTERM, before)
