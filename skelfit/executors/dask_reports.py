"""Dask's own ways to watch a run: its dashboard, and a report of all tasks. Both need bokeh."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

from distributed import Client, performance_report

from skelfit.errors import ClusterError
from skelfit.executors.executor import Executor


def check_bokeh() -> None:
    """Raise ClusterError where bokeh is not installed: Dask would only leave the pages empty."""
    if importlib.util.find_spec("bokeh") is None:
        raise ClusterError(
            "Dask's dashboard and reports need bokeh; install it with: pip install 'skelfit[watch]'"
        )


@contextmanager
def watched(client: Client, executor: Executor, say: Callable[[str], None]) -> Iterator[None]:
    """Say where the dashboard of a cluster is, and write a performance report at the end of the block."""
    # Our own scheduler has its port open also where no dashboard was asked for.
    if (executor.dashboard or executor.scheduler is not None) and (link := _dashboard(client)):
        say(f"dashboard: {link}")
    with nullcontext() if executor.report is None else _reported(executor.report, say):
        yield


def _dashboard(client: Client) -> str | None:
    """The link of the scheduler's dashboard; None when it has none."""
    try:
        return client.dashboard_link if client.scheduler_info()["services"].get("dashboard") else None
    except (KeyError, OSError):
        return None


@contextmanager
def _reported(path: Path, say: Callable[[str], None]) -> Iterator[None]:
    report = performance_report(filename=str(path))
    report.__enter__()
    try:
        yield
    finally:
        # Shards count, a report does not: the scheduler may be gone, or the disk full.
        try:
            report.__exit__(None, None, None)
            say(f"performance report: {path}")
        except Exception as error:
            say(f"{path}: no performance report: {error}")
