"""What Dask logs of things that are usual in a run: said once, in a sentence, or not at all.

Dask itself loads this module into each worker of this machine (`dask_setup`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

_HEARTBEAT = "Failed to communicate with scheduler during heartbeat"
_GATHER = "Couldn't gather"  # of the scheduler, and with the number of keys and the keys, of the client


def dask_setup(worker: object) -> None:
    """Let the workers of this process keep silent about a heartbeat that failed.

    A worker that ends closes the connection of a heartbeat that is under way, and Dask takes that for a fault. Whether
    the scheduler is lost shows elsewhere: its stream to the worker ends, and so does the worker.
    """
    logging.getLogger("distributed.worker").addFilter(_is_no_heartbeat)


def _is_no_heartbeat(record: logging.LogRecord) -> bool:
    return not str(record.msg).startswith(_HEARTBEAT)


@contextmanager
def lost_results_counted(say: Callable[[str], None]) -> Iterator[None]:
    """Say at the end of the block how many tasks had to be done again because their results were lost with a worker.

    Dask logs each time that it asks for such a result in vain, on both sides.
    """
    keys: set[str] = set()

    def is_other(record: logging.LogRecord) -> bool:
        if not str(record.msg).startswith(_GATHER):
            return True
        lost = record.args[-1] if isinstance(record.args, tuple) else ()
        if record.name == "distributed.client" and isinstance(lost, Iterable):
            keys.update(map(str, lost))
        return False

    loggers = [logging.getLogger(f"distributed.{side}") for side in ("client", "scheduler")]
    for logger in loggers:
        logger.addFilter(is_other)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_other)
        if keys:
            say(f"results lost with their workers, and asked for again: {len(keys)}")
