"""A script without a main guard: worker processes import it, and would begin the run again."""

from __future__ import annotations

import multiprocessing

_SENTENCE = (
    'skelfit: worker processes import this script: put its calls under `if __name__ == "__main__":`, '
    "or give workers=0"
)


def refuse_import_by_worker() -> None:
    """End a process that calls skelfit while it only imports the script of its parent. Raises SystemExit.

    Nothing else would show one line: an exception becomes a traceback of each worker.
    """
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        raise SystemExit(_SENTENCE)
